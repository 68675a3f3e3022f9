#include "server/scoring.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/proto_buffer_reader.h"

namespace hilomoe {
namespace {

using Clock = Call::Clock;

uint64_t Nanoseconds(Clock::duration duration) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count());
}

}  // namespace

Scoring::Scoring(const Options& options, const MethodDependencies& dependencies)
    : options_(options),
      loop_(dependencies.loop),
      capture_(dependencies.capture),
      endings_(options.method, dependencies.metrics, dependencies.log) {
  for (int i = 0; i < loop_->serving_threads(); ++i) {
    locals_.push_back(std::make_unique<Local>(*dependencies.repository));
    locals_.back()->protocol = options_.protocol();
  }
}

void Scoring::Arrive(Call* call, int thread) {
  endings_.Start(thread);
  call->StartRequest();  // a stream's last request is over
  if (capture_ != nullptr) {
    capture_->Offer(thread, ScoringMethodPath(options_.method), call->arrived(), call->time_left(), *call->request());
  }
  if (ShedIfLate(call, thread, ShedReason::kLateOnArrival)) return;
  if (const absl::Status status = Accept(call, locals_[static_cast<size_t>(thread)].get()); !status.ok()) {
    Fail(call, thread, status);
    return;
  }
  call->patient = options_.stream;
  if (!options_.stream && ShedIfTooLong(call, thread)) return;
  if (loop_->Admit(call, thread)) return;
  ShedForLater(call, thread, ShedReason::kQueueFull, loop_->EstimateWaitNs());
}

void Scoring::Evaluate(Call* call, int thread) {
  if (ShedIfLate(call, thread, ShedReason::kLateInQueue)) return;
  Local& local = *locals_[static_cast<size_t>(thread)];
  // Kept beyond the call, which is no longer ours once it is answered.
  const std::shared_ptr<const ServedModel> model = call->model;
  ModelMetrics::Shard& metrics = model->metrics(thread);
  const double weight = call->candidates;
  const Clock::time_point arrived = call->arrived(), start = Clock::now();
  const auto record = [&](Stage stage, uint64_t ns) {
    metrics.stage_ns[static_cast<size_t>(stage)].Record(ns);
    call->stage_ns[static_cast<size_t>(stage)] = ns;
  };
  // Streams wait behind all others by design, and would hide how long those wait.
  call->stage_ns[static_cast<size_t>(Stage::kQueue)] = Nanoseconds(start - arrived);
  if (!options_.stream) record(Stage::kQueue, Nanoseconds(start - arrived));

  ScoreTimes times;
  const google::protobuf::Message* response = nullptr;
  const absl::Status status = Score(call, thread, start, &local, &metrics, &response, &times);
  Workspace& workspace = *model->workspace(thread);
  metrics.Take(&workspace.counts);
  metrics.split_requests.Add(std::exchange(workspace.split_requests, 0));
  const Clock::time_point scored = Clock::now();
  if (status.ok()) {
    const size_t candidates = local.protocol->view().num_candidates;
    metrics.candidates.Add(candidates);
    metrics.request_candidates.Record(candidates);
    call->num_candidates = static_cast<uint32_t>(candidates);
    record(Stage::kEncode, times.encode_ns);
    record(Stage::kEvaluate, times.evaluate_ns);
    endings_.Reply(call, thread, *response);
  } else if (!absl::IsCancelled(status) || !ShedIfLate(call, thread, ShedReason::kLateInEvaluation)) {
    Fail(call, thread, status);
  }
  const Clock::time_point replied = Clock::now();
  if (status.ok()) loop_->RecordCost(thread, weight, static_cast<double>(Nanoseconds(replied - start)));
  metrics.stage_ns[static_cast<int>(Stage::kReply)].Record(Nanoseconds(replied - scored));
  metrics.request_duration_ns[static_cast<size_t>(options_.method)].Record(Nanoseconds(replied - arrived));
  local.protocol->Recycle();
}

// A call that nobody waits for any more is ended here. False: it is to be evaluated.
bool Scoring::ShedIfLate(Call* call, int thread, ShedReason late) {
  // A deadline that has passed cancels, too.
  if (call->time_left() < std::chrono::nanoseconds(0)) {
    endings_.Shed(call, thread, late, absl::DeadlineExceededError("the deadline passed before all was evaluated"));
  } else if (call->cancelled()) {
    endings_.Shed(call, thread, ShedReason::kCancelled, absl::CancelledError("the client has cancelled the request"));
  } else {
    return false;
  }
  return true;
}

