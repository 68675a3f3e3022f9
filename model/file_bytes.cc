#include "model/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"

// Linux 5.14.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace hilomoe {
FileBytes::Descriptor::~Descriptor() { ::close(number); }

FileBytes::Mapping::~Mapping() {
  guard.reset();
  Unmap(static_cast<std::byte*>(begin), bytes);
}

FileBytes::Copy::~Copy() {
  if (const std::shared_ptr<SpareMemory> taker = spare.lock()) taker->Give(std::move(memory));
}

absl::StatusOr<FileBytes> FileBytes::Open(const std::string& path, FileMemory memory,
                                          const std::shared_ptr<SpareMemory>& spare) {
  FileBytes bytes;
  bytes.path_ = path;
  // O_NONBLOCK: a pipe under that name must not hold us up until someone writes to it. Regular files ignore it.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return SystemError(errno, "cannot open", path);
  bytes.descriptor_ = std::make_unique<Descriptor>(fd);
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is not a regular file"));
  }
  bytes.size_ = static_cast<size_t>(info.st_size);
  bytes.changed_ = info.st_mtim;
  if (bytes.size_ == 0) return bytes;
  if (memory == FileMemory::kCopy) {
    absl::StatusOr<AnonymousMemory> copy =
        spare != nullptr ? spare->Take(bytes.size_) : AnonymousMemory::Allocate(bytes.size_);
    if (!copy.ok()) return absl::ResourceExhaustedError(absl::StrCat("'", path, "': ", copy.status().message()));
    bytes.copy_ = std::make_unique<Copy>(*std::move(copy), spare);
    bytes.data_ = bytes.copy_->memory.data();
  } else {
    void* data = ::mmap(nullptr, bytes.size_, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return SystemError(errno, "cannot map", path);
    // A wish: a file that is read from disk now then lies in the page cache in huge pages, where the file system can.
    ::madvise(data, bytes.size_, MADV_HUGEPAGE);
    bytes.mapping_ = std::make_unique<Mapping>(data, bytes.size_);
    bytes.data_ = static_cast<const std::byte*>(data);
  }
  return bytes;
}

absl::StatusOr<FileBytes> FileBytes::Read(const std::string& path) {
  HILOMOE_ASSIGN_OR_RETURN(FileBytes bytes, Open(path, FileMemory::kCopy));
  HILOMOE_RETURN_IF_ERROR(bytes.Load(0, bytes.size()));
  HILOMOE_RETURN_IF_ERROR(bytes.FinishLoading());
  return bytes;
}

absl::Status FileBytes::Load(size_t begin, size_t end) {
  if (mapping_ != nullptr) {
    static const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    begin = begin / page * page;
    // Saves a fault every few pages. An older kernel refuses, and a page that is gone fails: reading them tells.
    ::madvise(static_cast<std::byte*>(mapping_->begin) + begin, end - begin, MADV_POPULATE_READ);
    return absl::OkStatus();
  }
  while (begin < end) {
    const ssize_t count =
        ::pread(descriptor_->number, copy_->memory.data() + begin, end - begin, static_cast<off_t>(begin));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(errno, "cannot read", path_);
    if (count == 0) return absl::DataLossError(absl::StrCat("'", path_, "' shrank while it was read"));
    begin += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status FileBytes::FinishLoading() {
  if (mapping_ == nullptr) descriptor_.reset();
  return CheckUnchanged();
}

absl::Status FileBytes::CheckUnchanged() const {
  if (mapping_ == nullptr) return absl::OkStatus();
  struct stat info;
  const bool same = !mapping_->guard->poisoned() && ::fstat(descriptor_->number, &info) == 0 &&
                    static_cast<size_t>(info.st_size) == size_ && info.st_mtim.tv_sec == changed_.tv_sec &&
                    info.st_mtim.tv_nsec == changed_.tv_nsec;
  if (same) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("'", path_,
                                             "' was truncated or written to while it was mapped; publish "
                                             "files by renaming, and load this one again"));
}

}  // namespace hilomoe
