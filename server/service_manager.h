// Tells systemd how the service is.
#ifndef HILOMOE_SERVER_SERVICE_MANAGER_H_
#define HILOMOE_SERVER_SERVICE_MANAGER_H_

#include <string_view>

#include "absl/status/status.h"

namespace hilomoe {

// Sends `state`, lines such as "READY=1\nSTATUS=serving", as one datagram to the socket that the environment variable
// NOTIFY_SOCKET names (sd_notify(3)); does nothing without it. Never waits.
absl::Status NotifyServiceManager(std::string_view state);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SERVICE_MANAGER_H_
