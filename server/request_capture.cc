#include "server/request_capture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "hilomoe/v1/capture.pb.h"
#include "model/checksum.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "server/log.h"

namespace hilomoe {
namespace {

constexpr char kMagic[] = "HILOCAP\n";
constexpr uint32_t kFormatVersion = 1;
// What a queued request takes beside its bytes, roughly.
constexpr size_t kItemBytes = 256;
// Deadlines that are further away are none: gRPC gives one to calls without.
constexpr std::chrono::nanoseconds kNoDeadline = std::chrono::hours(24 * 365);

void AppendLittleEndian(uint32_t value, std::string* bytes) {
  for (int i = 0; i < 4; ++i) bytes->push_back(static_cast<char>(value >> (8 * i)));
}

void AppendRecord(const v1::CaptureRecord& record, std::string* bytes) {
  const std::string message = record.SerializeAsString();
  AppendLittleEndian(static_cast<uint32_t>(message.size()), bytes);
  AppendLittleEndian(static_cast<uint32_t>(ChecksumOf(message.data(), message.size())), bytes);
  bytes->append(message);
}

// Whatever stands under `path` makes way, if it is a file of an earlier capture.
absl::Status MoveAside(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError(errno, "cannot create capture_path", path);
  }
  if (!S_ISREG(found.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat("capture_path '", path, "' exists and is not a regular file"));
  }
  const std::string aside = path + ".1";
  if (std::rename(path.c_str(), aside.c_str()) != 0) return SystemError(errno, "cannot rename", path);
  return absl::OkStatus();
}

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RequestCapture>> RequestCapture::Start(const Options& options) {
  HILOMOE_RETURN_IF_ERROR(MoveAside(options.path));
  const int file = open(options.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) return SystemError(errno, "cannot create capture_path", options.path);
  std::unique_ptr<RequestCapture> capture(new RequestCapture(options, file));

  std::string bytes(kMagic);
  AppendLittleEndian(kFormatVersion, &bytes);
  AppendLittleEndian(0, &bytes);
  v1::CaptureRecord record;
  record.mutable_start()->set_unix_ns(static_cast<uint64_t>(absl::GetCurrentTimeNanos()));
  record.mutable_start()->set_one_in(options.one_in);
  record.mutable_start()->set_server("hilomoe-server " HILOMOE_VERSION);
  AppendRecord(record, &bytes);
  if (!capture->Append(bytes)) return SystemError(errno, "cannot write to capture_path", options.path);
  try {
    capture->writer_ = std::thread([writer = capture.get()] { writer->Work(); });
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError("the system gives no thread to write captured requests");
  }
  return capture;
}

RequestCapture::RequestCapture(const Options& options, int file)
    : options_(options), file_(file), threads_(static_cast<size_t>(options.serving_threads)) {}

RequestCapture::~RequestCapture() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  if (writer_.joinable()) writer_.join();
  close(file_);
}

void RequestCapture::Take(int thread, const char* method, Clock::time_point arrived, std::chrono::nanoseconds time_left,
                          const grpc::ByteBuffer& request) {
  threads_[static_cast<size_t>(thread)].until_next = options_.one_in - 1;
  if (full_.load(std::memory_order_relaxed)) return;
  const size_t bytes = request.Length() + kItemBytes;
  const auto offset = std::max(arrived - start_, Clock::duration(0));
  const auto timeout =
      time_left >= kNoDeadline ? std::chrono::nanoseconds(0) : std::max(time_left, std::chrono::nanoseconds(1));
  // A buffer's copy shares its bytes.
  Item item = {method, static_cast<uint64_t>(std::chrono::nanoseconds(offset).count()),
               static_cast<uint64_t>(timeout.count()), request};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queued_bytes_ + bytes > kMaxQueuedBytes) {
      dropped_.fetch_add(1);
      return;
    }
    queued_bytes_ += bytes;
    queue_.push_back(std::move(item));
  }
  changed_.notify_one();
}

void RequestCapture::Work() {
  std::vector<Item> items;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    items.swap(queue_);
    lock.unlock();
    Write(items);
    size_t bytes = 0;
    for (const Item& item : items) bytes += item.request.Length() + kItemBytes;
    items.clear();
    lock.lock();
    queued_bytes_ -= bytes;  // only now, so that what is being written counts
  }
}

void RequestCapture::Write(const std::vector<Item>& items) {
  v1::CaptureRecord record;
  std::string bytes;
  for (const Item& item : items) {
    if (full_.load()) return;
    v1::CapturedRequest& request = *record.mutable_request();
    request.set_offset_ns(item.offset_ns);
    request.set_method(item.method);
    request.set_timeout_ns(item.timeout_ns);
    request.set_request(Bytes(item.request));
    bytes.clear();
    AppendRecord(record, &bytes);
    if (bytes_.load() + bytes.size() > options_.max_bytes) {
      full_ = true;
      LogInfo("capture is complete", {{"path", options_.path}, {"requests", captured()}, {"bytes", this->bytes()}});
      return;
    }
    const bool written = Append(bytes);
    if (!written && !failing_) {
      LogWarning("cannot write captured requests", {{"path", options_.path}, {"error", std::strerror(errno)}});
    }
    failing_ = !written;
    (written ? captured_ : dropped_).fetch_add(1);
  }
}

// All of it or nothing; errno says why not.
bool RequestCapture::Append(const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(file_, bytes.data() + done, bytes.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      const int error = errno;
      const auto whole = static_cast<off_t>(bytes_.load());
      if (done > 0 && (ftruncate(file_, whole) != 0 || lseek(file_, whole, SEEK_SET) < 0)) full_ = true;
      errno = error;
      return false;
    }
  }
  bytes_.fetch_add(bytes.size());
  return true;
}

}  // namespace hilomoe
