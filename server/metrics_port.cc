#include "server/metrics_port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace hilomoe {
namespace {

constexpr char kThreads[] = "2";
// A client that does not send its request takes a thread for so long.
constexpr char kRequestTimeoutMs[] = "5000";

// Whether it is refused does not matter.
void Knock(int port) {
  for (const int family : {AF_INET, AF_INET6}) {
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    const in_port_t network_port = htons(static_cast<uint16_t>(port));
    if (family == AF_INET) {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = network_port;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    } else {
      sockaddr_in6 address{};
      address.sin6_family = AF_INET6;
      address.sin6_port = network_port;
      address.sin6_addr = in6addr_loopback;
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    }
    close(fd);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsPort>> MetricsPort::Open(const std::string& address) {
  try {
    const std::vector<std::string> options = {"listening_ports",    address,          "num_threads", kThreads,
                                              "request_timeout_ms", kRequestTimeoutMs};
    return std::unique_ptr<MetricsPort>(new MetricsPort(std::make_unique<prometheus::Exposer>(options)));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on metrics_address '", address, "': taken, not permitted or not of this machine"));
  }
}

// The HTTP server's accepting thread looks only every two seconds whether it is to end, unless a client comes.
MetricsPort::~MetricsPort() {
  const int listening_port = port();
  std::atomic<bool> closed{false};
  std::thread closing([this, &closed] {
    exposer_.reset();
    closed = true;
  });
  while (!closed) {
    Knock(listening_port);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  closing.join();
}

}  // namespace hilomoe
