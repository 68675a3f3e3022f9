// What runs beside serving and must not slow it down.
#ifndef HILOMOE_SERVER_THREAD_PRIORITY_H_
#define HILOMOE_SERVER_THREAD_PRIORITY_H_

namespace hilomoe {

// The calling thread, and those that it starts, run in time that others leave over from now on (SCHED_IDLE). Where the
// system refuses that, with the least share (nice 19).
void LowerThreadPriority();

// The calling thread, and those that it starts, get a tenth of a serving thread's share where CPU time is short (nice
// 10): late, but not never.
void ReduceThreadPriority();

// As tools show the calling thread; at most 15 characters.
void NameThread(const char* name);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_THREAD_PRIORITY_H_
