// Takes connections on an address and hands them on.
//
// gRPC 1.51's own listener ends for good when accept(2) fails, as it does when file descriptors run out. This one keeps
// a reserve of them: beyond it, connections are closed as they come, and models, logs and other ports can still be
// opened.
#ifndef HILOMOE_SERVER_LISTENER_H_
#define HILOMOE_SERVER_LISTENER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hilomoe {

class Listener {
 public:
  // Owns `fd`, which is non-blocking, from now on.
  using Take = std::function<void(int listening_fd, int fd)>;

  // Binds to host:port, [v6]:port ([::] takes IPv4, too) or unix:/path. Clients are still refused. A port of 0 is any
  // free one. Of a host with several addresses, all are bound. UNAVAILABLE names `setting` and the reason.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(std::string_view setting, const std::string& address);
  // Stops.
  ~Listener();

  // 0 for unix:.
  int port() const { return port_; }
  // Once: clients can connect. `take` is called on a thread of the listener, never while file descriptors numbered from
  // the process's limit - spare_file_descriptors on are handed out.
  absl::Status Start(int spare_file_descriptors, Take take);
  // No call of `take` begins any more; clients are refused.
  void Stop();

 private:
  Listener(std::string_view setting, std::string address) : setting_(setting), address_(std::move(address)) {}
  absl::Status Error(std::string_view what, int error) const;
  absl::Status BindUnix(const std::string& path);
  absl::Status BindTcp();
  void Run();
  // False when connections should be left waiting for a moment.
  bool AcceptFrom(int listening_fd);
  // At most once a minute.
  void Warn(std::string_view message);

  const std::string setting_, address_;
  std::vector<int> fds_;
  int port_ = 0;
  std::string unix_path_;  // to be removed
  int stop_fd_ = -1;
  int first_spare_fd_ = 0;
  Take take_;
  std::chrono::steady_clock::time_point silent_until_;
  std::thread thread_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_LISTENER_H_
