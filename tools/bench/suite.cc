#include "tools/bench/suite.h"

namespace hilomoe::bench {

void AddWarmAndFlushed(const Case& c, std::vector<Case>* cases) {
  cases->push_back(c);
  cases->push_back(c);
  cases->back().cache = Cache::kFlushed;
  for (std::string& name : cases->back().compared_with) name += "/flushed";
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
