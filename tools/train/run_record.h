// A training run read back from its metrics.jsonl (run_log.h says what stands in it).
#ifndef HILOMOE_TOOLS_TRAIN_RUN_RECORD_H_
#define HILOMOE_TOOLS_TRAIN_RUN_RECORD_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace hilomoe {

// The events by kind, each in the order of the file. Kinds that are not known are left out.
struct RunRecord {
  using Json = nlohmann::ordered_json;
  Json run;
  std::vector<Json> progress, evaluations, stage_ends, finals;
  Json end;  // null: training is under way, or was broken off
  int resumes = 0;

  // The last evaluation of a split; null when there is none.
  const Json* Final(const std::string& split) const;
};

// A last line without its end is one that is being written, and left out. DATA_LOSS names the line that is no JSON
// object; NOT_FOUND when there is no such file.
absl::StatusOr<RunRecord> ReadRunRecord(const std::string& path);

// The name of a block of a UTILISATION, in which format 1 had numbers.
std::string BlockName(const nlohmann::ordered_json& block);

// A number under `key`; nullopt where there is none, or null.
std::optional<double> NumberIn(const nlohmann::ordered_json& json, const char* key);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_RUN_RECORD_H_
