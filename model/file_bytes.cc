#include "model/file_bytes.h"

#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// In pieces: other threads of the process that map or unmap something, as allocators do, wait for each of them.
void Unmap(std::byte* data, size_t bytes) {
  constexpr size_t kPiece = 16 * kHugePage;
  for (size_t done = 0; done < bytes; done += kPiece) ::munmap(data + done, std::min(kPiece, bytes - done));
}

}  // namespace

absl::StatusOr<AnonymousMemory> AnonymousMemory::Allocate(size_t size) {
  AnonymousMemory memory;
  if (size == 0) return memory;
  const size_t mapped = (size + kHugePage - 1) / kHugePage * kHugePage;
  void* data = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes"));
  // Not for a small one: its first byte would cost zeroing all of a huge page.
  if (size >= kHugePage) ::madvise(data, mapped, MADV_HUGEPAGE);
  memory.data_ = static_cast<std::byte*>(data);
  // Only heap and stack have bounds that address sanitizer knows by itself. Nothing without it, as is the other one.
  ASAN_POISON_MEMORY_REGION(memory.data_ + size, mapped - size);
  memory.size_ = size;
  memory.mapped_ = mapped;
  return memory;
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

AnonymousMemory& AnonymousMemory::operator=(AnonymousMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

AnonymousMemory::~AnonymousMemory() {
  if (data_ == nullptr) return;
  ASAN_UNPOISON_MEMORY_REGION(data_, mapped_);
  Unmap(data_, mapped_);
}

FileBytes::Descriptor::~Descriptor() { ::close(number); }

FileBytes::Mapping::~Mapping() {
  guard.reset();
  Unmap(static_cast<std::byte*>(begin), bytes);
}

absl::StatusOr<FileBytes> FileBytes::Open(const std::string& path, FileMemory memory) {
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
    absl::StatusOr<AnonymousMemory> copy = AnonymousMemory::Allocate(bytes.size_);
    if (!copy.ok()) return absl::ResourceExhaustedError(absl::StrCat("'", path, "': ", copy.status().message()));
    bytes.copy_ = *std::move(copy);
    bytes.data_ = bytes.copy_.data();
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
    const ssize_t count = ::pread(descriptor_->number, copy_.data() + begin, end - begin, static_cast<off_t>(begin));
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
