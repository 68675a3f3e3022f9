#include "tools/train/run_record.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"

namespace hilomoe {

const RunRecord::Json* RunRecord::Final(const std::string& split) const {
  for (const Json& final : finals) {
    if (final.at("split") == split) return &final;
  }
  return nullptr;
}

absl::StatusOr<RunRecord> ReadRunRecord(const std::string& path) {
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  RunRecord record;
  int line = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++line;
    try {
      RunRecord::Json event = RunRecord::Json::parse(text.begin() + static_cast<ptrdiff_t>(begin),
                                                     text.begin() + static_cast<ptrdiff_t>(end));
      const std::string kind = event.at("event").get<std::string>();
      if (kind == "run") {
        record.run = std::move(event);
      } else if (kind == "progress") {
        record.progress.push_back(std::move(event));
      } else if (kind == "evaluation") {
        record.evaluations.push_back(std::move(event));
      } else if (kind == "stage_end") {
        record.stage_ends.push_back(std::move(event));
      } else if (kind == "final") {
        record.finals.push_back(std::move(event));
      } else if (kind == "resume") {
        ++record.resumes;
      } else if (kind == "end") {
        record.end = std::move(event);
      }
    } catch (const RunRecord::Json::exception& error) {
      return absl::DataLossError(absl::StrCat(path, ":", line, ": ", error.what()));
    }
  }
  if (record.run.is_null()) return absl::DataLossError(absl::StrCat("'", path, "' has no line about the run itself"));
  return record;
}

std::string BlockName(const nlohmann::ordered_json& block) {
  const nlohmann::ordered_json& name = block.at("block");
  return name.is_string() ? name.get<std::string>() : absl::StrCat("block ", name.get<int>());
}

std::optional<double> NumberIn(const nlohmann::ordered_json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

}  // namespace hilomoe
