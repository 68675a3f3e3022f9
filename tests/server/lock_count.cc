#include "lock_count.h"

#include <dlfcn.h>
#include <pthread.h>

namespace {

thread_local uint64_t count = 0;

template <class Lock>
int CountAndCall(const char* name, Lock* lock) {
  ++count;
  return reinterpret_cast<int (*)(Lock*)>(dlsym(RTLD_NEXT, name))(lock);
}

}  // namespace

uint64_t hilomoe::Locks() { return count; }

extern "C" {
int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept { return CountAndCall("pthread_mutex_lock", mutex); }
int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept { return CountAndCall("pthread_mutex_trylock", mutex); }
int pthread_rwlock_rdlock(pthread_rwlock_t* lock) noexcept { return CountAndCall("pthread_rwlock_rdlock", lock); }
int pthread_rwlock_wrlock(pthread_rwlock_t* lock) noexcept { return CountAndCall("pthread_rwlock_wrlock", lock); }
}
