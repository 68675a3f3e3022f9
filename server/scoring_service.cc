#include "server/scoring_service.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "server/grpc_status.h"
#include "server/score_request_adapter.h"

namespace hilomoe {
namespace {

using Clock = AsyncCall::Clock;

uint64_t Nanoseconds(Clock::duration duration) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count());
}

// Ends calls and counts how they ended.
class Endings {
 public:
  Endings(Method method, ServerMetrics* metrics) : method_(static_cast<int>(method)), metrics_(metrics) {}

  void Start(int thread) const { metrics_->shard(thread).started.Add(); }

  void Reply(AsyncCall* call, int thread, const google::protobuf::Message& response) const {
    grpc::ByteBuffer bytes;
    bool own = false;
    const grpc::Status serialized =
        grpc::SerializationTraits<google::protobuf::Message>::Serialize(response, &bytes, &own);
    Count(call, thread, serialized.error_code());
    serialized.ok() ? call->Reply(bytes) : call->Fail(serialized);
  }

  void Fail(AsyncCall* call, int thread, const absl::Status& status) const {
    Count(call, thread, static_cast<int>(status.code()));
    call->Fail(ToGrpcStatus(status));
  }

  void Shed(AsyncCall* call, int thread, ShedReason reason, const absl::Status& status) const {
    metrics_->shard(thread).shed[static_cast<int>(reason)].Add();
    Fail(call, thread, status);
  }

  // A call that nobody waits for any more is ended here. False: it is to be evaluated.
  bool ShedIfLate(AsyncCall* call, int thread, ShedReason late) const {
    if (call->cancelled()) {
      Shed(call, thread, ShedReason::kCancelled, absl::CancelledError("the client has cancelled the request"));
    } else if (call->deadline_passed()) {
      Shed(call, thread, late, absl::DeadlineExceededError("the deadline passed before the request was evaluated"));
    } else {
      return false;
    }
    return true;
  }

 private:
  void Count(AsyncCall* call, int thread, int code) const {
    ServerMetrics::Shard& shard = metrics_->shard(thread);
    RequestCounters& counters = call->model ? call->model->metrics(thread).requests : shard.without_model;
    counters[method_][code].Add();
    shard.finished.Add();
  }

  const int method_;
  ServerMetrics* const metrics_;
};

}  // namespace

class ScoringService::Rpcs : public v1::ScoringService::WithRawMethod_Score<
                                 v1::ScoringService::WithRawMethod_GetModel<v1::ScoringService::Service>> {};

class ScoringService::ScoreMethod : public AsyncMethod {
 public:
  ScoreMethod(Rpcs* rpcs, uint32_t max_candidates) : rpcs_(rpcs), max_candidates_(max_candidates) {}

  void Connect(const Dependencies& dependencies) {
    loop_ = dependencies.loop;
    endings_ = std::make_unique<Endings>(Method::kScore, dependencies.metrics);
    for (int i = 0; i < loop_->serving_threads(); ++i)
      locals_.push_back(std::make_unique<Local>(*dependencies.repository));
  }

  void Request(grpc::ServerContext* context, grpc::ByteBuffer* request, AsyncResponder* responder,
               grpc::ServerCompletionQueue* queue, void* tag) override {
    rpcs_->RequestScore(context, request, responder, queue, queue, tag);
  }

  void Arrive(AsyncCall* call, int thread) override {
    endings_->Start(thread);
    if (endings_->ShedIfLate(call, thread, ShedReason::kLateOnArrival)) return;
    if (const absl::Status status = Accept(call, locals_[thread].get()); !status.ok()) {
      endings_->Fail(call, thread, status);
      return;
    }
    if (loop_->Admit(call, thread)) return;
    endings_->Shed(
        call, thread, ShedReason::kQueueFull,
        absl::ResourceExhaustedError("too many candidates wait (max_queued_candidates); retry with backoff"));
  }

  void Evaluate(AsyncCall* call, int thread) override {
    if (endings_->ShedIfLate(call, thread, ShedReason::kLateInQueue)) return;
    Local& local = *locals_[thread];
    // Kept beyond the call, which is no longer ours once it is answered.
    const std::shared_ptr<const ServedModel> model = call->model;
    ModelMetrics::Shard& metrics = model->metrics(thread);
    const Clock::time_point arrived = call->arrived(), start = Clock::now();
    metrics.stage_ns[static_cast<int>(Stage::kQueue)].Record(Nanoseconds(start - arrived));

    PredictTimes times;
    const absl::Status status = Score(call, thread, start, &local, &metrics, &times);
    Workspace& workspace = *model->workspace(thread);
    metrics.Take(&workspace.counts);
    metrics.split_requests.Add(std::exchange(workspace.split_requests, 0));
    const Clock::time_point scored = Clock::now();
    if (status.ok()) {
      metrics.candidates.Add(local.adapter.view().num_candidates);
      metrics.request_candidates.Record(local.adapter.view().num_candidates);
      metrics.stage_ns[static_cast<int>(Stage::kEncode)].Record(times.encode_ns);
      metrics.stage_ns[static_cast<int>(Stage::kEvaluate)].Record(times.evaluate_ns);
      endings_->Reply(call, thread, local.response);
    } else {
      endings_->Fail(call, thread, status);
    }
    const Clock::time_point replied = Clock::now();
    metrics.stage_ns[static_cast<int>(Stage::kReply)].Record(Nanoseconds(replied - scored));
    metrics.request_duration_ns.Record(Nanoseconds(replied - arrived));
    local.adapter.Recycle();
  }

