// The server: models, ports, metrics, from start to drain.
#ifndef HILOMOE_SERVER_SERVER_H_
#define HILOMOE_SERVER_SERVER_H_

#include <chrono>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/server_options.h"

namespace hilomoe {

class Server {
 public:
  // Reserves the ports, shows metrics, loads the models, serves; when it returns, health says SERVING. Errors say what
  // is wrong with an address, a certificate, the repository or a model. `options` as ParseServerOptions gives them.
  static absl::StatusOr<std::unique_ptr<Server>> BuildAndStart(const ServerOptions& options);
  // Shuts down without grace, unless that has been done.
  ~Server();

  // The ports in use; 0 for those that are off or no TCP.
  int listen_port() const;
  int metrics_port() const;
  int admin_port() const;
  int probe_port() const;

  // Reads the TLS files now.
  void ReloadCertificates();

  // Health says NOT_SERVING from now on, on every port; requests are still served.
  void StartDraining();
  // Takes no new requests, gives those under way until `grace` is over, then cancels them. True when none had to be
  // cancelled.
  bool Shutdown(std::chrono::milliseconds grace);

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SERVER_H_
