#include "tools/client/load_channels.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

constexpr char kHealthOf[] = "hilomoe.v1.ScoringService";
constexpr int kReconnectMs = 50;

std::string ServiceConfig(const LoadChannelOptions& options) {
  nlohmann::json config = {{"loadBalancingConfig", {{{"round_robin", nlohmann::json::object()}}}}};
  if (options.watch_health) config["healthCheckConfig"] = {{"serviceName", kHealthOf}};
  if (options.retries > 0) {
    const nlohmann::json policy = {{"maxAttempts", options.retries + 1},
                                   {"initialBackoff", "0.01s"},
                                   {"maxBackoff", "1s"},
                                   {"backoffMultiplier", 2},
                                   {"retryableStatusCodes", {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}}};
    config["methodConfig"] = {{{"name", {nlohmann::json::object()}}, {"retryPolicy", policy}}};
  }
  return config.dump();
}

}  // namespace

absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> ConnectForLoad(const LoadChannelOptions& options) {
  const absl::Time until = absl::Now() + options.server.connect_timeout;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (size_t i = 0; i < options.connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetServiceConfigJSON(ServiceConfig(options));
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else channels share their connections
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMs);
    if (!options.server.server_name.empty()) arguments.SetSslTargetNameOverride(options.server.server_name);
    channels.push_back(grpc::CreateCustomChannel(options.server.address, MakeCredentials(options.server), arguments));
    (void)channels.back()->GetState(true);  // all connect at once
  }
  for (const auto& channel : channels) {
    if (channel->WaitForConnected(absl::ToChronoTime(until))) continue;
    return absl::UnavailableError(absl::StrCat("cannot connect to ", options.server.address, " within ",
                                               absl::FormatDuration(options.server.connect_timeout),
                                               options.watch_health ? ", or it is not healthy" : ""));
  }
  return channels;
}

}  // namespace hilomoe
