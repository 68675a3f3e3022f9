#include "tools/client/load_recorder.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hilomoe {

void LoadRecorder::Add(LoadRecord record, const grpc::Status& status, bool pushback, grpc::ByteBuffer* answer) {
  record.pushback = pushback;
  if (!status.ok()) {
    AddFailure(record, status.error_code(), status.error_message());
  } else if (const absl::StatusOr<WireAnswer> read = reader_.Read(answer); !read.ok()) {
    record.verdict = Verdict::kUnreadable;
    if (first_wrong_.empty()) first_wrong_ = std::string(read.status().message());
    records_.push_back(record);
  } else if (read->code != grpc::OK) {
    AddFailure(record, read->code, read->message);
  } else {
    Add(record, *read);
  }
}

void LoadRecorder::AddFailure(LoadRecord record, grpc::StatusCode code, std::string_view message) {
  record.code = static_cast<uint8_t>(code);
  if (first_failure_.empty()) {
    first_failure_ = absl::StrCat(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)), ": ",
                                  absl::string_view(message.data(), message.size()));
  }
  records_.push_back(record);
}

void LoadRecorder::Add(LoadRecord record, const WireAnswer& answer) {
  record.version = answer.version;
  record.predictor_ns =
      static_cast<uint32_t>(std::min<uint64_t>(answer.predictor_ns, std::numeric_limits<uint32_t>::max()));
  record.verdict = Check(record.request, answer);
  records_.push_back(record);
}

Verdict LoadRecorder::Check(uint32_t request, const WireAnswer& answer) {
  const auto wrong = [&](Verdict verdict, const std::string& what) {
    if (first_wrong_.empty()) {
      first_wrong_ = absl::StrCat("version ", answer.version, ", request ", request, " of the set: ", what);
    }
    return verdict;
  };
  const size_t candidates = requests_[request].num_candidates();
  if (answer.scores.size() != candidates) {
    return wrong(Verdict::kWrong, absl::StrCat(answer.scores.size(), " scores of ", candidates, " candidates"));
  }
  if (expected_ == nullptr) return Verdict::kUnchecked;
  const std::vector<float>* const expected = expected_->Find(answer.version, request);
  if (expected == nullptr) return wrong(Verdict::kUnknownVersion, "no model file of this version was given");
  // Bit for bit.
  if (candidates == 0 || std::memcmp(expected->data(), answer.scores.data(), candidates * sizeof(float)) == 0) {
    return Verdict::kRight;
  }
  size_t i = 0;
  while (std::memcmp(&(*expected)[i], &answer.scores[i], sizeof(float)) == 0) ++i;
  return wrong(Verdict::kWrong,
               absl::StrCat("candidate ", i, " has score ", answer.scores[i], " instead of ", (*expected)[i]));
}

}  // namespace hilomoe
