#include "model/file_io.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/file_bytes.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

// Written whole, in a huge page's size and place: many file systems keep in the page cache what they were given in one
// piece in pages of that size, and such a file is mapped at once.
constexpr size_t kBufferBytes = 2 << 20;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

absl::Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return SystemError(errno, "cannot write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncPath(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return SystemError(errno, "cannot open", path);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0) return SystemError(error, "cannot sync", path);
  return absl::OkStatus();
}

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

absl::Status SystemError(int error_number, std::string_view what, std::string_view path) {
  return absl::ErrnoToStatus(error_number, absl::StrCat(View(what), " '", View(path), "'"));
}

AtomicFile::AtomicFile(std::string path, std::string target, std::string written_path, int fd)
    : path_(std::move(path)), target_(std::move(target)), written_path_(std::move(written_path)), fd_(fd) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      written_path_(std::move(other.written_path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      buffer_(std::move(other.buffer_)),
      failure_(std::move(other.failure_)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (written_path_ != target_) ::unlink(written_path_.c_str());
}

absl::StatusOr<AtomicFile> AtomicFile::Create(std::string path) {
  // The file that a link names is to be replaced, not the link.
  std::string target = path;
  std::error_code ignored;
  if (std::filesystem::is_symlink(path, ignored)) {
    const std::filesystem::path named = std::filesystem::canonical(path, ignored);
    if (!named.empty()) target = named.string();
  }
  struct stat info {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) return SystemError(EISDIR, "cannot write", path);
  // An open file's name (/dev/stdout) may lead to a regular file; what was written to it before is to stay.
  const std::string parent = ParentOf(path);
  const bool special = parent == "/dev" || parent == "/dev/fd" || (exists && !S_ISREG(info.st_mode));
  if (special) target = path;
  std::string written_path = special ? target : absl::StrCat(target, ".tmp.", ::getpid());
  const int flags = special ? O_WRONLY | O_APPEND : O_WRONLY | O_CREAT | O_TRUNC;
  const int fd = ::open(written_path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError(errno, "cannot create", path);
  return AtomicFile(std::move(path), std::move(target), std::move(written_path), fd);
}

absl::Status AtomicFile::Write(std::string_view bytes) {
  if (failure_.ok()) failure_ = WriteAll(fd_, bytes, path_);
  return failure_;
}

absl::Status AtomicFile::Append(std::string_view bytes) {
  size_ += bytes.size();
  while (!bytes.empty()) {
    const size_t taken = std::min(bytes.size(), kBufferBytes - buffer_.size());
    buffer_.append(bytes.substr(0, taken));
    bytes.remove_prefix(taken);
    if (buffer_.size() < kBufferBytes) break;
    HILOMOE_RETURN_IF_ERROR(Write(buffer_));
    buffer_.clear();
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  HILOMOE_RETURN_IF_ERROR(Write(buffer_));
  buffer_.clear();
  const bool special = written_path_ == target_;
  if (!special && ::fsync(fd_) != 0) return SystemError(errno, "cannot sync", path_);
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) != 0) {
    const int error = errno;
    if (!special) ::unlink(written_path_.c_str());
    return SystemError(error, "cannot close", path_);
  }
  if (special) return absl::OkStatus();
  if (::rename(written_path_.c_str(), target_.c_str()) != 0) {
    const int error = errno;
    ::unlink(written_path_.c_str());
    return SystemError(error, "cannot rename to", path_);
  }
  return SyncPath(ParentOf(target_), O_RDONLY | O_DIRECTORY);
}

AtomicDirectory::AtomicDirectory(std::string path, std::string staging_path)
    : path_(std::move(path)), staging_path_(std::move(staging_path)) {}

AtomicDirectory::AtomicDirectory(AtomicDirectory&& other) noexcept
    : path_(std::move(other.path_)), staging_path_(std::exchange(other.staging_path_, "")) {}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!staging_path_.empty()) std::filesystem::remove_all(staging_path_, ignored);
}

absl::StatusOr<AtomicDirectory> AtomicDirectory::Create(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::string staging_path = absl::StrCat(path, ".tmp.", ::getpid());
  std::error_code error;
  std::filesystem::remove_all(staging_path, error);
  if (!error) std::filesystem::create_directories(staging_path, error);
  if (error) return SystemError(error.value(), "cannot create directory", staging_path);
  return AtomicDirectory(std::move(path), std::move(staging_path));
}

absl::Status AtomicDirectory::Commit() {
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(staging_path_, error), end; !error && entry != end;
       entry.increment(error)) {
    HILOMOE_RETURN_IF_ERROR(SyncPath(entry->path().string(), O_RDONLY));
  }
  if (error) return SystemError(error.value(), "cannot list", staging_path_);
  HILOMOE_RETURN_IF_ERROR(SyncPath(staging_path_, O_RDONLY | O_DIRECTORY));
  if (::rename(staging_path_.c_str(), path_.c_str()) != 0) {
    // Only an empty directory can be replaced; exchange the two names, so that neither moment lacks a complete one.
    if (errno != ENOTEMPTY && errno != EEXIST) return SystemError(errno, "cannot rename to", path_);
    if (::renameat2(AT_FDCWD, staging_path_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
      return SystemError(errno, "cannot replace", path_);
    }
    std::error_code ignored;
    std::filesystem::remove_all(staging_path_, ignored);
  }
  staging_path_.clear();
  return SyncPath(ParentOf(path_), O_RDONLY | O_DIRECTORY);
}

void RemoveLeftovers(const std::string& path) {
  const std::string prefix = std::filesystem::path(path).filename().string() + ".tmp.";
  std::error_code error;
  std::vector<std::filesystem::path> dead;
  for (std::filesystem::directory_iterator entry(ParentOf(path), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!absl::StartsWith(name, prefix)) continue;
    const std::string digits = name.substr(prefix.size());
    pid_t pid = 0;
    const bool is_pid = digits.find_first_not_of("0123456789") == std::string::npos && absl::SimpleAtoi(digits, &pid);
    if (is_pid && pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH) dead.push_back(entry->path());
  }
  for (const std::filesystem::path& leftover : dead) std::filesystem::remove_all(leftover, error);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  HILOMOE_ASSIGN_OR_RETURN(const FileBytes bytes, FileBytes::Read(path));
  if (bytes.size() == 0) return std::string();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::Status WriteFile(const std::string& path, std::string_view bytes) {
  HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  HILOMOE_RETURN_IF_ERROR(file.Append(bytes));
  return file.Commit();
}

}  // namespace hilomoe
