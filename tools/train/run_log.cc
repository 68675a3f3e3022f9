#include "tools/train/run_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "model/file_io.h"
#include "model/status_macros.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {

struct RunLog::Hash {
  Hash() { XXH3_64bits_reset(&state); }
  XXH3_state_t state;
};

RunLog::RunLog() = default;

RunLog::RunLog(std::string path, int fd) : path_(std::move(path)), fd_(fd), hash_(std::make_unique<Hash>()) {}

RunLog::RunLog(RunLog&& other) noexcept { *this = std::move(other); }

RunLog& RunLog::operator=(RunLog&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(bytes_, other.bytes_);
  std::swap(hash_, other.hash_);
  return *this;
}

RunLog::~RunLog() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<RunLog> RunLog::Create(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError(errno, "cannot create", path);
  return RunLog(path, fd);
}

absl::StatusOr<RunLog> RunLog::Resume(const std::string& path, const RunLogMark& mark) {
  absl::StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok() && !absl::IsNotFound(bytes.status())) return bytes.status();
  if (!bytes.ok() || bytes->size() < mark.bytes || XXH3_64bits(bytes->data(), mark.bytes) != mark.xxh3) {
    return Create(path);
  }
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return SystemError(errno, "cannot open", path);
  RunLog log(path, fd);
  if (ftruncate(fd, static_cast<off_t>(mark.bytes)) != 0 || lseek(fd, 0, SEEK_END) < 0) {
    return SystemError(errno, "cannot cut", path);
  }
  log.bytes_ = mark.bytes;
  XXH3_64bits_update(&log.hash_->state, bytes->data(), mark.bytes);
  return log;
}

absl::Status RunLog::Append(const nlohmann::ordered_json& event) {
  const std::string line = event.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError(errno, "cannot write", path_);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  bytes_ += line.size();
  XXH3_64bits_update(&hash_->state, line.data(), line.size());
  return absl::OkStatus();
}

absl::StatusOr<RunLogMark> RunLog::Sync() {
  // A pipe or a device cannot be synced, and need not be.
  if (fdatasync(fd_) != 0 && errno != EINVAL && errno != EROFS) return SystemError(errno, "cannot sync", path_);
  return RunLogMark{bytes_, XXH3_64bits_digest(&hash_->state)};
}

}  // namespace hilomoe
