#include "server/directory_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "server/log.h"

namespace hilomoe {
namespace {

// Not IN_MODIFY: a file that is written in place is of no use before its end.
constexpr uint32_t kChanges =
    IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr auto kSettle = std::chrono::milliseconds(20);

void Drain(int descriptor) {
  char buffer[4096];
  while (::read(descriptor, buffer, sizeof(buffer)) > 0) {
  }
}

}  // namespace

DirectoryWatch::DirectoryWatch()
    : inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      inotify_error_(inotify_ < 0 ? errno : 0),
      event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

DirectoryWatch::~DirectoryWatch() {
  if (inotify_ >= 0) ::close(inotify_);
  if (event_ >= 0) ::close(event_);
}

void DirectoryWatch::Add(const std::string& directory) {
  if (inotify_ < 0) {
    Complain("the system gives no inotify instance: changes are found by polling; see fs.inotify.max_user_instances",
             inotify_error_, directory);
    return;
  }
  const int watch = ::inotify_add_watch(inotify_, directory.c_str(), kChanges);
  if (watch >= 0) {
    added_.insert(watch);
  } else if (errno == ENOSPC) {
    Complain("the system has no inotify watch left: changes are found by polling; see fs.inotify.max_user_watches",
             errno, directory);
  }
}

void DirectoryWatch::Complain(const char* message, int error, const std::string& directory) {
  if (complained_) return;
  complained_ = true;
  LogWarning(message, {{"directory", directory}, {"error", std::strerror(error)}});
}

void DirectoryWatch::End() {
  for (const int watch : watched_) {
    // Of a directory that was moved away; of one that is gone, the watch is gone as well, and this fails.
    if (added_.count(watch) == 0) ::inotify_rm_watch(inotify_, watch);
  }
  watched_.swap(added_);
}

void DirectoryWatch::Wait(std::chrono::milliseconds timeout) {
  pollfd polled[] = {{event_, POLLIN, 0}, {inotify_, POLLIN, 0}};
  // A negative descriptor is passed over; without an event to wait for, Wake has to be looked for.
  if (event_ < 0) timeout = std::min(timeout, kSettle);
  if (::poll(polled, 2, static_cast<int>(timeout.count())) <= 0) return;
  if ((polled[1].revents & POLLIN) != 0) {
    std::this_thread::sleep_for(kSettle);
    Drain(inotify_);
  }
  if ((polled[0].revents & POLLIN) != 0) Drain(event_);
}

void DirectoryWatch::Wake() {
  const uint64_t one = 1;
  // It fails only when it has been woken up 2^64 times.
  if (event_ >= 0 && ::write(event_, &one, sizeof(one)) < 0) return;
}

}  // namespace hilomoe
