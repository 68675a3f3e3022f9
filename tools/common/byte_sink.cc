#include "tools/common/byte_sink.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr size_t kOutputBytes = 256 << 10;
// Logs are written once and read a few times: the fast levels, a few percent larger than the default ones.
constexpr int kGzipLevel = 4;
constexpr int kZstdLevel = 3;

class PlainSink : public ByteSink {
 public:
  explicit PlainSink(Output output) : output_(std::move(output)) {}
  absl::Status Append(std::string_view bytes) override { return output_(bytes); }
  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  Output output_;
};

class GzipSink : public ByteSink {
 public:
  static absl::StatusOr<std::unique_ptr<ByteSink>> Create(Output output) {
    std::unique_ptr<GzipSink> sink(new GzipSink(std::move(output)));
    // 16 asks for the gzip wrapper; 8 is zlib's default memory level.
    if (deflateInit2(&sink->stream_, kGzipLevel, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
      return absl::ResourceExhaustedError("no memory to compress with gzip");
    }
    sink->initialised_ = true;
    return sink;
  }
  ~GzipSink() override {
    if (initialised_) deflateEnd(&stream_);
  }

  absl::Status Append(std::string_view bytes) override {
    constexpr size_t kMost = size_t{1} << 30;  // zlib counts in 32 bits
    while (!bytes.empty()) {
      HILOMOE_RETURN_IF_ERROR(Deflate(bytes.substr(0, kMost), Z_NO_FLUSH));
      bytes.remove_prefix(std::min(bytes.size(), kMost));
    }
    return absl::OkStatus();
  }
  absl::Status Finish() override { return Deflate({}, Z_FINISH); }

 private:
  explicit GzipSink(Output output) : output_(std::move(output)), buffer_(kOutputBytes) {}

  absl::Status Deflate(std::string_view bytes, int flush) {
    // zlib's interface is not const-correct; it only reads.
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      if (deflate(&stream_, flush) == Z_STREAM_ERROR) {
        return absl::InternalError("gzip compression failed");
      }
      HILOMOE_RETURN_IF_ERROR(output_({buffer_.data(), buffer_.size() - stream_.avail_out}));
    } while (stream_.avail_out == 0);
    return absl::OkStatus();
  }

  Output output_;
  std::vector<char> buffer_;
  z_stream stream_ = {};
  bool initialised_ = false;
};

class ZstdSink : public ByteSink {
 public:
  static absl::StatusOr<std::unique_ptr<ByteSink>> Create(Output output) {
    std::unique_ptr<ZstdSink> sink(new ZstdSink(std::move(output)));
    if (sink->stream_ == nullptr) {
      return absl::ResourceExhaustedError("no memory to compress with zstd");
    }
    ZSTD_CCtx_setParameter(sink->stream_, ZSTD_c_compressionLevel, kZstdLevel);
    ZSTD_CCtx_setParameter(sink->stream_, ZSTD_c_checksumFlag, 1);
    return sink;
  }
  ~ZstdSink() override { ZSTD_freeCCtx(stream_); }

  absl::Status Append(std::string_view bytes) override { return Compress(bytes, ZSTD_e_continue); }
  absl::Status Finish() override { return Compress({}, ZSTD_e_end); }

 private:
  explicit ZstdSink(Output output) : output_(std::move(output)), buffer_(kOutputBytes), stream_(ZSTD_createCCtx()) {}

  absl::Status Compress(std::string_view bytes, ZSTD_EndDirective directive) {
    ZSTD_inBuffer input = {bytes.data(), bytes.size(), 0};
    while (true) {
      ZSTD_outBuffer compressed = {buffer_.data(), buffer_.size(), 0};
      const size_t left = ZSTD_compressStream2(stream_, &compressed, &input, directive);
      if (ZSTD_isError(left)) {
        return absl::InternalError(absl::StrCat("zstd compression failed: ", ZSTD_getErrorName(left)));
      }
      HILOMOE_RETURN_IF_ERROR(output_({buffer_.data(), compressed.pos}));
      const bool finished = directive == ZSTD_e_end ? left == 0 : input.pos == input.size;
      if (finished) return absl::OkStatus();
    }
  }

  Output output_;
  std::vector<char> buffer_;
  ZSTD_CCtx* stream_;
};

}  // namespace

std::optional<Compression> ParseCompression(std::string_view name) {
  if (name == "none") return Compression::kNone;
  if (name == "gzip") return Compression::kGzip;
  if (name == "zstd") return Compression::kZstd;
  return std::nullopt;
}

std::string_view FileSuffix(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return "";
    case Compression::kGzip:
      return ".gz";
    case Compression::kZstd:
      return ".zst";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<ByteSink>> ByteSink::Create(Compression compression, Output output) {
  switch (compression) {
    case Compression::kGzip:
      return GzipSink::Create(std::move(output));
    case Compression::kZstd:
      return ZstdSink::Create(std::move(output));
    case Compression::kNone:
      break;
  }
  return std::make_unique<PlainSink>(std::move(output));
}

}  // namespace hilomoe
