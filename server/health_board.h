// What grpc.health.v1 says, the same on every port.
#ifndef HILOMOE_SERVER_HEALTH_BOARD_H_
#define HILOMOE_SERVER_HEALTH_BOARD_H_

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "grpcpp/health_check_service_interface.h"

namespace hilomoe {

// Any thread.
class HealthBoard {
 public:
  // The service tells what the board says from now on, until Clear.
  void Attach(grpc::HealthCheckServiceInterface* service);
  // Before the servers of the attached services go.
  void Clear();

  // "" is the whole server. A name once set can be asked for ever after.
  void Set(const std::string& name, bool serving);
  // Every name says NOT_SERVING from now on, whatever is set later.
  void StartDraining();

 private:
  std::mutex mutex_;
  std::map<std::string, bool> names_;
  std::vector<grpc::HealthCheckServiceInterface*> services_;
  bool draining_ = false;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_HEALTH_BOARD_H_
