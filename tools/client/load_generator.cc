#include "tools/client/load_generator.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "grpcpp/generic/generic_stub.h"
#include "tools/client/arrival_schedule.h"

namespace hilomoe {
namespace {

using Clock = std::chrono::steady_clock;

// gRPC's name for "try again after so many milliseconds".
constexpr char kPushback[] = "grpc-retry-pushback-ms";

struct Call {
  std::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  grpc::ByteBuffer answer;
  grpc::Status status;
  LoadRecord record;
};

double CpuSeconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void SleepUntil(Clock::time_point time) {
  const int64_t ns = std::chrono::nanoseconds(time.time_since_epoch()).count();
  const timespec until = {ns / 1'000'000'000, ns % 1'000'000'000};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

}  // namespace

struct LoadGenerator::State {
  State(const LoadOptions& options_, LoadRecorder* recorder_) : options(options_), recorder(recorder_) {}

  int64_t NowNs() const { return std::chrono::nanoseconds(Clock::now() - start).count(); }
  Call* FreeCall();
  void Send(Call* call, int64_t start_ns);
  void HandleEnd(Call* call);
  void RunClosed();
  void RunOpen(LoadRun* run);
  void Receive();

  const LoadOptions options;
  LoadRecorder* const recorder;
  std::vector<grpc::GenericStub> stubs;
  std::string path;
  std::vector<grpc::ByteBuffer> requests;
  grpc::CompletionQueue queue;
  Clock::time_point start;
  std::chrono::system_clock::time_point wall_start;
  int64_t end_ns = 0;
  uint64_t sent = 0;

  std::mutex mutex;
  std::condition_variable call_ended;
  std::deque<Call> calls;
  std::vector<Call*> free;  // guarded by mutex, as is the size of calls
};

Call* LoadGenerator::State::FreeCall() {
  if (free.empty()) return &calls.emplace_back();
  Call* const call = free.back();
  free.pop_back();
  return call;
}

void LoadGenerator::State::Send(Call* call, int64_t start_ns) {
  call->record = {};
  call->record.start_ns = start_ns;
  call->record.request = static_cast<uint32_t>(sent % requests.size());
  call->reader.reset();  // lives in the context's memory
  call->context.emplace();
  call->context->set_deadline(wall_start + std::chrono::nanoseconds(start_ns) +
                              absl::ToChronoNanoseconds(options.deadline));
  call->reader =
      stubs[sent % stubs.size()].PrepareUnaryCall(&*call->context, path, requests[call->record.request], &queue);
  ++sent;
  call->reader->StartCall();
  call->reader->Finish(&call->answer, &call->status, call);
}

void LoadGenerator::State::HandleEnd(Call* call) {
  call->record.latency_ns = NowNs() - call->record.start_ns;
  const bool pushback = !call->status.ok() && call->context->GetServerTrailingMetadata().count(kPushback) > 0;
  recorder->Add(call->record, call->status, pushback, &call->answer);
  call->answer.Clear();
}

void LoadGenerator::State::RunClosed() {
  size_t under_way = 0;
  for (; under_way < options.concurrency; ++under_way) Send(FreeCall(), NowNs());
  void* tag = nullptr;
  bool ok = false;
  while (under_way > 0 && queue.Next(&tag, &ok)) {
    auto* const call = static_cast<Call*>(tag);
    HandleEnd(call);
    const int64_t now = NowNs();
    if (now < end_ns) {
      Send(call, now);
    } else {
      --under_way;
    }
  }
  queue.Shutdown();
}

void LoadGenerator::State::Receive() {
  void* tag = nullptr;
  bool ok = false;
  while (queue.Next(&tag, &ok)) {
    auto* const call = static_cast<Call*>(tag);
    HandleEnd(call);
    const std::lock_guard lock(mutex);
    free.push_back(call);
    call_ended.notify_one();
  }
}

void LoadGenerator::State::RunOpen(LoadRun* run) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // ns, instead of 50 us
  std::thread receiver([this] { Receive(); });
  ArrivalSchedule schedule(options.rate, options.seed);
  for (int64_t at = schedule.NextNs(); at < end_ns; at = schedule.NextNs()) {
    SleepUntil(start + std::chrono::nanoseconds(at));
    Call* call = nullptr;
    {
      std::unique_lock lock(mutex);
      if (free.empty() && calls.size() >= options.max_in_flight) {
        ++run->held_back;
        call_ended.wait(lock, [this] { return !free.empty(); });
      }
      call = FreeCall();
      run->most_in_flight = std::max(run->most_in_flight, calls.size() - free.size());
    }
    if (at >= run->begin_ns) run->send_delay.Add(static_cast<uint64_t>(std::max<int64_t>(NowNs() - at, 0)));
    Send(call, at);
  }
  {
    std::unique_lock lock(mutex);
    call_ended.wait(lock, [this] { return free.size() == calls.size(); });
  }
  queue.Shutdown();
  receiver.join();
}

LoadGenerator::LoadGenerator(std::vector<std::shared_ptr<grpc::Channel>> channels, WireMethod method,
                             std::vector<grpc::ByteBuffer> requests, const LoadOptions& options, LoadRecorder* recorder)
    : state_(std::make_unique<State>(options, recorder)) {
  for (auto& channel : channels) state_->stubs.emplace_back(std::move(channel));
  state_->requests = std::move(requests);
  state_->path = MethodPath(method);
}

LoadGenerator::~LoadGenerator() = default;

LoadRun BeginRun(const LoadOptions& options) {
  LoadRun run;
  run.begin_ns = absl::ToInt64Nanoseconds(options.warmup);
  run.end_ns = run.begin_ns + absl::ToInt64Nanoseconds(options.duration);
  run.cpu_seconds = -CpuSeconds();
  run.start = absl::Now();
  return run;
}

void EndRun(LoadRun* run) { run->cpu_seconds += CpuSeconds(); }

LoadRun LoadGenerator::Run() {
  State& state = *state_;
  LoadRun run = BeginRun(state.options);
  state.end_ns = run.end_ns;
  state.start = Clock::now();
  state.wall_start = std::chrono::system_clock::now();
  if (state.options.rate > 0) {
    state.RunOpen(&run);
  } else {
    state.RunClosed();
    run.most_in_flight = state.options.concurrency;
  }
  EndRun(&run);
  return run;
}

}  // namespace hilomoe
