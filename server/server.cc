#include "server/server.h"

#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "runtime/cpu_count.h"
#include "runtime/tile_team.h"
#include "server/admin_service.h"
#include "server/call_loop.h"
#include "server/grpc_port.h"
#include "server/health_board.h"
#include "server/inference_service.h"
#include "server/metrics_port.h"
#include "server/scoring_service.h"
#include "server/tls_certificates.h"

namespace hilomoe {
namespace {

// File descriptors that floods of connections leave to models, logs and scrapes; the public port leaves some to the
// admin and probe ports, too.
constexpr int kPublicSpareFds = 256;
constexpr int kPrivateSpareFds = 128;
// Memory for requests of the admin and probe ports. Their own, so that they answer when the public port's is used up.
constexpr uint64_t kPrivateGrpcBytes = 32 << 20;
// Loads wait there for minutes, and an unload must get through beside them.
constexpr int kMostAdminCalls = 32;

}  // namespace

struct Server::State {
  absl::Status BindPorts(const v1::ServerConfig& config);
  absl::StatusOr<std::unique_ptr<GrpcPort>> BindPort(GrpcPortOptions options, const v1::Tls* tls,
                                                     const v1::ServerConfig& config);
  absl::Status LoadModels(const v1::ServerConfig& config, uint32_t evaluation_threads);
  absl::Status StartRecording(const v1::ServerConfig& config, uint32_t evaluation_threads);
  absl::Status BuildPorts(const v1::ServerConfig& config, uint32_t evaluation_threads);
  absl::Status OpenPorts();
  // After every change of the table.
  void ShowModels();

