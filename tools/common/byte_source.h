// A file's bytes, decompressed on the way where its first bytes say gzip (RFC 1952; any number of members) or zstd (RFC
// 8878; any number of frames).
//
// Threads: one at a time. Errors: the file's own with errno's code; DATA_LOSS for a compressed stream that is truncated
// or corrupt. Messages do not name the file: the caller knows more about the place.
#ifndef HILOMOE_TOOLS_COMMON_BYTE_SOURCE_H_
#define HILOMOE_TOOLS_COMMON_BYTE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace hilomoe {

class ByteSource {
 public:
  // NOT_FOUND, PERMISSION_DENIED and the like if the file cannot be read.
  static absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& path);
  static absl::StatusOr<std::unique_ptr<ByteSource>> OpenBytes(std::string bytes);
  virtual ~ByteSource() = default;

  // Writes 1 to `size` bytes to `out` and says how many; 0 at the end. size > 0.
  virtual absl::StatusOr<size_t> Read(char* out, size_t size) = 0;

  virtual int64_t bytes_read() const = 0;   // of the file, as it lies there
  virtual int64_t total_bytes() const = 0;  // 0 where unknown
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_BYTE_SOURCE_H_
