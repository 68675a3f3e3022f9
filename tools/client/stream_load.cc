#include "tools/client/stream_load.h"

#include <chrono>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "grpcpp/alarm.h"
#include "grpcpp/generic/generic_stub.h"

namespace hilomoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kReopenAfter(100);

// What all streams of a run share.
struct Run {
  int64_t NowNs() const { return std::chrono::nanoseconds(Clock::now() - start).count(); }

  LoadOptions options;
  LoadRecorder* recorder = nullptr;
  std::vector<grpc::ByteBuffer> requests;
  grpc::CompletionQueue queue;
  Clock::time_point start;
  std::chrono::system_clock::time_point last_deadline;
  int64_t end_ns = 0;
  size_t sent = 0;
  size_t streams = 0;  // not yet over
};

class Stream {
 public:
  Stream(Run* run, std::shared_ptr<grpc::Channel> channel) : run_(run), stub_(std::move(channel)) {
    ++run_->streams;
    Open();
  }

  enum class Event { kOpened, kWritten, kRead, kFinished, kReopen };
  struct Tag {
    Stream* stream;
    Event event;
  };

  void Handle(Event event, bool ok) {
    switch (event) {
      case Event::kOpened:
        if (!ok) return Finish();
        call_->Read(&answer_, &read_);
        return Advance();
      case Event::kWritten:
        writing_ = false;
        if (!ok) broken_ = true;  // the read says so, too, and ends the stream
        if (finishing_) return TryFinish();
        return Advance();
      case Event::kRead:
        if (!ok || ahead_.empty()) return Finish();
        TakeAnswer();
        call_->Read(&answer_, &read_);
        return Advance();
      case Event::kFinished:
        return HandleEnd();
      case Event::kReopen:
        return Open();
    }
  }

 private:
  void Open() {
    writing_ = closed_ = broken_ = finishing_ = false;
    call_.reset();  // lives in the context's memory
    context_.emplace();
    context_->set_deadline(run_->last_deadline);
    call_ = stub_.PrepareCall(&*context_, MethodPath(WireMethod::kScoreStream), &run_->queue);
    call_->StartCall(&opened_);
  }

  // Sends the next request if there is room, or that there will be none.
  void Advance() {
    if (writing_ || closed_ || broken_ || finishing_) return;
    const int64_t now = run_->NowNs();
    if (now >= run_->end_ns) {
      closed_ = writing_ = true;
      call_->WritesDone(&written_);
    } else if (ahead_.size() < run_->options.concurrency) {
      LoadRecord& record = ahead_.emplace_back();
      record.start_ns = now;
      record.request = static_cast<uint32_t>(run_->sent++ % run_->requests.size());
      writing_ = true;
      call_->Write(run_->requests[record.request], &written_);
    }
  }

  void TakeAnswer() {
    LoadRecord record = ahead_.front();
    ahead_.pop_front();
    record.latency_ns = run_->NowNs() - record.start_ns;
    run_->recorder->Add(record, grpc::Status::OK, false, &answer_);
    answer_.Clear();
  }

  // gRPC wants a write to end before.
  void Finish() {
    finishing_ = true;
    TryFinish();
  }
  void TryFinish() {
    if (!writing_) call_->Finish(&status_, &finished_);
  }

  void HandleEnd() {
    if (status_.ok() && !ahead_.empty())
      status_ = {grpc::DATA_LOSS, "the stream ended before all requests were answered"};
    for (LoadRecord& record : ahead_) {
      record.latency_ns = run_->NowNs() - record.start_ns;
      run_->recorder->Add(record, status_, false, nullptr);
    }
    ahead_.clear();
    if (run_->NowNs() < run_->end_ns) {
      alarm_.Set(&run_->queue, std::chrono::system_clock::now() + kReopenAfter, &reopen_);
    } else {
      --run_->streams;
    }
  }

  Run* const run_;
  grpc::GenericStub stub_;
  std::optional<grpc::ClientContext> context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::Alarm alarm_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  std::deque<LoadRecord> ahead_;  // sent and not answered, the oldest first
  bool writing_ = false, closed_ = false, broken_ = false, finishing_ = false;
  Tag opened_{this, Event::kOpened}, written_{this, Event::kWritten}, read_{this, Event::kRead},
      finished_{this, Event::kFinished}, reopen_{this, Event::kReopen};
};

}  // namespace

LoadRun RunStreams(const std::vector<std::shared_ptr<grpc::Channel>>& channels, std::vector<grpc::ByteBuffer> requests,
                   const LoadOptions& options, LoadRecorder* recorder) {
  Run run;
  run.options = options;
  run.recorder = recorder;
  run.requests = std::move(requests);
  LoadRun result = BeginRun(options);
  run.start = Clock::now();
  run.end_ns = result.end_ns;
  run.last_deadline = std::chrono::system_clock::now() + std::chrono::nanoseconds(result.end_ns) +
                      absl::ToChronoNanoseconds(options.deadline);
  std::deque<Stream> streams;
  for (const auto& channel : channels) streams.emplace_back(&run, channel);
  void* untyped = nullptr;
  bool ok = false;
  while (run.streams > 0 && run.queue.Next(&untyped, &ok)) {
    const auto* const tag = static_cast<const Stream::Tag*>(untyped);
    tag->stream->Handle(tag->event, ok);
  }
  run.queue.Shutdown();
  while (run.queue.Next(&untyped, &ok)) {
  }
  result.most_in_flight = options.concurrency * channels.size();
  EndRun(&result);
  return result;
}

}  // namespace hilomoe
