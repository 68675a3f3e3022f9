#include "model/sigbus_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>

namespace hilomoe {

// An element of a list that only grows: the handler may be walking it on any thread, so nothing is ever taken out or
// freed. That is some bytes a load of a mapped file.
struct SigbusGuard::Range {
  void* const begin;
  const size_t bytes;
  Range* next;
  std::atomic<bool> guarded{true};
  std::atomic<bool> poisoned{false};
};

namespace {

std::atomic<SigbusGuard::Range*> g_ranges{nullptr};
struct sigaction g_previous;
static_assert(std::atomic<SigbusGuard::Range*>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

// Replaces the guarded range around `address` by zeros; false when there is none. The one mapping for all of the range
// rather than one a page: a file cut by half has more pages than a process may have mappings.
bool ReplaceByZeros(const void* address) {
  for (SigbusGuard::Range* range = g_ranges.load(std::memory_order_acquire); range != nullptr; range = range->next) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(range->begin);
    if (offset >= range->bytes || !range->guarded.load()) continue;
    range->poisoned.store(true);
    return ::mmap(range->begin, range->bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

void OnSigbus(int signal, siginfo_t* info, void*) {
  const int saved_errno = errno;
  const bool is_fault = info->si_code > 0;  // otherwise some process sent it, and there is no address
  if (!is_fault || !ReplaceByZeros(info->si_addr)) {
    // The faulting instruction runs again and meets the previous action; what was sent is sent again.
    ::sigaction(SIGBUS, &g_previous, nullptr);
    if (!is_fault) ::raise(signal);
  }
  errno = saved_errno;
}

void InstallHandler() {
  struct sigaction action {};
  action.sa_sigaction = OnSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &g_previous);
}

}  // namespace

SigbusGuard::SigbusGuard(void* begin, size_t bytes) : range_(new Range{begin, bytes, g_ranges.load()}) {
  static std::once_flag installed;
  std::call_once(installed, InstallHandler);
  while (!g_ranges.compare_exchange_weak(range_->next, range_, std::memory_order_release)) {
  }
}

SigbusGuard::~SigbusGuard() { range_->guarded.store(false); }

bool SigbusGuard::poisoned() const { return range_->poisoned.load(); }

}  // namespace hilomoe
