#include "server/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/status_macros.h"
#include "server/log.h"

namespace hilomoe {
namespace {

constexpr int kBacklog = 4096;  // the kernel takes less if net.core.somaxconn says so
// After a failed accept(2), which would fail again at once.
constexpr int kRetryMs = 50;
constexpr auto kLogEvery = std::chrono::seconds(60);

// What the process may open.
int FileDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > std::numeric_limits<int>::max()) {
    return std::numeric_limits<int>::max();
  }
  return static_cast<int>(limit.rlim_cur);
}

int SocketPort(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<const sockaddr_in&>(bound).sin_port);
}

void SetPort(int port, addrinfo* address) {
  const auto network_port = htons(static_cast<uint16_t>(port));
  if (address->ai_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address->ai_addr)->sin6_port = network_port;
  } else {
    reinterpret_cast<sockaddr_in*>(address->ai_addr)->sin_port = network_port;
  }
}

}  // namespace

absl::Status Listener::Error(std::string_view what, int error) const {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", setting_, " '", address_,
                                             "': ", absl::string_view(what.data(), what.size()), strerror(error)));
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(std::string_view setting, const std::string& address) {
  auto listener = std::unique_ptr<Listener>(new Listener(setting, address));
  absl::string_view path = address;
  HILOMOE_RETURN_IF_ERROR(absl::ConsumePrefix(&path, "unix:") ? listener->BindUnix(std::string(path))
                                                              : listener->BindTcp());
  return listener;
}

absl::Status Listener::BindUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Error("", ENAMETOOLONG);
  path.copy(address.sun_path, path.size());
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error("", errno);
  fds_.push_back(fd);
  // A socket that nobody answers was left by a process that is gone.
  struct stat file {};
  if (lstat(path.c_str(), &file) == 0 && S_ISSOCK(file.st_mode)) {
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const bool dead = connect(probe, generic, sizeof(address)) != 0 && errno == ECONNREFUSED;
    close(probe);
    if (dead) unlink(path.c_str());
  }
  if (bind(fd, generic, sizeof(address)) != 0) return Error("", errno);
  unix_path_ = path;
  return absl::OkStatus();
}

absl::Status Listener::BindTcp() {
  const size_t colon = address_.rfind(':');
  std::string host = address_.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), address_.substr(colon + 1).c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", setting_, " '", address_, "': ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int last_error = 0;
  for (addrinfo* address = found; address != nullptr; address = address->ai_next) {
    if (port_ != 0) SetPort(port_, address);
    const int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      last_error = errno;  // such as IPv6 that is not configured
      continue;
    }
    fds_.push_back(fd);
    // Not SO_REUSEPORT: a second server on the same port would start and take half of the requests.
    const int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // connections inherit it
    if (address->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0) {
      last_error = errno;
      close(fd);
      fds_.pop_back();
      if (last_error == EADDRNOTAVAIL) continue;
      return Error("", last_error);
    }
    if (port_ == 0) port_ = SocketPort(fd);
  }
  return fds_.empty() ? Error("", last_error) : absl::OkStatus();
}

Listener::~Listener() { Stop(); }

absl::Status Listener::Start(int spare_file_descriptors, Take take) {
  for (const int fd : fds_) {
    if (listen(fd, kBacklog) != 0) return Error("", errno);
  }
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  if (stop_fd_ < 0) return Error("eventfd: ", errno);
  const int limit = FileDescriptorLimit();
  first_spare_fd_ = std::max(limit / 2, limit - spare_file_descriptors);
  take_ = std::move(take);
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void Listener::Stop() {
  if (thread_.joinable()) {
    eventfd_write(stop_fd_, 1);
    thread_.join();
  }
  for (const int fd : fds_) close(fd);
  fds_.clear();
  if (stop_fd_ >= 0) close(stop_fd_);
  stop_fd_ = -1;
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
  unix_path_.clear();
}

void Listener::Run() {
  std::vector<pollfd> polled = {{stop_fd_, POLLIN, 0}};
  for (const int fd : fds_) polled.push_back({fd, POLLIN, 0});
  while (true) {
    if (poll(polled.data(), polled.size(), -1) < 0) continue;  // EINTR
    if (polled[0].revents != 0) return;
    bool wait = false;
    for (size_t i = 1; i < polled.size(); ++i) {
      if (polled[i].revents != 0 && !AcceptFrom(polled[i].fd)) wait = true;
    }
    if (wait) poll(polled.data(), 1, kRetryMs);
  }
}

bool Listener::AcceptFrom(int listening_fd) {
  const int fd = accept4(listening_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    // Others than these concern the one connection, which is gone.
    const bool is_ours = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    if (is_ours) Warn(absl::StrCat("connections have to wait: ", strerror(errno)));
    return !is_ours;
  }
  // The system gives the lowest free number, so this says how many are in use.
  if (fd >= first_spare_fd_) {
    close(fd);
    Warn("connections are refused: the limit of file descriptors is near");
    return true;
  }
  // gRPC would write a line about each connection that has been reset already.
  sockaddr_storage peer;
  socklen_t size = sizeof(peer);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
    close(fd);
    return true;
  }
  take_(listening_fd, fd);
  return true;
}

void Listener::Warn(std::string_view message) {
  const auto now = std::chrono::steady_clock::now();
  if (now < silent_until_) return;
  silent_until_ = now + kLogEvery;
  LogWarning(message, {{"setting", setting_}, {"address", address_}});
}

}  // namespace hilomoe
