// The server: models, gRPC, metrics, from start to drain.
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
  // Loads the models, opens the ports, serves; when it returns, health says SERVING. Errors say what is wrong with the
  // repository, a model or an address. `options` as ParseServerOptions gives them.
  static absl::StatusOr<std::unique_ptr<Server>> BuildAndStart(const ServerOptions& options);
  // Shuts down without grace, unless that has been done.
  ~Server();

  // The ports in use.
  int listen_port() const;
  int metrics_port() const;

  // Health says NOT_SERVING from now on; requests are still served.
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
