// Files that are either wholly there or not at all, and whole-file reads.
#ifndef HILOMOE_MODEL_FILE_IO_H_
#define HILOMOE_MODEL_FILE_IO_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hilomoe {

// A file that appears under its name only when it is complete: written beside as `<path>.tmp.<pid>`, synced, renamed.
// The destructor removes what was not committed. Writing to something that exists and is not a regular file
// (/dev/stdout, /dev/full, a pipe) writes to it directly; of a symbolic link, the file that it names is written. Errors
// name the path and the system's reason; after one, every further call fails with it. One thread.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(std::string path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  absl::Status Append(std::string_view bytes);
  absl::Status Commit();

  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  AtomicFile(std::string path, std::string target, std::string written_path, int fd);
  absl::Status Write(std::string_view bytes);

  std::string path_;          // as given
  std::string target_;        // links followed
  std::string written_path_;  // equal to target_ for devices and pipes
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string buffer_;
  absl::Status failure_;  // of the first write that failed; what follows it must not be committed
};

// A directory that appears under its name only when it is complete. Files are created in staging_path(); Commit syncs
// them and swaps the directory into place; one that stood there before is removed afterwards.
class AtomicDirectory {
 public:
  static absl::StatusOr<AtomicDirectory> Create(std::string path);
  AtomicDirectory(AtomicDirectory&& other) noexcept;
  AtomicDirectory& operator=(AtomicDirectory&&) = delete;
  ~AtomicDirectory();

  const std::string& staging_path() const { return staging_path_; }
  absl::Status Commit();

 private:
  AtomicDirectory(std::string path, std::string staging_path);

  std::string path_;
  std::string staging_path_;
};

// Removes what killed processes have left beside `path`: files and directories `<path>.tmp.<pid>`, as the two classes
// above name them, of which no process `<pid>` is alive (any more) on this machine. What cannot be removed stays.
void RemoveLeftovers(const std::string& path);

// The whole of a file.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// AtomicFile with one Append.
absl::Status WriteFile(const std::string& path, std::string_view bytes);

// "cannot open 'x': No such file or directory", with the canonical code of `error_number`.
absl::Status SystemError(int error_number, std::string_view what, std::string_view path);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_FILE_IO_H_
