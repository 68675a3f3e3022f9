// Requests to the bench model, drawn from a seed, with the rows that they must be encoded to.
#ifndef HILOMOE_TOOLS_BENCH_BENCH_REQUEST_H_
#define HILOMOE_TOOLS_BENCH_BENCH_REQUEST_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "model/encoded_batch.h"
#include "runtime/request_view.h"
#include "tools/bench/bench_model.h"

namespace hilomoe::bench {

enum class IdLaw {
  kZipf,     // the id of rank i (from 1) with a probability proportional to i^-1.05: a few ids make up most values
  kUniform,  // every id as likely: hardly one is in a cache
};

// How many different ones are expected among `draws` of a feature's ids.
double DistinctIds(uint32_t ids, IdLaw law, size_t draws);

struct BenchRequestOptions {
  size_t candidates = 1;
  bool flat = false;  // the context's features as columns of the candidates, repeated
  IdLaw law = IdLaw::kZipf;
};

// The same seed gives the same values, flat or not, and the first candidates of a longer request.
class BenchRequest {
 public:
  BenchRequest(const BenchModel& model, const BenchRequestOptions& options, uint64_t seed);
  BenchRequest(const BenchRequest&) = delete;
  BenchRequest& operator=(const BenchRequest&) = delete;

  RequestView view() const { return {options_.candidates, context_, candidates_}; }
  const EncodedBatch& expected() const { return expected_; }
  const BenchRequestOptions& options() const { return options_; }
  uint64_t seed() const { return seed_; }

 private:
  struct Values {
    std::vector<int64_t> ids;
    std::vector<float> numbers;
  };

  BenchRequestOptions options_;
  uint64_t seed_;
  std::vector<Values> values_;  // per feature
  std::vector<ColumnView> context_, candidates_;
  EncodedBatch expected_;
};

// `count` requests with different seeds; another `stream` gives others.
std::vector<std::shared_ptr<const BenchRequest>> MakeRequests(const BenchModel& model,
                                                              const BenchRequestOptions& options, size_t count,
                                                              uint64_t stream);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_BENCH_REQUEST_H_
