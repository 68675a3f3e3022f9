#include "tools/common/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr size_t kInputBytes = 256 << 10;

// Bytes as they lie in a file or in memory, with a few at the front looked at before they are read.
class RawInput {
 public:
  explicit RawInput(std::string bytes) : peeked_(std::move(bytes)), total_(static_cast<int64_t>(peeked_.size())) {}
  RawInput(int fd, int64_t total) : fd_(fd), total_(total) {}
  RawInput(RawInput&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        peeked_(std::move(other.peeked_)),
        position_(other.position_),
        total_(other.total_),
        read_(other.read_) {}
  RawInput& operator=(RawInput&&) = delete;
  ~RawInput() {
    if (fd_ >= 0) ::close(fd_);
  }

  // The first `size` bytes, or fewer if there are no more.
  absl::StatusOr<std::string_view> Peek(size_t size) {
    while (fd_ >= 0 && peeked_.size() < size) {
      char bytes[16];
      HILOMOE_ASSIGN_OR_RETURN(const size_t count, ReadFile(bytes, std::min(sizeof(bytes), size - peeked_.size())));
      if (count == 0) break;
      peeked_.append(bytes, count);
    }
    return std::string_view(peeked_).substr(0, size);
  }

  absl::StatusOr<size_t> Read(char* out, size_t size) {
    size_t count = std::min(size, peeked_.size() - position_);
    if (count > 0) {
      std::memcpy(out, peeked_.data() + position_, count);
      position_ += count;
    } else if (fd_ >= 0) {
      HILOMOE_ASSIGN_OR_RETURN(count, ReadFile(out, size));
    }
    read_ += static_cast<int64_t>(count);
    return count;
  }

  int64_t bytes_read() const { return read_; }
  int64_t total_bytes() const { return total_; }

 private:
  absl::StatusOr<size_t> ReadFile(char* out, size_t size) {
    while (true) {
      const ssize_t count = ::read(fd_, out, size);
      if (count >= 0) return static_cast<size_t>(count);
      if (errno != EINTR) return absl::ErrnoToStatus(errno, "cannot read");
    }
  }

  int fd_ = -1;
  std::string peeked_;
  size_t position_ = 0;
  int64_t total_ = 0;
  int64_t read_ = 0;
};

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(RawInput input) : input_(std::move(input)) {}
  absl::StatusOr<size_t> Read(char* out, size_t size) override { return input_.Read(out, size); }
  int64_t bytes_read() const override { return input_.bytes_read(); }
  int64_t total_bytes() const override { return input_.total_bytes(); }

 private:
  RawInput input_;
};

// Compressed input in a buffer of its own.
class CompressedSource : public ByteSource {
 public:
  int64_t bytes_read() const override { return input_.bytes_read(); }
  int64_t total_bytes() const override { return input_.total_bytes(); }

 protected:
  explicit CompressedSource(RawInput input) : input_(std::move(input)), buffer_(kInputBytes) {}

  // False at the end of the file.
  absl::StatusOr<bool> Refill() {
    HILOMOE_ASSIGN_OR_RETURN(available_, input_.Read(buffer_.data(), buffer_.size()));
    next_ = buffer_.data();
    return available_ > 0;
  }

  RawInput input_;
  std::vector<char> buffer_;
  char* next_ = nullptr;
  size_t available_ = 0;
};