 private:
  // What a serving thread uses again for every request.
  struct Local {
    explicit Local(const ModelRepository& repository) : models(repository) {}
    ModelTableReader models;
    ScoreRequestHead head;
    ScoreRequestAdapter adapter;
    v1::ScoreResponse response;
  };

  // Refuses without parsing the columns; finds the model and the weight.
  absl::Status Accept(AsyncCall* call, Local* local) const {
    grpc::ProtoBufferReader bytes(call->request());
    ScoreRequestHead& head = local->head;
    if (const absl::Status status = ReadScoreRequestHead(&bytes, &head); !status.ok()) return status;
    absl::StatusOr<std::shared_ptr<const ServedModel>> model = local->models.Find(head.model, head.version);
    if (!model.ok()) return model.status();
    call->model = *std::move(model);
    if (head.num_candidates > max_candidates_) {
      return absl::InvalidArgumentError(absl::StrCat("num_candidates: ", head.num_candidates, " is more than ",
                                                     max_candidates_, " (max_candidates); split the request"));
    }
    const size_t weight = std::max<size_t>(head.num_candidates, call->request()->Length() / kBytesPerQueuedCandidate);
    call->candidates = static_cast<uint32_t>(std::max<size_t>(weight, 1));
    return absl::OkStatus();
  }

  // Fills local->response.
  absl::Status Score(AsyncCall* call, int thread, Clock::time_point start, Local* local, ModelMetrics::Shard* metrics,
                     PredictTimes* times) const {
    grpc::ProtoBufferReader bytes(call->request());
    if (const absl::Status status = local->adapter.Parse(&bytes); !status.ok()) return status;
    const uint64_t decode_ns = Nanoseconds(Clock::now() - start);
    metrics->stage_ns[static_cast<int>(Stage::kDecode)].Record(decode_ns);

    v1::ScoreResponse& response = local->response;
    response.Clear();
    const ServedModel& model = *call->model;
    const RequestView& view = local->adapter.view();
    response.mutable_scores()->Resize(static_cast<int>(view.num_candidates), 0);
    const absl::Span<float> scores(response.mutable_scores()->mutable_data(), view.num_candidates);
    if (view.num_candidates > 0) {
      const absl::Status status = model.predictor().Predict(view, model.workspace(thread), scores, times);
      if (!status.ok()) return status;
    }
    if (const absl::Status status = model.CheckIntact(); !status.ok()) return status;
    response.set_model(model.name());
    response.set_version(model.version());
    if (local->adapter.request().options().timings()) {
      response.mutable_timings()->set_decode_ns(decode_ns);
      response.mutable_timings()->set_encode_ns(times->encode_ns);
      response.mutable_timings()->set_evaluate_ns(times->evaluate_ns);
    }
    return absl::OkStatus();
  }

  Rpcs* const rpcs_;
  const uint32_t max_candidates_;
  CallLoop* loop_ = nullptr;
  std::unique_ptr<Endings> endings_;
  std::vector<std::unique_ptr<Local>> locals_;  // per serving thread
};

class ScoringService::GetModelMethod : public AsyncMethod {
 public:
  explicit GetModelMethod(Rpcs* rpcs) : rpcs_(rpcs) {}

  void Connect(const Dependencies& dependencies) {
    repository_ = dependencies.repository;
    endings_ = std::make_unique<Endings>(Method::kGetModel, dependencies.metrics);
  }

  void Request(grpc::ServerContext* context, grpc::ByteBuffer* request, AsyncResponder* responder,
               grpc::ServerCompletionQueue* queue, void* tag) override {
    rpcs_->RequestGetModel(context, request, responder, queue, queue, tag);
  }

  void Arrive(AsyncCall* call, int thread) override {
    endings_->Start(thread);
    v1::GetModelRequest request;
    grpc::ProtoBufferReader bytes(call->request());
    if (!request.ParseFromZeroCopyStream(&bytes)) {
      endings_->Fail(call, thread,
                     absl::InvalidArgumentError("the request's bytes are not a hilomoe.v1.GetModelRequest"));
      return;
    }
    absl::StatusOr<std::shared_ptr<const ServedModel>> model =
        repository_->table()->Find(request.model(), request.version());
    if (!model.ok()) {
      endings_->Fail(call, thread, model.status());
      return;
    }
    call->model = *std::move(model);
    const v1::ModelFileHeader& header = call->model->predictor().file().header();
    v1::GetModelResponse response;
    response.set_model(call->model->name());
    response.set_version(call->model->version());
    *response.mutable_config() = header.config();
    response.set_created(header.provenance().created());
    response.set_created_by(header.provenance().created_by());
    response.set_label(header.provenance().label());
    response.set_group_by(header.provenance().group_by());
    endings_->Reply(call, thread, response);
  }

  // Never admitted: it costs nothing to speak of.
  void Evaluate(AsyncCall*, int) override {}

 private:
  Rpcs* const rpcs_;
  const ModelRepository* repository_ = nullptr;
  std::unique_ptr<Endings> endings_;
};

ScoringService::ScoringService(uint32_t max_candidates)
    : rpcs_(std::make_unique<Rpcs>()),
      score_(std::make_unique<ScoreMethod>(rpcs_.get(), max_candidates)),
      get_model_(std::make_unique<GetModelMethod>(rpcs_.get())) {}

ScoringService::~ScoringService() = default;

grpc::Service* ScoringService::grpc_service() { return rpcs_.get(); }

void ScoringService::Connect(const Dependencies& dependencies) {
  score_->Connect(dependencies);
  get_model_->Connect(dependencies);
}

std::vector<AsyncMethod*> ScoringService::methods() { return {score_.get(), get_model_.get()}; }

}  // namespace hilomoe
