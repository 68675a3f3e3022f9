// All cases, one function a subject.
#ifndef HILOMOE_TOOLS_BENCH_SUITE_H_
#define HILOMOE_TOOLS_BENCH_SUITE_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/kernels/kernels.h"
#include "tools/bench/bench_model.h"
#include "tools/bench/benchmark_case.h"
#include "tools/bench/machine/machine.h"

namespace hilomoe::bench {

struct SuiteOptions {
  int threads = 2;                          // cases of several threads are run with so many; 1: there are none
  uint32_t ids = 200'000;                   // of every feature of the bench model
  size_t memory_bytes = size_t{256} << 20;  // what is read as "memory"
};

// What the cases share. Must outlive them.
struct Suite {
  SuiteOptions options;
  Machine machine;
  BenchModels models;
};

void AddLimitCases(const Suite& suite, std::vector<Case>* cases);
void AddKernelCases(const Suite& suite, std::vector<Case>* cases);
void AddRoutingCases(const Suite& suite, std::vector<Case>* cases);
void AddProductCases(const Suite& suite, std::vector<Case>* cases);
void AddBlockCases(Suite* suite, std::vector<Case>* cases);
void AddEncodeCases(Suite* suite, std::vector<Case>* cases);
void AddGatherCases(Suite* suite, std::vector<Case>* cases);
void AddPredictorCases(Suite* suite, std::vector<Case>* cases);
void AddLayerCases(Suite* suite, std::vector<Case>* cases);
void AddLoadCases(Suite* suite, std::vector<Case>* cases);

std::vector<Case> AllCases(Suite* suite);

struct Words {
  std::shared_ptr<const uint64_t> first;  // keeps them
  size_t bytes;
};
// Reading the very bytes that products read, one after the other, as the limits do: what a cache gives depends on how
// much is read from it, and on where in memory that lies.
Case PlainRead(const std::string& name, size_t bytes, std::function<std::vector<Words>()> make);

// Adds `c` warm and flushed, each compared with cases of its own kind.
void AddWarmAndFlushed(const Case& c, std::vector<Case>* cases);

// The kernel tables that this machine supports, worst first, without those that have `part` (a member, or a function of
// the table) from an earlier one: so each implementation is timed once.
template <class Part>
std::vector<const kernels::Kernels*> SupportedKernels(Part part) {
  int count = 0;
  const kernels::Kernels* const* all = kernels::AllKernels(&count);
  std::vector<const kernels::Kernels*> supported;
  for (int i = 0; i < count; ++i) {
    const auto has_it = [&](const kernels::Kernels* other) {
      return std::invoke(part, *other) == std::invoke(part, *all[i]);
    };
    if (!kernels::Supported(all[i]->instruction_set)) continue;
    if (std::none_of(supported.begin(), supported.end(), has_it)) supported.push_back(all[i]);
  }
  return supported;
}

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_SUITE_H_
