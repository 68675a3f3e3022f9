#include "tools/bench/suite.h"

namespace hilomoe::bench {

void AddWarmAndFlushed(const Case& c, std::vector<Case>* cases) {
  cases->push_back(c);
  cases->push_back(c);
  cases->back().cache = Cache::kFlushed;
  for (std::string& name : cases->back().compared_with) name += "/flushed";
}

std::vector<const kernels::Kernels*> SupportedKernels() {
  int count = 0;
  const kernels::Kernels* const* all = kernels::AllKernels(&count);
  std::vector<const kernels::Kernels*> supported;
  for (int i = 0; i < count; ++i) {
    if (kernels::Supported(all[i]->instruction_set)) supported.push_back(all[i]);
  }
  return supported;
}

std::vector<Case> AllCases(Suite* suite) {
  std::vector<Case> cases;
  AddLimitCases(*suite, &cases);
  AddKernelCases(*suite, &cases);
  AddRoutingCases(*suite, &cases);
  AddProductCases(*suite, &cases);
  AddBlockCases(suite, &cases);
  AddEncodeCases(suite, &cases);
  AddGatherCases(suite, &cases);
  AddPredictorCases(suite, &cases);
  AddLayerCases(suite, &cases);
  AddLoadCases(suite, &cases);
  return cases;
}

}  // namespace hilomoe::bench
