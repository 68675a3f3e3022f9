// The least that a gRPC server can do: answers every hilomoe.v1.ScoringService/Score with the same prepared response,
// looking at nothing, after some work if so asked. Asynchronous calls that are asked for in advance, on one completion
// queue that some threads wait on, as hilomoe-server has them: what a request to it takes longer is scoring.
#ifndef HILOMOE_TOOLS_CLIENT_ECHO_SERVER_H_
#define HILOMOE_TOOLS_CLIENT_ECHO_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace hilomoe {

struct EchoOptions {
  std::string listen_address = "127.0.0.1:0";
  uint32_t candidates = 100;  // scores in a response
  int threads = 2;            // of the asynchronous API; the callback API decides for itself
  int work_us = 0;            // CPU time that every call takes on the thread that answers it
  bool callback = false;      // gRPC's callback API, to be compared with the asynchronous one
};

class EchoServer {
 public:
  // Serves when it returns; UNAVAILABLE for an address that cannot be listened on.
  static absl::StatusOr<std::unique_ptr<EchoServer>> Start(const EchoOptions& options);
  ~EchoServer();

  int port() const;

 private:
  struct State;
  explicit EchoServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_ECHO_SERVER_H_
