// Compresses a stream of bytes, the counterpart of ByteSource. Where the result goes is the caller's matter.
//
// Threads: one at a time. Errors: RESOURCE_EXHAUSTED for want of memory, INTERNAL for what the compressor itself
// reports.
#ifndef HILOMOE_TOOLS_COMMON_BYTE_SINK_H_
#define HILOMOE_TOOLS_COMMON_BYTE_SINK_H_

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hilomoe {

enum class Compression { kNone, kGzip, kZstd };

// "none", "gzip" or "zstd"; nullopt for anything else.
std::optional<Compression> ParseCompression(std::string_view name);
// "", ".gz" or ".zst", to follow a file's name.
std::string_view FileSuffix(Compression compression);

class ByteSink {
 public:
  // Takes compressed bytes; its errors come back from Append and Finish.
  using Output = std::function<absl::Status(std::string_view)>;

  // Equal input gives equal output: no time stamp, no file name, one thread.
  static absl::StatusOr<std::unique_ptr<ByteSink>> Create(Compression compression, Output output);
  virtual ~ByteSink() = default;

  virtual absl::Status Append(std::string_view bytes) = 0;
  // Writes what is left and ends the stream. Once, last.
  virtual absl::Status Finish() = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_BYTE_SINK_H_
