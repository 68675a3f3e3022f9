// Threads that are idle help with the tiles of someone else's request: candidates to evaluate, or columns to encode.
#ifndef HILOMOE_RUNTIME_TILE_TEAM_H_
#define HILOMOE_RUNTIME_TILE_TEAM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace hilomoe {

// A caller of Run takes tile after tile from a counter, and so do the helpers that it has called. Helpers sleep until
// they are called, and at most `threads` threads work at once, callers first: a helper leaves after its tile when one
// more caller has come, and is called again when one has gone. A caller never waits for a helper that is busy with
// another request or has not woken up yet: it does the work itself and takes the call back. At the end it waits for the
// tiles that helpers are in the middle of.
//
// Run: any thread, any number at once; no locks, no allocation. The team must outlive its runs.
class TileTeam {
 public:
  // Evaluates one tile on worker 0, the caller, or one of 1 to helpers(); no two tiles of a run on the same worker at
  // once. `next` is the tile that this worker is likely to get next, for prefetching; it may be past the last one.
  using EvaluateTile = absl::FunctionRef<void(int worker, size_t tile, size_t next)>;

  // Starts threads - 1 helpers; threads >= 1. RESOURCE_EXHAUSTED: the system gives no more threads.
  static absl::StatusOr<std::unique_ptr<TileTeam>> Create(int threads);
  ~TileTeam();

  int helpers() const { return static_cast<int>(helpers_.size()); }

  // Evaluates tiles 0 to tiles - 1, each once, and calls helpers if `split`. What evaluate writes is the caller's to
  // read afterwards. Returns how many of the tiles helpers have evaluated.
  size_t Run(size_t tiles, bool split, EvaluateTile evaluate);

 private:
  // Who may do what with a helper. In the low bits of its state; the rest is a ticket that changes with every claim, so
  // that nobody takes another caller's call for his own.
  enum Phase : uint32_t {
    kIdle,     // asleep; any caller may claim it
    kClaimed,  // its caller writes `job`
    kCalled,   // may begin to work; or its caller takes the call back
    kWorking,  // reads the job; its caller waits for kIdle
    kPhases,
  };
  struct Job;
  struct alignas(64) Helper {
    std::atomic<uint32_t> state{kIdle};
    std::atomic<Job*> job{nullptr};  // of the latest call; null: end the thread
    std::thread thread;
  };

  explicit TileTeam(int threads) : threads_(threads) {}
  static Phase PhaseOf(uint32_t state) { return static_cast<Phase>(state % kPhases); }
  static uint32_t With(Phase phase, uint32_t state) { return state - state % kPhases + phase; }
  static bool Call(Helper* helper, Job* job);

  void Serve(Helper* helper, int worker);
  void Work(Job* job, int worker);
  void CallIdle(Job* job);
  void Leave(Job* job);
  void Finish(Job* job);
  // Until a helper's state is no longer `old`.
  static void Await(const std::atomic<uint32_t>& state, uint32_t old);
  bool MustLeave();

  const int threads_;
  std::vector<std::unique_ptr<Helper>> helpers_;
  std::atomic<int> busy_{0};  // callers, and helpers that are called or work
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_TILE_TEAM_H_