// A call that would have to wait for longer than its client, or than is sensible.
bool Scoring::ShedIfTooLong(Call* call, int thread) {
  const double wait_ns = loop_->EstimateWaitNs();
  const bool overload = loop_->overload().Refuses(wait_ns, 1e6 * options_.max_queue_ms, call->arrived());
  if (wait_ns <= 0) return false;  // an estimate alone refuses nobody while the server can try
  if (overload) {
    ShedForLater(call, thread, ShedReason::kQueueFull, wait_ns);
  } else if (static_cast<double>(call->time_left().count()) < wait_ns + loop_->EstimateEvaluationNs(call->candidates)) {
    ShedForLater(call, thread, ShedReason::kDeadlineOutOfReach, wait_ns);
  } else {
    return false;
  }
  return true;
}

void Scoring::ShedForLater(Call* call, int thread, ShedReason reason, double wait_ns) {
  const uint64_t ms = std::max<uint64_t>(static_cast<uint64_t>(std::ceil(wait_ns / 1e6)), 1);
  call->context().AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(ms));
  endings_.Shed(call, thread, reason,
                absl::ResourceExhaustedError(
                    reason == ShedReason::kDeadlineOutOfReach
                        ? "too many candidates wait for this request to meet its deadline; retry with backoff"
                        : "too many candidates wait (max_queue_ms, max_queued_candidates); retry with backoff"));
}

void Scoring::Fail(Call* call, int thread, const absl::Status& status) {
  const google::protobuf::Message* response =
      options_.stream ? locals_[static_cast<size_t>(thread)]->protocol->FailureResponse(status) : nullptr;
  if (response == nullptr) {
    endings_.Fail(call, thread, status);
    return;
  }
  endings_.Count(*call, thread, status);
  grpc::ByteBuffer bytes;
  const grpc::Status serialized = Serialize(*response, &bytes);
  serialized.ok() ? call->Reply(bytes) : call->Fail(serialized);
}

// Refuses without parsing the columns; finds the model and the weight.
absl::Status Scoring::Accept(Call* call, Local* local) const {
  grpc::ProtoBufferReader bytes(call->request());
  RequestHead& head = local->head;
  if (const absl::Status status = local->protocol->ReadHead(&bytes, &head); !status.ok()) return status;
  absl::StatusOr<std::shared_ptr<const ServedModel>> model = local->models.Find(head.model, head.version, head.label);
  if (!model.ok()) return model.status();
  call->model = *std::move(model);
  call->num_candidates = head.num_candidates;
  if (head.num_candidates > options_.max_candidates) {
    return absl::InvalidArgumentError(absl::StrCat(head.num_candidates, " candidates are more than ",
                                                   options_.max_candidates, " (max_candidates); split the request"));
  }
  const size_t weight = std::max<size_t>(head.num_candidates, call->request()->Length() / kBytesPerQueuedCandidate);
  call->candidates = static_cast<uint32_t>(std::max<size_t>(weight, 1));
  return absl::OkStatus();
}

absl::Status Scoring::Score(Call* call, int thread, Clock::time_point start, Local* local, ModelMetrics::Shard* metrics,
                            const google::protobuf::Message** response, ScoreTimes* times) const {
  WireProtocol& protocol = *local->protocol;
  const ServedModel& model = *call->model;
  grpc::ProtoBufferReader bytes(call->request());
  const absl::Status parsed = protocol.Parse(&bytes, model.predictor().file().spec());
  if (!parsed.ok()) return parsed;
  times->decode_ns = Nanoseconds(Clock::now() - start);
  metrics->stage_ns[static_cast<size_t>(Stage::kDecode)].Record(times->decode_ns);
  call->stage_ns[static_cast<size_t>(Stage::kDecode)] = times->decode_ns;

  const RequestView& view = protocol.view();
  const absl::Span<float> scores = protocol.StartResponse();
  if (!scores.empty()) {
    PredictTimes predict_times;
    const absl::Status status = model.predictor().Predict(
        view, model.workspace(thread), scores, &predict_times,
        [call] { return call->cancelled() || call->time_left() < std::chrono::nanoseconds(0); });
    if (!status.ok()) return status;
    times->encode_ns = predict_times.encode_ns;
    times->evaluate_ns = predict_times.evaluate_ns;
  }
  if (const absl::Status status = model.CheckIntact(); !status.ok()) return status;
  metrics->scores.Record(scores);
  *response = &protocol.FinishResponse(model, *times);
  return absl::OkStatus();
}

}  // namespace hilomoe
