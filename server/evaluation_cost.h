// How long evaluating takes, learnt from what has been evaluated.
#ifndef HILOMOE_SERVER_EVALUATION_COST_H_
#define HILOMOE_SERVER_EVALUATION_COST_H_

#include <atomic>
#include <memory>
#include <vector>

namespace hilomoe {

class EvaluationCost {
 public:
  explicit EvaluationCost(int threads) {
    for (int i = 0; i < threads; ++i) cells_.push_back(std::make_unique<Cell>());
  }

  // A request with so many candidates took so long on `thread`, the caller.
  void Record(int thread, double candidates, double ns) {
    Cell& cell = *cells_[static_cast<size_t>(thread)];
    cell.candidates += (candidates - cell.candidates) * kShare;
    cell.ns += (ns - cell.ns) * kShare;
    cell.ns_per_candidate.store(cell.ns / cell.candidates, std::memory_order_relaxed);
  }

  // The mean over the threads that have evaluated anything; 0 before that. Any thread.
  double NsPerCandidate() const {
    double sum = 0;
    int n = 0;
    for (const auto& cell : cells_) {
      const double ns = cell->ns_per_candidate.load(std::memory_order_relaxed);
      sum += ns;
      n += ns > 0 ? 1 : 0;
    }
    return n > 0 ? sum / n : 0;
  }

 private:
  static constexpr double kShare = 1.0 / 64;  // of the latest request in a thread's averages
  struct alignas(64) Cell {
    double candidates = 0, ns = 0;  // of its thread alone
    std::atomic<double> ns_per_candidate{0};
  };
  std::vector<std::unique_ptr<Cell>> cells_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_EVALUATION_COST_H_
