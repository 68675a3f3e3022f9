// What runs beside serving and must not slow it down.
#ifndef HILOMOE_SERVER_THREAD_PRIORITY_H_
#define HILOMOE_SERVER_THREAD_PRIORITY_H_

#include <chrono>

namespace hilomoe {

// The calling thread, and those that it starts, run in time that others leave over from now on (SCHED_IDLE). Where the
// system refuses that, with the least share (nice 19).
void LowerThreadPriority();

// The calling thread, and those that it starts, get a tenth of a serving thread's share where CPU time is short (nice
// 10): late, but not never.
void ReduceThreadPriority();

// Keeps work that streams through memory from crowding out, of caches and memory bandwidth, what is served beside it:
// for every piece of work a pause of three times the CPU time that it took. Of one thread.
class WorkPacer {
 public:
  // Between pieces; pauses when they add up to a fifth of a millisecond.
  void Pause();

 private:
  std::chrono::nanoseconds paused_at_{-1};  // CPU time of the thread; negative: it has not begun
};

// As tools show the calling thread; at most 15 characters.
void NameThread(const char* name);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_THREAD_PRIORITY_H_
