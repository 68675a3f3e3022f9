#include "server/server.h"

#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "model/status_macros.h"
#include "prometheus/exposer.h"
#include "runtime/cpu_count.h"
#include "runtime/tile_team.h"
#include "server/call_loop.h"
#include "server/inference_service.h"
#include "server/log.h"
#include "server/scoring_service.h"

namespace hilomoe {
namespace {

// Calls that one connection may have open; further ones wait at the client. Without it a client could make the server
// hold any number of requests.
constexpr int kMaxStreamsPerConnection = 1024;
// Reflection is gRPC's synchronous service with a thread for every open stream; more streams than this are refused.
constexpr int kMaxReflectionThreads = 4;
constexpr int kMetricsThreads = 2;

}  // namespace

struct Server::State {
  absl::Status StartMetrics(const std::string& address);
  absl::Status StartGrpc(const v1::ServerConfig& config, uint32_t evaluation_threads);

  std::shared_ptr<ServerMetrics> metrics;
  std::unique_ptr<TileTeam> team;  // outlives the models
  std::unique_ptr<prometheus::Exposer> exposer;
  std::unique_ptr<ModelRepository> repository;
  std::unique_ptr<RequestLog> log;
  std::unique_ptr<RequestCapture> capture;  // null: none
  std::unique_ptr<CallLoop> loop;
  std::unique_ptr<ScoringService> service;
  std::unique_ptr<InferenceService> inference;
  std::unique_ptr<grpc::Server> grpc;
  int listen_port = 0;
  bool shut_down = false;
};

absl::Status Server::State::StartMetrics(const std::string& address) {
  try {
    exposer = std::make_unique<prometheus::Exposer>(address, kMetricsThreads);
    exposer->RegisterCollectable(metrics);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on metrics_address '", address, "': taken, not permitted or not of this machine"));
  }
  return absl::OkStatus();
}

absl::Status Server::State::StartGrpc(const v1::ServerConfig& config, uint32_t evaluation_threads) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.AddListeningPort(config.listen_address(), grpc::InsecureServerCredentials(), &listen_port);
  // Otherwise a second server on the same port would start and take half of the requests.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_request_bytes()));
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  grpc::ResourceQuota quota("hilomoe");
  quota.SetMaxThreads(kMaxReflectionThreads);
  builder.SetResourceQuota(quota);

  service = std::make_unique<ScoringService>();
  builder.RegisterService(service->grpc_service());
  inference = std::make_unique<InferenceService>();
  builder.RegisterService(inference->grpc_service());
  loop = std::make_unique<CallLoop>(builder.AddCompletionQueue(), evaluation_threads, config.max_queued_candidates());
  grpc = builder.BuildAndStart();
  if (grpc == nullptr || listen_port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on listen_address '", config.listen_address(),
                                               "': taken, not permitted or not of this machine"));
  }
  const ScoringService::Limits limits{config.max_candidates(), config.max_queue_ms()};
  const MethodDependencies dependencies{loop.get(), repository.get(), metrics.get(), log.get(), capture.get()};
  service->Connect(limits, dependencies);
  inference->Connect(limits, dependencies);
  metrics->WatchAdmission(&loop->admission());
  std::vector<RpcMethod*> methods = service->methods();
  for (RpcMethod* method : inference->methods()) methods.push_back(method);
  loop->Start(methods);
  grpc->GetHealthCheckService()->SetServingStatus(kScoringServiceName, true);
  grpc->GetHealthCheckService()->SetServingStatus(kInferenceServiceName, true);
  grpc->GetHealthCheckService()->SetServingStatus(true);
  metrics->SetReady(true);
  return absl::OkStatus();
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::BuildAndStart(const ServerOptions& options) {
  const v1::ServerConfig& config = options.config;
  const uint32_t evaluation_threads =
      config.evaluation_threads() > 0 ? config.evaluation_threads() : static_cast<uint32_t>(UsableCpuCount());
  const int serving_threads = static_cast<int>(evaluation_threads) + 1;
  auto server = std::unique_ptr<Server>(new Server(std::make_unique<State>()));
  State& state = *server->state_;
  state.metrics = std::make_shared<ServerMetrics>(serving_threads);
  // Without a split nobody needs help.
  const int team_threads = config.split_candidates() > 0 ? static_cast<int>(evaluation_threads) : 1;
  HILOMOE_ASSIGN_OR_RETURN(state.team, TileTeam::Create(team_threads));
  ModelRepositoryOptions repository = ModelRepositoryOptions::From(config);
  repository.threads = {serving_threads, state.team.get(), config.split_candidates(), config.routing_sample()};
  repository.start_threads = static_cast<int>(evaluation_threads);  // nothing else runs yet
  HILOMOE_ASSIGN_OR_RETURN(state.repository, ModelRepository::Start(std::move(repository)));
  state.metrics->WatchRepository(state.repository.get());
  state.repository->Listen([&state] {
    for (const auto& model : state.repository->table()->models()) state.metrics->Add(model->shared_metrics());
  });
  state.log = std::make_unique<RequestLog>(
      RequestLog::Options{config.request_log_sample(), config.request_log_errors_per_second(), serving_threads});
  if (!config.capture_path().empty()) {
    HILOMOE_ASSIGN_OR_RETURN(state.capture, RequestCapture::Start({config.capture_path(), config.capture_sample(),
                                                                   config.capture_max_bytes(), serving_threads}));
    state.metrics->WatchCapture(state.capture.get());
  }
  HILOMOE_RETURN_IF_ERROR(state.StartMetrics(config.metrics_address()));
  HILOMOE_RETURN_IF_ERROR(state.StartGrpc(config, evaluation_threads));
  return server;
}

Server::~Server() {
  // What it tells goes to the others.
  if (state_->repository != nullptr) state_->repository->Stop();
  if (state_->grpc != nullptr && !state_->shut_down) Shutdown(std::chrono::milliseconds(0));
  // Scrapes read the loop.
  state_->exposer.reset();
}

int Server::listen_port() const { return state_->listen_port; }
int Server::metrics_port() const { return state_->exposer->GetListeningPorts().front(); }

void Server::StartDraining() {
  state_->metrics->SetReady(false);
  state_->metrics->SetDraining(true);
  state_->grpc->GetHealthCheckService()->SetServingStatus(false);
}

bool Server::Shutdown(std::chrono::milliseconds grace) {
  const auto deadline = std::chrono::system_clock::now() + grace;
  std::thread shutdown([this, deadline] { state_->grpc->Shutdown(deadline); });
  state_->loop->WaitForCalls();
  const bool in_time = std::chrono::system_clock::now() < deadline;
  // What is still open are streams of health and reflection, which last as long as their clients like.
  grpc_server_cancel_all_calls(state_->grpc->c_server());
  shutdown.join();
  state_->loop->Stop();
  state_->shut_down = true;
  return in_time;
}

}  // namespace hilomoe