  std::shared_ptr<ServerMetrics> metrics;
  std::unique_ptr<TileTeam> team;  // outlives the models
  HealthBoard health;
  std::mutex shown_mutex;
  std::set<std::string> shown;  // guarded by shown_mutex: the models that health has told of
  std::vector<std::shared_ptr<TlsCertificates>> certificates;  // outlive the ports
  std::shared_ptr<TlsMetrics> tls_metrics;
  std::unique_ptr<ModelRepository> repository;
  std::unique_ptr<RequestLog> log;
  std::unique_ptr<RequestCapture> capture;  // null: none
  std::unique_ptr<CallLoop> loop;
  std::unique_ptr<ScoringService> scoring;
  std::unique_ptr<InferenceService> inference;
  std::unique_ptr<AdminService> admin;
  std::unique_ptr<GrpcPort> public_port;
  std::unique_ptr<GrpcPort> admin_port;  // null when it is off
  std::unique_ptr<GrpcPort> probe_port;  // the same
  std::unique_ptr<MetricsPort> metrics_port;
  bool serving = false;  // the loop runs and must be stopped
};

absl::StatusOr<std::unique_ptr<GrpcPort>> Server::State::BindPort(GrpcPortOptions options, const v1::Tls* tls,
                                                                  const v1::ServerConfig& config) {
  if (tls != nullptr) {
    const std::string setting = options.setting == "admin_address" ? "admin_tls" : "tls";
    HILOMOE_ASSIGN_OR_RETURN(auto loaded, TlsCertificates::Load(setting, *tls));
    loaded->Watch(std::chrono::milliseconds(config.certificate_poll_ms()));
    options.credentials = loaded->MakeCredentials();
    certificates.push_back(std::move(loaded));
  }
  return GrpcPort::Bind(options, config);
}

// Before the models are loaded, which may take minutes: wrong addresses and certificates show at once.
absl::Status Server::State::BindPorts(const v1::ServerConfig& config) {
  HILOMOE_ASSIGN_OR_RETURN(public_port, BindPort({.setting = "listen_address",
                                                  .address = config.listen_address(),
                                                  .spare_file_descriptors = kPublicSpareFds,
                                                  .max_bytes = config.max_grpc_bytes()},
                                                 config.has_tls() ? &config.tls() : nullptr, config));
  GrpcPortOptions options = {.spare_file_descriptors = kPrivateSpareFds, .max_bytes = kPrivateGrpcBytes};
  if (!config.admin_address().empty()) {
    options.setting = "admin_address";
    options.address = config.admin_address();
    options.max_synchronous_calls = kMostAdminCalls;
    HILOMOE_ASSIGN_OR_RETURN(admin_port,
                             BindPort(options, config.has_admin_tls() ? &config.admin_tls() : nullptr, config));
  }
  if (!config.probe_address().empty()) {
    options.setting = "probe_address";
    options.address = config.probe_address();
    options.max_synchronous_calls = GrpcPortOptions().max_synchronous_calls;
    options.health_only = true;
    HILOMOE_ASSIGN_OR_RETURN(probe_port, BindPort(options, nullptr, config));
  }
  tls_metrics = std::make_shared<TlsMetrics>(certificates);
  if (!certificates.empty()) metrics_port->Add(tls_metrics);
  return absl::OkStatus();
}

absl::Status Server::State::LoadModels(const v1::ServerConfig& config, uint32_t evaluation_threads) {
  // Without a split nobody needs help.
  const int team_threads = config.split_candidates() > 0 ? static_cast<int>(evaluation_threads) : 1;
  HILOMOE_ASSIGN_OR_RETURN(team, TileTeam::Create(team_threads));
  ModelRepositoryOptions options = ModelRepositoryOptions::From(config);
  options.threads = {static_cast<int>(evaluation_threads) + 1, team.get(), config.split_candidates(),
                     config.routing_sample()};
  options.start_threads = static_cast<int>(evaluation_threads);  // nothing else runs yet
  HILOMOE_ASSIGN_OR_RETURN(repository, ModelRepository::Start(std::move(options)));
  metrics->WatchRepository(repository.get());
  repository->Listen([this] { ShowModels(); });
  ShowModels();
  return absl::OkStatus();
}

void Server::State::ShowModels() {
  const std::lock_guard lock(shown_mutex);
  const std::shared_ptr<const ModelTable> table = repository->table();
  std::set<std::string> served;
  for (const auto& model : table->models()) {
    metrics->Add(model->shared_metrics());
    served.insert(absl::StrCat("models/", model->name()));
  }
  for (const std::string& name : served) health.Set(name, true);
  for (const std::string& name : shown) {
    if (served.count(name) == 0) health.Set(name, false);
  }
  shown.insert(served.begin(), served.end());
  for (const char* service : {kScoringServiceName, kInferenceServiceName}) health.Set(service, !served.empty());
}

absl::Status Server::State::StartRecording(const v1::ServerConfig& config, uint32_t evaluation_threads) {
  const int serving_threads = static_cast<int>(evaluation_threads) + 1;
  log = std::make_unique<RequestLog>(
      RequestLog::Options{config.request_log_sample(), config.request_log_errors_per_second(), serving_threads});
  if (config.capture_path().empty()) return absl::OkStatus();
  HILOMOE_ASSIGN_OR_RETURN(capture, RequestCapture::Start({config.capture_path(), config.capture_sample(),
                                                           config.capture_max_bytes(), serving_threads}));
  metrics->WatchCapture(capture.get());
  return absl::OkStatus();
}

// Which service is on which port. Health is on all of them, reflection on all but the probe port.
absl::Status Server::State::BuildPorts(const v1::ServerConfig& config, uint32_t evaluation_threads) {
  scoring = std::make_unique<ScoringService>();
  public_port->builder().RegisterService(scoring->grpc_service());
  inference = std::make_unique<InferenceService>();
  public_port->builder().RegisterService(inference->grpc_service());
  loop = std::make_unique<CallLoop>(public_port->builder().AddCompletionQueue(), evaluation_threads,
                                    config.max_queued_candidates());
  if (admin_port != nullptr) {
    admin = std::make_unique<AdminService>(repository.get(), metrics.get());
    admin_port->builder().RegisterService(admin.get());
  }

  for (GrpcPort* port : {public_port.get(), admin_port.get(), probe_port.get()}) {
    if (port == nullptr) continue;
    HILOMOE_RETURN_IF_ERROR(port->Build());
    health.Attach(port->server().GetHealthCheckService());
  }
  const ScoringService::Limits limits{config.max_candidates(), config.max_queue_ms()};
  const MethodDependencies dependencies{loop.get(), repository.get(), metrics.get(), log.get(), capture.get()};
  scoring->Connect(limits, dependencies);
  inference->Connect(limits, dependencies);
  metrics->WatchAdmission(&loop->admission());
  std::vector<RpcMethod*> methods = scoring->methods();
  for (RpcMethod* method : inference->methods()) methods.push_back(method);
  const absl::Status started = loop->Start(methods);
  serving = loop->started();
  return started;
}

absl::Status Server::State::OpenPorts() {
  health.Set("", true);
  for (GrpcPort* port : {public_port.get(), admin_port.get(), probe_port.get()}) {
    if (port != nullptr) HILOMOE_RETURN_IF_ERROR(port->Open());
  }
  metrics->SetReady(true);
  return absl::OkStatus();
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::BuildAndStart(const ServerOptions& options) {
  const v1::ServerConfig& config = options.config;
  const uint32_t evaluation_threads =
      config.evaluation_threads() > 0 ? config.evaluation_threads() : static_cast<uint32_t>(UsableCpuCount());
  auto server = std::unique_ptr<Server>(new Server(std::make_unique<State>()));
  State& state = *server->state_;
  state.metrics = std::make_shared<ServerMetrics>(static_cast<int>(evaluation_threads) + 1);
  HILOMOE_ASSIGN_OR_RETURN(state.metrics_port, MetricsPort::Open(config.metrics_address()));
  state.metrics_port->Add(state.metrics);
  HILOMOE_RETURN_IF_ERROR(state.BindPorts(config));
  HILOMOE_RETURN_IF_ERROR(state.StartRecording(config, evaluation_threads));
  HILOMOE_RETURN_IF_ERROR(state.LoadModels(config, evaluation_threads));
  HILOMOE_RETURN_IF_ERROR(state.BuildPorts(config, evaluation_threads));
  HILOMOE_RETURN_IF_ERROR(state.OpenPorts());
  return server;
}

Server::~Server() {
  Shutdown(std::chrono::milliseconds(0));
  // Scrapes read the loop.
  state_->metrics_port.reset();
}

int Server::listen_port() const { return state_->public_port->port(); }
int Server::metrics_port() const { return state_->metrics_port->port(); }
int Server::admin_port() const { return state_->admin_port ? state_->admin_port->port() : 0; }
int Server::probe_port() const { return state_->probe_port ? state_->probe_port->port() : 0; }

void Server::ReloadCertificates() {
  for (const auto& certificates : state_->certificates) certificates->Reload();
}

void Server::StartDraining() {
  state_->metrics->SetReady(false);
  state_->metrics->SetDraining(true);
  state_->health.StartDraining();
}

bool Server::Shutdown(std::chrono::milliseconds grace) {
  State& state = *state_;
  const auto deadline = std::chrono::system_clock::now() + grace;
  bool in_time = true;
  if (std::exchange(state.serving, false)) {
    // Then nothing has to be cancelled, though gRPC takes its time to give back the calls that it was asked for.
    const bool idle = state.loop->CallsUnderWay() == 0;
    std::thread shutdown([&state, deadline] { state.public_port->Shutdown(deadline); });
    state.loop->WaitForCalls();
    in_time = idle || std::chrono::system_clock::now() < deadline;
    // What is still open are streams of health and reflection, which last as long as their clients like.
    state.public_port->CancelCalls();
    shutdown.join();
    state.loop->Stop();
  }
  // Nothing is told any more, and loads that an admin waits for end.
  if (state.repository != nullptr) state.repository->Stop();
  state.health.Clear();
  state.admin_port.reset();
  state.probe_port.reset();
  return in_time;
}

}  // namespace hilomoe
