// How the experts of a model are used while it is evaluated: sums of the routing scores of some of the rows.
//
//   mass[i] = sum over sampled rows of s[i],   entropy = sum over sampled rows of -sum_i s[i] ln s[i] / ln K
//
// per block and layer of K experts, s being the routing scores, a layer's softmax over its logits (with top-k over
// those of the kept experts, 0 for the others). Divided by the number of rows they are what the model file's header
// stores as `utilisation`, of the rows that are served. Whole tiles are sampled, at random distances, so that every row
// is as likely as any other and no pattern of requests falls in step with the sample.
#ifndef HILOMOE_RUNTIME_ROUTING_STATISTICS_H_
#define HILOMOE_RUNTIME_ROUTING_STATISTICS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "model/model_spec.h"

namespace hilomoe {

class RoutingStatistics {
 public:
  // What one worker has added. Only that worker calls Sample, AddRows, scores and Add; without locks or allocation.
  class Worker {
   public:
    // Whether the tile that comes is one of the sample.
    bool Sample() { return countdown_ > 0 && --countdown_ == 0 && Draw(); }
    // Where routing is to put the scores of a block's rows of a tile, [rows, L*K].
    float* scores() { return scores_.data(); }
    // Adds what stands in scores(). A score that is no number counts as 0.
    void Add(size_t block, int rows);
    void AddRows(int rows) { Increase(&rows_, rows); }  // once a tile

   private:
    friend class RoutingStatistics;
    Worker(const RoutingStatistics& statistics, uint32_t number);
    bool Draw();  // the distance to the next tile; true
    static void Increase(std::atomic<double>* cell, double by) {
      cell->store(cell->load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
    }

    const RoutingStatistics& statistics_;
    uint64_t random_;
    uint32_t countdown_ = 0;  // tiles until the next one of the sample; 0 = never
    std::vector<float> scores_, tile_mass_, tile_entropy_;
    std::atomic<double> rows_{0};
    std::vector<std::atomic<double>> mass_, entropy_;  // of all blocks, one after the other; by expert, by layer
  };

  struct Layer {
    size_t block = 0;  // index into ModelSpec::blocks()
    size_t layer = 0;
    std::vector<double> mass;  // [K]
    double entropy = 0;
  };
  struct Totals {
    double rows = 0;
    std::vector<Layer> layers;  // of the blocks that have experts, in order
  };

  // One tile in `one_in` is sampled, on average; 0 = none.
  RoutingStatistics(const ModelSpec& spec, uint32_t one_in);

  // For one more thread that evaluates; it lives as long as this.
  Worker* AddWorker();
  // Added up over the workers. Any thread, while they work: of a tile that is being added some numbers may be missing.
  Totals Sum() const;

 private:
  struct Block {
    size_t layers = 0, experts = 0;  // 0: without experts
    size_t first_layer = 0;          // of all blocks' layers, and with K in front of each, experts
    size_t first_expert = 0;
  };

  const uint32_t one_in_;
  std::vector<Block> blocks_;
  size_t layers_ = 0, experts_ = 0, largest_stack_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;  // guarded by mutex_
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_ROUTING_STATISTICS_H_