class GzipSource : public CompressedSource {
 public:
  static absl::StatusOr<std::unique_ptr<ByteSource>> Create(RawInput input) {
    std::unique_ptr<GzipSource> source(new GzipSource(std::move(input)));
    // 16 asks for the gzip wrapper, with its checksum.
    if (inflateInit2(&source->stream_, 16 + MAX_WBITS) != Z_OK) {
      return absl::ResourceExhaustedError("no memory to decompress gzip");
    }
    source->initialised_ = true;
    return source;
  }
  ~GzipSource() override {
    if (initialised_) inflateEnd(&stream_);
  }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(std::min(size, size_t{1} << 30));
    const uInt wanted = stream_.avail_out;
    while (stream_.avail_out == wanted) {
      if (available_ == 0) {
        HILOMOE_ASSIGN_OR_RETURN(const bool more, Refill());
        if (!more && in_member_) {
          return absl::DataLossError("the gzip stream is truncated; copy or create the file anew");
        }
        if (!more) return 0;
      }
      if (!in_member_) {
        inflateReset(&stream_);
        in_member_ = true;
      }
      stream_.next_in = reinterpret_cast<Bytef*>(next_);
      stream_.avail_in = static_cast<uInt>(available_);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      next_ += available_ - stream_.avail_in;
      available_ = stream_.avail_in;
      if (result == Z_STREAM_END) {
        in_member_ = false;
      } else if (result == Z_MEM_ERROR) {
        return absl::ResourceExhaustedError("no memory to decompress gzip");
      } else if (result != Z_OK) {
        return absl::DataLossError(absl::StrCat("the gzip stream is corrupt (",
                                                stream_.msg != nullptr ? stream_.msg : zError(result),
                                                "); copy or create the file anew"));
      }
    }
    return wanted - stream_.avail_out;
  }

 private:
  explicit GzipSource(RawInput input) : CompressedSource(std::move(input)) {}

  z_stream stream_ = {};
  bool initialised_ = false;
  bool in_member_ = true;
};

class ZstdSource : public CompressedSource {
 public:
  static absl::StatusOr<std::unique_ptr<ByteSource>> Create(RawInput input) {
    std::unique_ptr<ZstdSource> source(new ZstdSource(std::move(input)));
    if (source->stream_ == nullptr) {
      return absl::ResourceExhaustedError("no memory to decompress zstd");
    }
    return source;
  }
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    ZSTD_outBuffer output = {out, size, 0};
    while (output.pos == 0) {
      // A full buffer may have left output inside the decoder: it comes before any new input, and before the end.
      if (available_ == 0 && !pending_output_) {
        HILOMOE_ASSIGN_OR_RETURN(const bool more, Refill());
        if (!more && in_frame_) {
          return absl::DataLossError("the zstd stream is truncated; copy or create the file anew");
        }
        if (!more) return 0;
      }
      ZSTD_inBuffer compressed = {next_, available_, 0};
      const size_t result = ZSTD_decompressStream(stream_, &output, &compressed);
      next_ += compressed.pos;
      available_ -= compressed.pos;
      if (ZSTD_isError(result)) {
        return absl::DataLossError(
            absl::StrCat("the zstd stream is corrupt (", ZSTD_getErrorName(result), "); copy or create the file anew"));
      }
      in_frame_ = result != 0;
      pending_output_ = in_frame_ && output.pos == output.size;
    }
    return output.pos;
  }

 private:
  explicit ZstdSource(RawInput input) : CompressedSource(std::move(input)), stream_(ZSTD_createDStream()) {}

  ZSTD_DStream* stream_;
  bool in_frame_ = true;
  bool pending_output_ = false;
};

absl::StatusOr<std::unique_ptr<ByteSource>> Detect(RawInput input) {
  HILOMOE_ASSIGN_OR_RETURN(const std::string_view magic, input.Peek(4));
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(magic[i]); };
  if (magic.size() >= 2 && byte(0) == 0x1f && byte(1) == 0x8b) {
    return GzipSource::Create(std::move(input));
  }
  if (magic.size() == 4) {
    const bool frame = byte(0) == 0x28 && byte(1) == 0xb5 && byte(2) == 0x2f && byte(3) == 0xfd;
    // Parallel compressors put skippable frames in front.
    const bool skippable = (byte(0) & 0xf0) == 0x50 && byte(1) == 0x2a && byte(2) == 0x4d && byte(3) == 0x18;
    if (frame || skippable) return ZstdSource::Create(std::move(input));
  }
  return std::make_unique<PlainSource>(std::move(input));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> ByteSource::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open");
  struct stat info;
  const bool known = ::fstat(fd, &info) == 0;
  RawInput input(fd, known && S_ISREG(info.st_mode) ? info.st_size : 0);
  if (known && S_ISDIR(info.st_mode)) return absl::ErrnoToStatus(EISDIR, "cannot read");
  return Detect(std::move(input));
}

absl::StatusOr<std::unique_ptr<ByteSource>> ByteSource::OpenBytes(std::string bytes) {
  return Detect(RawInput(std::move(bytes)));
}

}  // namespace hilomoe
