#include "tools/client/expected_scores.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/model_file.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"
#include "runtime/predictor.h"

namespace hilomoe {
namespace {

absl::StatusOr<std::vector<std::vector<float>>> Score(const std::string& path,
                                                      absl::Span<const v1::ScoreRequest> requests) {
  HILOMOE_ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(path));
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Predictor> predictor, Predictor::Create(std::move(file)));
  Workspace workspace(*predictor);
  std::vector<std::vector<float>> scores;
  for (const v1::ScoreRequest& request : requests) {
    std::vector<ColumnView> context, candidates;
    AppendColumnViews(request.context(), &context);
    AppendColumnViews(request.candidates(), &candidates);
    std::vector<float>& of = scores.emplace_back(request.num_candidates());
    const absl::Status status =
        predictor->Predict({request.num_candidates(), context, candidates}, &workspace, absl::MakeSpan(of));
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(path, ": request ", scores.size() - 1, " of the set: ", status.message()));
    }
  }
  return scores;
}

}  // namespace

absl::StatusOr<std::vector<ModelVersionFile>> ListModelVersions(const std::string& directory) {
  std::vector<ModelVersionFile> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entries(directory, error), end; !error && entries != end;
       entries.increment(error)) {
    const std::filesystem::path path = entries->path() / "model.hilomoe";
    ModelVersionFile file{0, path.string()};
    std::error_code absent;
    if (absl::SimpleAtoi(entries->path().filename().string(), &file.version) && std::filesystem::exists(path, absent)) {
      files.push_back(std::move(file));
    }
  }
  if (error) return absl::NotFoundError(absl::StrCat("'", directory, "': ", error.message()));
  if (files.empty()) return absl::NotFoundError(absl::StrCat("'", directory, "' has no <version>/model.hilomoe"));
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.version < b.version; });
  return files;
}

absl::StatusOr<ExpectedScores> ExpectedScores::Compute(const std::vector<ModelVersionFile>& files,
                                                       absl::Span<const v1::ScoreRequest> requests) {
  ExpectedScores expected;
  std::map<std::pair<dev_t, ino_t>, std::shared_ptr<const ScoresOfRequests>> by_file;
  for (const ModelVersionFile& file : files) {
    struct stat info;
    if (::stat(file.path.c_str(), &info) != 0) return SystemError(errno, "cannot open", file.path);
    std::shared_ptr<const ScoresOfRequests>& scores = by_file[{info.st_dev, info.st_ino}];
    if (scores == nullptr) {
      HILOMOE_ASSIGN_OR_RETURN(ScoresOfRequests computed, Score(file.path, requests));
      scores = std::make_shared<const ScoresOfRequests>(std::move(computed));
    }
    expected.versions_[file.version] = scores;
  }
  return expected;
}

const std::vector<float>* ExpectedScores::Find(uint64_t version, size_t request) const {
  const auto found = versions_.find(version);
  return found == versions_.end() ? nullptr : &(*found->second)[request];
}

}  // namespace hilomoe
