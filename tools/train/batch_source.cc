#include "tools/train/batch_source.h"

#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "model/status_macros.h"
#include "tools/train/random.h"

namespace hilomoe {
namespace {

struct BatchPlace {
  uint64_t stage = 0, epoch = 0, batch = 0;
  bool operator==(const BatchPlace&) const = default;
};

struct WindowPlace {
  uint64_t stage = 0, epoch = 0;
  size_t index = 0;
  bool operator==(const WindowPlace&) const = default;
};

// The most bytes of a window.
size_t WindowBytes(const RowCache& cache, size_t buffer_bytes) {
  if (cache.bytes() <= buffer_bytes) return cache.bytes();
  size_t bytes = buffer_bytes / 2;
  for (size_t i = 0; i < cache.blocks(); ++i) bytes = std::max(bytes, cache.block_bytes(i));
  return bytes;
}

// The blocks of every window of an epoch. Within a window they ascend, for the disk's sake and so that the order of a
// log in one window does not depend on its blocks.
std::vector<std::vector<uint32_t>> DealWindows(const RowCache& cache, const BatchSource::Options& options,
                                               uint64_t stage, uint64_t epoch) {
  std::vector<uint32_t> order(cache.blocks());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  Shuffle(Random(options.seed, 0xB10C, stage, epoch), &order);
  const size_t most = WindowBytes(cache, options.buffer_bytes);
  std::vector<std::vector<uint32_t>> windows;
  size_t bytes = 0;
  for (const uint32_t block : order) {
    bytes += cache.block_bytes(block);
    if (windows.empty() || bytes > most) {
      windows.emplace_back();
      bytes = cache.block_bytes(block);
    }
    windows.back().push_back(block);
  }
  for (std::vector<uint32_t>& window : windows) std::sort(window.begin(), window.end());
  return windows;
}

// Blocks in memory and the order of their rows.
class Window {
 public:
  Window(const RowCache& cache, const BatchSource::Options& options)
      : cache_(cache), options_(options), memory_bytes_(WindowBytes(cache, options.buffer_bytes)) {}

  // From now on it is that window; its order is known, its blocks are to be read, unless they are already there.
  void Begin(const WindowPlace& place, std::vector<uint32_t> blocks) {
    place_ = place;
    if (blocks != ids_) {
      ids_ = std::move(blocks);
      blocks_.clear();
      read_bytes_ = 0;
    }
    total_bytes_ = 0;
    places_.clear();
    for (size_t b = 0; b < ids_.size(); ++b) {
      total_bytes_ += cache_.block_bytes(ids_[b]);
      const size_t rows = cache_.block_rows(ids_[b]);
      for (size_t r = 0; r < rows; ++r) places_.push_back(static_cast<RowPlace>(b << kRowPlaceBits | r));
    }
    Shuffle(Random(options_.seed, 0x0BDE + (uint64_t{place.index} << 32), place.stage, place.epoch), &places_);
  }

  // Reads on until that share of the bytes is there.
  absl::Status Read(double share) {
    if (memory_ == nullptr) memory_ = std::make_unique_for_overwrite<std::byte[]>(memory_bytes_);
    const double wanted = share * static_cast<double>(total_bytes_);
    while (blocks_.size() < ids_.size() && static_cast<double>(read_bytes_) < wanted) {
      HILOMOE_ASSIGN_OR_RETURN(RowBlock block, cache_.Read(ids_[blocks_.size()], memory_.get() + read_bytes_));
      read_bytes_ += cache_.block_bytes(ids_[blocks_.size()]);
      blocks_.push_back(std::move(block));
    }
    return absl::OkStatus();
  }

  const std::optional<WindowPlace>& place() const { return place_; }
  const std::vector<RowBlock>& blocks() const { return blocks_; }
  const std::vector<RowPlace>& places() const { return places_; }

 private:
  const RowCache& cache_;
  const BatchSource::Options& options_;
  const size_t memory_bytes_;
  std::optional<WindowPlace> place_;
  std::vector<uint32_t> ids_;  // of the blocks
  std::vector<RowBlock> blocks_;
  std::vector<RowPlace> places_;
  std::unique_ptr<std::byte[]> memory_;
  size_t read_bytes_ = 0, total_bytes_ = 0;
};

// Gives out one batch after another.
class BatchCursor {
 public:
  BatchCursor(const RowCache& cache, const BatchSource::Options& options)
      : cache_(cache),
        options_(options),
        current_(std::make_unique<Window>(cache_, options_)),
        next_(std::make_unique<Window>(cache_, options_)) {}

  uint64_t batches() const {
    const size_t n = cache_.rows(), size = options_.batch_rows;
    return n % size == 1 ? std::max<size_t>(n / size, 1) : (n + size - 1) / size;
  }
  BatchPlace After(const BatchPlace& place) const {
    return place.batch + 1 < batches() ? BatchPlace{place.stage, place.epoch, place.batch + 1}
                                       : BatchPlace{place.stage, place.epoch + 1, 0};
  }

