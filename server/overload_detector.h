// Tells overload from a burst.
#ifndef HILOMOE_SERVER_OVERLOAD_DETECTOR_H_
#define HILOMOE_SERVER_OVERLOAD_DETECTOR_H_

#include <atomic>
#include <chrono>
#include <cstdint>

namespace hilomoe {

// A queue that is long for a moment, since the machine stalled or many came at once, is worked off and does no harm;
// refusing would. One that stays long only makes everybody late. So requests may wait for longer than the limit, by up
// to kBurstWait, as long as the queue has been short within the last kBurst. Once it has not, all that would wait for
// longer than the limit are refused, until none had to be for kCalm. (The idea is CoDel's, of routers: Nichols and
// Jacobson, 2012.)
//
// A server that is used for a share u of its time works off what came in a stall of s in s * u / (1 - u): at two
// thirds, a stall of 100 ms leaves requests to wait for up to 67 ms, and the queue is short again after 133 ms.
//
// Any thread, without locks; times may be a little out of order.
class OverloadDetector {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kBurst{250}, kBurstWait{100}, kCalm{1000};

  // Whether a request that comes now and would wait for so long is to be refused.
  bool Refuses(double wait_ns, double limit_ns, Clock::time_point now) {
    const int64_t time = Nanoseconds(now.time_since_epoch());
    if (wait_ns <= limit_ns) {
      // Written now and then, so that threads do not fight for it.
      if (time - short_.load(std::memory_order_relaxed) > Nanoseconds(kBurst) / 16) {
        short_.store(time, std::memory_order_relaxed);
      }
      return false;
    }
    if (wait_ns > limit_ns + static_cast<double>(Nanoseconds(kBurstWait))) return true;
    const bool stays_long = time - short_.load(std::memory_order_relaxed) > Nanoseconds(kBurst);
    if (!stays_long && time >= strict_until_.load(std::memory_order_relaxed)) return false;
    strict_until_.store(time + Nanoseconds(kCalm), std::memory_order_relaxed);
    return true;
  }

 private:
  static int64_t Nanoseconds(std::chrono::nanoseconds duration) { return duration.count(); }

  std::atomic<int64_t> short_{0};         // when the queue was last seen to be short
  std::atomic<int64_t> strict_until_{0};  // when refusing ends
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_OVERLOAD_DETECTOR_H_
