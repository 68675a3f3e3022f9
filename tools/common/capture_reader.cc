#include "tools/common/capture_reader.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/checksum.h"
#include "model/file_io.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr char kMagic[] = {'H', 'I', 'L', 'O', 'C', 'A', 'P', '\n'};
constexpr uint32_t kFormatVersion = 1;
constexpr size_t kFileHeaderBytes = 16, kRecordHeaderBytes = 8;

uint32_t LittleEndian(const char* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

absl::Status CaptureReader::Damage(const char* what) const {
  return absl::DataLossError(absl::StrCat("'", path_, "': at byte ", offset_, ": ", what));
}

absl::StatusOr<CaptureReader> CaptureReader::Open(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const int error = errno;
  if (!file) return SystemError(error, "cannot open", path);
  CaptureReader reader(path, std::move(file));
  const std::streamoff size = reader.file_.tellg();
  if (size < 0) return absl::InvalidArgumentError(absl::StrCat("'", path, "' is not a regular file"));
  reader.size_ = static_cast<uint64_t>(size);
  reader.file_.seekg(0);

  char header[kFileHeaderBytes];
  if (!reader.file_.read(header, sizeof(header)) || std::memcmp(header, kMagic, sizeof(kMagic)) != 0) {
    return reader.Damage("not a file of captured requests");
  }
  if (const uint32_t version = LittleEndian(header + sizeof(kMagic)); version != kFormatVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "' has format version ", version, "; this program reads version ", kFormatVersion));
  }
  reader.offset_ = kFileHeaderBytes;
  HILOMOE_ASSIGN_OR_RETURN(const bool found, reader.NextRecord());
  if (!found || !reader.record_.has_start()) return reader.Damage("the record of the capture's start is missing");
  reader.start_ = std::move(*reader.record_.mutable_start());
  return reader;
}

absl::StatusOr<bool> CaptureReader::Next(v1::CapturedRequest* request) {
  HILOMOE_ASSIGN_OR_RETURN(const bool found, NextRecord());
  if (!found) return false;
  if (!record_.has_request()) return Damage("not a captured request");
  request->Swap(record_.mutable_request());
  return true;
}

absl::StatusOr<bool> CaptureReader::NextRecord() {
  const uint64_t left = size_ - offset_;
  truncated_ = left > 0 && left < kRecordHeaderBytes;
  if (left < kRecordHeaderBytes) return false;
  char header[kRecordHeaderBytes];
  if (!file_.read(header, sizeof(header))) return Damage("cannot be read");
  const uint32_t bytes = LittleEndian(header);
  if (bytes > left - kRecordHeaderBytes) {
    truncated_ = true;
    return false;
  }
  bytes_.resize(bytes);
  if (!file_.read(bytes_.data(), bytes)) return Damage("cannot be read");
  if (bytes == 0 || static_cast<uint32_t>(ChecksumOf(bytes_.data(), bytes_.size())) != LittleEndian(header + 4) ||
      !record_.ParseFromString(bytes_)) {
    return Damage("the record is damaged: its checksum is wrong");
  }
  offset_ += kRecordHeaderBytes + bytes;
  return true;
}

}  // namespace hilomoe
