#include "runtime/tile_team.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include "absl/strings/str_cat.h"

namespace hilomoe {
namespace {

// How long callers wait for helpers, and helpers for the next call, without sleeping. To be woken takes some 30 us on
// one machine that was measured: a caller would wait as long again, and a helper begin late with a request that follows
// at once. Meanwhile they yield to whoever else wants the core.
constexpr std::chrono::microseconds kAwake(100);

}  // namespace

// On its caller's stack. A helper reads it only between kWorking and kIdle.
struct TileTeam::Job {
  Job(size_t tiles_, EvaluateTile evaluate_) : tiles(tiles_), evaluate(evaluate_) {}

  const size_t tiles;
  const EvaluateTile evaluate;
  std::atomic<size_t> next{0};     // tile that nobody has taken
  std::atomic<size_t> workers{1};  // the caller, and helpers that it has called and that have not left
  std::atomic<size_t> helped{0};   // tiles
};

absl::StatusOr<std::unique_ptr<TileTeam>> TileTeam::Create(int threads) {
  auto team = std::unique_ptr<TileTeam>(new TileTeam(threads));
  try {
    team->helpers_.reserve(static_cast<size_t>(std::max(threads, 1)));  // nothing fails between a thread and its owner
    for (int worker = 1; worker < threads; ++worker) {
      auto helper = std::make_unique<Helper>();
      helper->thread = std::thread([team = team.get(), helper = helper.get(), worker] { team->Serve(helper, worker); });
      team->helpers_.push_back(std::move(helper));
    }
  } catch (const std::exception&) {  // no thread is left, or no memory for one
    return absl::ResourceExhaustedError(
        absl::StrCat("the system gave only ", team->helpers(), " of ", threads - 1, " helper threads"));
  }
  return team;
}

TileTeam::~TileTeam() {
  for (const auto& helper : helpers_) Call(helper.get(), nullptr);
  for (const auto& helper : helpers_) helper->thread.join();
}

size_t TileTeam::Run(size_t tiles, bool split, EvaluateTile evaluate) {
  Job job(tiles, evaluate);
  busy_.fetch_add(1, std::memory_order_relaxed);
  if (split) {
    Work(&job, 0);
    Finish(&job);
  } else {
    for (size_t tile = 0; tile < tiles; ++tile) evaluate(0, tile, tile + 1);
  }
  busy_.fetch_sub(1, std::memory_order_relaxed);
  return job.helped.load(std::memory_order_relaxed);
}

void TileTeam::Work(Job* job, int worker) {
  while (true) {
    if (worker == 0) CallIdle(job);
    const size_t tile = job->next.fetch_add(1, std::memory_order_relaxed);
    if (tile >= job->tiles) break;
    job->evaluate(worker, tile, tile + job->workers.load(std::memory_order_relaxed));
    if (worker == 0) continue;
    job->helped.fetch_add(1, std::memory_order_relaxed);
    if (MustLeave()) {
      job->workers.fetch_sub(1, std::memory_order_relaxed);
      return;
    }
  }
  if (worker != 0) Leave(job);
}

// As many helpers leave as there are too many threads.
bool TileTeam::MustLeave() {
  int busy = busy_.load(std::memory_order_relaxed);
  while (busy > threads_) {
    if (busy_.compare_exchange_weak(busy, busy - 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

bool TileTeam::Call(Helper* helper, Job* job) {
  uint32_t state = helper->state.load(std::memory_order_relaxed);
  if (PhaseOf(state) != kIdle) return false;
  const uint32_t claimed = With(kClaimed, state + kPhases);
  if (!helper->state.compare_exchange_strong(state, claimed, std::memory_order_acquire)) return false;
  helper->job.store(job, std::memory_order_release);
  helper->state.store(With(kCalled, claimed), std::memory_order_release);
  helper->state.notify_all();
  return true;
}

// As long as threads are idle and tiles would be left when every worker had taken one more.
void TileTeam::CallIdle(Job* job) {
  const size_t next = job->next.load(std::memory_order_relaxed);
  for (const auto& helper : helpers_) {
    if (next + job->workers.load(std::memory_order_relaxed) >= job->tiles) return;
    if (busy_.load(std::memory_order_relaxed) >= threads_) return;
    if (PhaseOf(helper->state.load(std::memory_order_relaxed)) != kIdle) continue;
    // Before the call: the helper may have left again before it returns.
    job->workers.fetch_add(1, std::memory_order_relaxed);
    busy_.fetch_add(1, std::memory_order_relaxed);
    if (!Call(helper.get(), job)) Leave(job);
  }
}

void TileTeam::Leave(Job* job) {
  job->workers.fetch_sub(1, std::memory_order_relaxed);
  busy_.fetch_sub(1, std::memory_order_relaxed);
}

void TileTeam::Serve(Helper* helper, int worker) {
  while (true) {
    uint32_t state = helper->state.load(std::memory_order_acquire);
    if (PhaseOf(state) != kCalled) {
      Await(helper->state, state);
      continue;
    }
    const uint32_t working = With(kWorking, state);
    if (!helper->state.compare_exchange_strong(state, working, std::memory_order_acquire)) continue;
    Job* const job = helper->job.load(std::memory_order_relaxed);
    if (job == nullptr) return;
    Work(job, worker);
    helper->state.store(With(kIdle, working), std::memory_order_release);
    helper->state.notify_all();
  }
}

void TileTeam::Finish(Job* job) {
  for (const auto& helper : helpers_) {
    // The state first: if the job is still ours after it, nobody else had called the helper when it was read.
    uint32_t state = helper->state.load(std::memory_order_acquire);
    if (helper->job.load(std::memory_order_acquire) != job) continue;
    const Phase phase = PhaseOf(state);
    if (phase != kCalled && phase != kWorking) continue;  // it has left
    const uint32_t working = With(kWorking, state);
    if (phase == kCalled &&
        helper->state.compare_exchange_strong(state, With(kIdle, state), std::memory_order_acquire)) {
      Leave(job);
      continue;
    }
    Await(helper->state, working);
  }
}

void TileTeam::Await(const std::atomic<uint32_t>& state, uint32_t old) {
  const auto sleep_at = std::chrono::steady_clock::now() + kAwake;
  while (state.load(std::memory_order_acquire) == old) {
    if (std::chrono::steady_clock::now() < sleep_at) {
      std::this_thread::yield();
    } else {
      state.wait(old, std::memory_order_acquire);
    }
  }
}

}  // namespace hilomoe
