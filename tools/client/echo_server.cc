#include "tools/client/echo_server.h"

#include <atomic>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"

namespace hilomoe {
namespace {

constexpr int kPostedCalls = 256;

using Service = v1::ScoringService::WithRawMethod_Score<v1::ScoringService::Service>;

// So much of this thread's own time: being preempted does not count.
void Work(int us) {
  if (us == 0) return;
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
  };
  for (const int64_t end = now() + int64_t{1000} * us; now() < end;) {
  }
}

class CallbackService final : public v1::ScoringService::WithRawCallbackMethod_Score<v1::ScoringService::Service> {
 public:
  CallbackService(const grpc::ByteBuffer* response, int work_us) : response_(response), work_us_(work_us) {}

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                  grpc::ByteBuffer* response) override {
    Work(work_us_);
    *response = *response_;
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const grpc::ByteBuffer* const response_;
  const int work_us_;
};

class EchoCall {
 public:
  EchoCall(Service* service, grpc::ServerCompletionQueue* queue, const grpc::ByteBuffer* response, int work_us)
      : service_(service), queue_(queue), response_(response), work_us_(work_us) {
    Post();
  }

  // False: the server has been shut down, and no further event will come of this call.
  bool Advance(bool ok) {
    if (!answering_ && !ok) return false;
    if (answering_) {
      Post();
    } else {
      answering_ = true;
      Work(work_us_);
      responder_->Finish(*response_, grpc::Status::OK, this);
    }
    return true;
  }

 private:
  void Post() {
    answering_ = false;
    request_.Clear();
    responder_.reset();
    context_.emplace();
    responder_.emplace(&*context_);
    service_->RequestScore(&*context_, &request_, &*responder_, queue_, queue_, this);
  }

  Service* const service_;
  grpc::ServerCompletionQueue* const queue_;
  const grpc::ByteBuffer* const response_;
  const int work_us_;
  std::optional<grpc::ServerContext> context_;
  std::optional<grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>> responder_;
  grpc::ByteBuffer request_;
  bool answering_ = false;
};

void Serve(grpc::ServerCompletionQueue* queue, std::atomic<int>* calls) {
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) {
    auto* const call = static_cast<EchoCall*>(tag);
    if (call->Advance(ok)) continue;
    delete call;
    if (calls->fetch_sub(1) == 1) calls->notify_all();
  }
}

}  // namespace

struct EchoServer::State {
  Service service;
  std::unique_ptr<CallbackService> callback_service;  // in place of `service`
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<grpc::Server> server;
  grpc::ByteBuffer response;
  std::atomic<int> calls = 0;
  std::vector<std::thread> threads;
  int port = 0;
};

EchoServer::EchoServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<EchoServer>> EchoServer::Start(const EchoOptions& options) {
  auto state = std::make_unique<State>();
  v1::ScoreResponse response;
  response.set_model("echo");
  response.set_version(1);
  for (uint32_t i = 0; i < options.candidates; ++i) response.add_scores(0.5F);
  const std::string bytes = response.SerializeAsString();
  const grpc::Slice slice(bytes);
  state->response = grpc::ByteBuffer(&slice, 1);

  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.listen_address, grpc::InsecureServerCredentials(), &state->port);
  if (options.callback) {
    state->callback_service = std::make_unique<CallbackService>(&state->response, options.work_us);
    builder.RegisterService(state->callback_service.get());
  } else {
    builder.RegisterService(&state->service);
    state->queue = builder.AddCompletionQueue();
  }
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two servers on one port would share its connections
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || state->port == 0) {
    if (state->server != nullptr) state->server->Shutdown();
    if (state->queue != nullptr) {
      state->queue->Shutdown();
      Serve(state->queue.get(), &state->calls);
    }
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen_address));
  }
  if (options.callback) return std::unique_ptr<EchoServer>(new EchoServer(std::move(state)));
  state->calls = kPostedCalls;
  for (int i = 0; i < kPostedCalls; ++i) {
    new EchoCall(&state->service, state->queue.get(), &state->response, options.work_us);
  }
  for (int i = 0; i < options.threads; ++i) {
    state->threads.emplace_back(Serve, state->queue.get(), &state->calls);
  }
  return std::unique_ptr<EchoServer>(new EchoServer(std::move(state)));
}

EchoServer::~EchoServer() {
  state_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  if (state_->queue != nullptr) {
    // gRPC aborts when a call is asked for on a queue that is shut down.
    for (int calls = state_->calls; calls != 0; calls = state_->calls) state_->calls.wait(calls);
    state_->queue->Shutdown();
  }
  for (std::thread& thread : state_->threads) thread.join();
}

int EchoServer::port() const { return state_->port; }

}  // namespace hilomoe