  absl::Status Take(const BatchPlace& place, LabelledRows* out) {
    if (place != at_) HILOMOE_RETURN_IF_ERROR(Seek(place));
    at_.reset();  // until this batch is whole
    out->Clear();
    const size_t begin = place.batch * options_.batch_rows;
    const size_t wanted = std::min(options_.batch_rows, cache_.rows() - begin);
    while (out->size() < wanted) {
      // A row that was left over at the end of an epoch is skipped.
      if (row_ == current_->places().size() || current_->place()->epoch != place.epoch) {
        HILOMOE_RETURN_IF_ERROR(Advance());
        continue;
      }
      const size_t taken = std::min(wanted - out->size(), current_->places().size() - row_);
      GatherRows(current_->blocks(), absl::MakeConstSpan(current_->places()).subspan(row_, taken), out);
      row_ += taken;
    }
    at_ = After(place);
    return ReadAhead();
  }

 private:
  absl::Status Seek(const BatchPlace& place) {
    std::vector<std::vector<uint32_t>> windows = DealWindows(cache_, options_, place.stage, place.epoch);
    row_ = place.batch * options_.batch_rows;
    for (size_t i = 0; i < windows.size(); ++i) {
      size_t rows = 0;
      for (const uint32_t block : windows[i]) rows += cache_.block_rows(block);
      if (row_ >= rows) {
        row_ -= rows;
        continue;
      }
      current_->Begin({place.stage, place.epoch, i}, std::move(windows[i]));
      next_begun_ = false;
      return current_->Read(1);
    }
    return absl::OutOfRangeError("no such batch");
  }

  // Makes `window` the one after the current one.
  void BeginNext(Window* window) {
    if (next_begun_) return;
    WindowPlace place = *current_->place();
    std::vector<std::vector<uint32_t>> windows = DealWindows(cache_, options_, place.stage, place.epoch);
    if (++place.index == windows.size()) {
      place = {place.stage, place.epoch + 1, 0};
      windows = DealWindows(cache_, options_, place.stage, place.epoch);
    }
    window->Begin(place, std::move(windows[place.index]));
    next_begun_ = true;
  }

  absl::Status Advance() {
    Window* window = one_window() ? current_.get() : next_.get();
    BeginNext(window);
    HILOMOE_RETURN_IF_ERROR(window->Read(1));
    if (window == next_.get()) std::swap(current_, next_);
    next_begun_ = false;
    row_ = 0;
    return absl::OkStatus();
  }

  // In step with what is taken, so that no batch has to wait for a whole window.
  absl::Status ReadAhead() {
    if (one_window()) return absl::OkStatus();
    BeginNext(next_.get());
    return next_->Read(static_cast<double>(row_) / static_cast<double>(current_->places().size()));
  }

  bool one_window() const { return cache_.bytes() <= options_.buffer_bytes; }

  const RowCache& cache_;
  const BatchSource::Options options_;
  std::unique_ptr<Window> current_, next_;
  bool next_begun_ = false;
  size_t row_ = 0;                // of the current window, to be taken next
  std::optional<BatchPlace> at_;  // the batch that starts there
};

}  // namespace

class BatchSource::Worker {
 public:
  Worker(const RowCache& cache, const Options& options) : cursor_(cache, options) {
    // Signals are the calling thread's business; a new thread inherits what is blocked.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { Run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  uint64_t batches() const { return cursor_.batches(); }

  absl::StatusOr<const LabelledRows*> Get(const BatchPlace& place) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !working_; });
    if (wanted_ != place) {
      Start(place);
      changed_.wait(lock, [&] { return !working_; });
    }
    if (!status_.ok()) {
      wanted_.reset();
      return status_;
    }
    std::swap(given_, ready_);
    Start(cursor_.After(place));
    return &given_;
  }

 private:
  void Start(const BatchPlace& place) {
    wanted_ = place;
    working_ = true;
    changed_.notify_all();
  }

  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stop_ || working_; });
      if (stop_) return;
      const BatchPlace place = *wanted_;
      lock.unlock();
      absl::Status status = cursor_.Take(place, &ready_);
      lock.lock();
      status_ = std::move(status);
      working_ = false;
      changed_.notify_all();
    }
  }

  BatchCursor cursor_;
  LabelledRows given_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool working_ = false;              // the thread owns cursor_ and ready_
  std::optional<BatchPlace> wanted_;  // what ready_ is or will be
  LabelledRows ready_;
  absl::Status status_;
  std::thread thread_;
};

BatchSource::BatchSource(const RowCache& cache, const Options& options)
    : worker_(std::make_unique<Worker>(cache, options)) {}
BatchSource::~BatchSource() = default;

uint64_t BatchSource::batches() const { return worker_->batches(); }

absl::StatusOr<const LabelledRows*> BatchSource::Get(uint64_t stage, uint64_t epoch, uint64_t batch) {
  return worker_->Get({stage, epoch, batch});
}

size_t BatchSourceBytes(const RowCache& cache, const BatchSource::Options& options) {
  const size_t windows = cache.bytes() <= options.buffer_bytes ? 1 : 2;
  const size_t bytes = WindowBytes(cache, options.buffer_bytes);
  const double row_bytes = static_cast<double>(cache.bytes()) / static_cast<double>(cache.rows());
  const double rows = static_cast<double>(bytes) / row_bytes;
  // Vectors that grow take up to twice what they hold.
  const double batch = static_cast<double>(std::min(options.batch_rows, cache.rows())) * row_bytes * 2;
  return windows * (bytes + static_cast<size_t>(rows * sizeof(RowPlace))) + 2 * static_cast<size_t>(batch);
}

}  // namespace hilomoe
