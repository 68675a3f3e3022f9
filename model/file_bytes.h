// Whole files in memory: copied or mapped.
#ifndef HILOMOE_MODEL_FILE_BYTES_H_
#define HILOMOE_MODEL_FILE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/anonymous_memory.h"
#include "model/sigbus_guard.h"

namespace hilomoe {

enum class FileMemory {
  kCopy,  // anonymous memory: nothing that later happens to the file can change or revoke the bytes
  kMap,   // the page cache's own pages: shared by processes, read again from disk after the kernel has dropped them
};

// A file's bytes, 64-byte aligned. In the order Open, Load of all that will be read, FinishLoading; then immutable.
//
// A mapped file may be changed by others while it is read. Bytes then change, pages that a truncated file has lost turn
// into zeros (SigbusGuard), and CheckUnchanged says so from then on: what was computed before a CheckUnchanged that
// succeeds, was computed from the file as it was opened. Time stamps tell changes apart that lie some milliseconds from
// the last change before Open.
class FileBytes {
 public:
  // A copy lies in memory of `spare`, unless that is null, and gives it back in the end if `spare` is still there.
  // Errors as SystemError; INVALID_ARGUMENT for what is not a regular file.
  static absl::StatusOr<FileBytes> Open(const std::string& path, FileMemory memory,
                                        const std::shared_ptr<SpareMemory>& spare = nullptr);
  // Copied and loaded.
  static absl::StatusOr<FileBytes> Read(const std::string& path);

  // Brings [begin, end) into memory. Several threads may load different parts. DATA_LOSS when the file has become
  // shorter; of a mapped file CheckUnchanged tells.
  absl::Status Load(size_t begin, size_t end);
  absl::Status FinishLoading();

  // UNAVAILABLE when the file, being mapped, was truncated or written to since Open. One system call; any thread.
  absl::Status CheckUnchanged() const;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  // The open file, closed at the end.
  struct Descriptor {
    explicit Descriptor(int number) : number(number) {}
    ~Descriptor();
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    const int number;
  };
  // Given back at the end.
  struct Copy {
    Copy(AnonymousMemory memory, std::weak_ptr<SpareMemory> spare)
        : memory(std::move(memory)), spare(std::move(spare)) {}
    ~Copy();
    Copy(const Copy&) = delete;
    Copy& operator=(const Copy&) = delete;
    AnonymousMemory memory;
    const std::weak_ptr<SpareMemory> spare;
  };
  // Unmapped at the end.
  struct Mapping {
    Mapping(void* begin, size_t bytes) : begin(begin), bytes(bytes), guard(std::in_place, begin, bytes) {}
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    void* const begin;
    const size_t bytes;
    std::optional<SigbusGuard> guard;  // goes before the pages do
  };

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  timespec changed_{};  // the file's last change before it was opened
  std::unique_ptr<Descriptor> descriptor_;
  std::unique_ptr<Copy> copy_;  // one of the two
  std::unique_ptr<Mapping> mapping_;
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_FILE_BYTES_H_
