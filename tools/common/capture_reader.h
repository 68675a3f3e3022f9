// Reads captured requests; the layout stands in proto/hilomoe/v1/capture.proto.
#ifndef HILOMOE_TOOLS_COMMON_CAPTURE_READER_H_
#define HILOMOE_TOOLS_COMMON_CAPTURE_READER_H_

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "hilomoe/v1/capture.pb.h"

namespace hilomoe {

// One pass over a capture file, a record at a time. One thread.
class CaptureReader {
 public:
  // NOT_FOUND and the like with the path when it cannot be opened; DATA_LOSS when it is no capture file or its first
  // record is damaged, FAILED_PRECONDITION for a format version that this program does not know.
  static absl::StatusOr<CaptureReader> Open(const std::string& path);
  CaptureReader(CaptureReader&&) = default;

  const v1::CaptureStart& start() const { return start_; }

  // Fills `request`. False at the end: of the file, or of what is whole when its last record was cut off (truncated()).
  // DATA_LOSS with the place for a damaged record; what came before it is good.
  absl::StatusOr<bool> Next(v1::CapturedRequest* request);

  // Whether the end that Next has come to is a record that was cut off.
  bool truncated() const { return truncated_; }

 private:
  CaptureReader(std::string path, std::ifstream file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::StatusOr<bool> NextRecord();
  absl::Status Damage(const char* what) const;

  std::string path_;
  std::ifstream file_;
  uint64_t offset_ = 0;  // of the record in work
  uint64_t size_ = 0;    // of the file, when it was opened
  bool truncated_ = false;
  std::string bytes_;
  v1::CaptureRecord record_;
  v1::CaptureStart start_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_CAPTURE_READER_H_
