#include "server/server_metrics.h"

#include <algorithm>
#include <string>
#include <utility>

#include "grpcpp/grpcpp.h"
#include "runtime/cgroup.h"
#include "server/log.h"
#include "server/metric_families.h"
#include "server/process_metrics.h"
#include "server/repository_metrics.h"
#include "server/routing_metrics.h"

namespace hilomoe {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr double kSecondsPerNs = 1e-9;
// Shown from the start, so that their first increment is seen as one; other codes appear when they occur.
constexpr int kExpectedCodes[] = {0, 1, 3, 4, 5, 8, 13, 14};

// The cells of all threads; `get` picks one out of a shard.
template <typename Shards, typename Get>
uint64_t Sum(const Shards& shards, const Get& get) {
  uint64_t sum = 0;
  for (const auto& shard : shards) sum += get(*shard).value();
  return sum;
}

// Bounds and sum are multiplied by `unit`.
template <typename Get>
void AddHistogram(Labels labels, const ModelMetrics& model, const Get& get, double unit, MetricFamily* family) {
  ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  const HistogramBounds bounds = get(*model.shards().front()).bounds();
  uint64_t cumulative = 0;
  for (size_t i = 0; i <= bounds.size(); ++i) {
    for (const auto& shard : model.shards()) cumulative += get(*shard).count(i);
    if (i < bounds.size()) metric.histogram.bucket.push_back({cumulative, static_cast<double>(bounds[i]) * unit});
  }
  uint64_t sum = 0;
  for (const auto& shard : model.shards()) sum += get(*shard).sum();
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = static_cast<double>(sum) * unit;
}

// `get` gives a shard's RequestCounters.
template <typename Shards, typename Get>
void AddRequests(const Labels& labels, const Shards& shards, const Get& get, MetricFamily* family) {
  for (int method = 0; method < kMethods; ++method) {
    const Labels of_method = With(labels, "method", kMethodNames[method]);
    for (int code = 0; code < kStatusCodes; ++code) {
      const uint64_t n = Sum(shards, [&](const auto& shard) -> const Counter& { return get(shard)[method][code]; });
      bool shown = n > 0;
      for (const int expected : kExpectedCodes) shown = shown || code == expected;
      if (shown) AddCounter(With(of_method, "code", kStatusCodeNames[code]), n, family);
    }
  }
}

void AddScores(Labels labels, const ModelMetrics& model, MetricFamily* family) {
  ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  ClientMetric::Histogram& histogram = metric.histogram;
  // What is counted between two reads must not make a bucket smaller than the one before.
  uint64_t count = 0;
  for (size_t i = 0; i < ScoreHistogram::kBounds.size(); ++i) {
    uint64_t at_most = 0;
    for (const auto& shard : model.shards()) at_most += shard->scores.at_most(i);
    count = std::max(count, at_most);
    histogram.bucket.push_back({count, ScoreHistogram::kBounds[i]});
  }
  uint64_t all = 0;
  for (const auto& shard : model.shards()) {
    all += shard->scores.count();
    histogram.sample_sum += shard->scores.sum();
  }
  histogram.sample_count = std::max(count, all);
}

void AddFeatures(const ModelMetrics& model, std::vector<Counter> ModelMetrics::Shard::*counters, MetricFamily* family) {
  const Labels labels = ModelLabels(model);
  for (size_t f = 0; f < model.facts().features.size(); ++f) {
    const uint64_t n =
        Sum(model.shards(), [&](const ModelMetrics::Shard& shard) -> const Counter& { return (shard.*counters)[f]; });
    AddCounter(With(labels, "feature", model.facts().features[f]), n, family);
  }
}

template <typename Models>
void CollectModels(const Models& models, Families* families) {
  using Shard = ModelMetrics::Shard;
  MetricFamily candidates{"hilomoe_candidates_total", "Candidates scored.", MetricType::Counter, {}};
  MetricFamily split{
      "hilomoe_split_requests_total", "Requests scored by more than one thread.", MetricType::Counter, {}};
  MetricFamily unknown{
      "hilomoe_unknown_features_total", "Columns that the model does not know; ignored.", MetricType::Counter, {}};
  MetricFamily scores{"hilomoe_score", "Scores given, by candidate.", MetricType::Histogram, {}};
  MetricFamily sizes{"hilomoe_request_candidates", "Candidates of a scored request.", MetricType::Histogram, {}};
  MetricFamily durations{"hilomoe_request_duration_seconds",
                         "From the arrival of a request that is evaluated until its answer is with gRPC.",
                         MetricType::Histogram,
                         {}};
  MetricFamily stages{
      "hilomoe_stage_duration_seconds", "Duration of one stage of a request.", MetricType::Histogram, {}};
  MetricFamily values{"hilomoe_feature_values_total", "Ids and numbers seen.", MetricType::Counter, {}};
  MetricFamily unseen{
      "hilomoe_feature_out_of_vocabulary_total", "Ids without a row of their own.", MetricType::Counter, {}};
  MetricFamily missing{"hilomoe_feature_missing_total", "Rows without a value.", MetricType::Counter, {}};
  MetricFamily info{"hilomoe_model_info", "A served model; always 1.", MetricType::Gauge, {}};
  MetricFamily bytes{"hilomoe_model_bytes",
                     "Of the model file, in memory or mapped, and packed copies of weights.",
                     MetricType::Gauge,
                     {}};
  MetricFamily created{
      "hilomoe_model_created_timestamp_seconds", "When the model file was made; 0 = unknown.", MetricType::Gauge, {}};
  MetricFamily loaded{"hilomoe_model_loaded_timestamp_seconds", "When the model was loaded.", MetricType::Gauge, {}};
  MetricFamily load{"hilomoe_model_load_duration_seconds", "How long loading took.", MetricType::Gauge, {}};
  for (const auto& shared : models) {
    const ModelMetrics& model = *shared;
    const ModelFacts& facts = model.facts();
    const Labels labels = ModelLabels(model);
    AddCounter(labels, Sum(model.shards(), [](const Shard& s) -> const Counter& { return s.candidates; }), &candidates);
    AddCounter(labels, Sum(model.shards(), [](const Shard& s) -> const Counter& { return s.split_requests; }), &split);
    AddCounter(labels, Sum(model.shards(), [](const Shard& s) -> const Counter& { return s.unknown_features; }),
               &unknown);
    AddScores(labels, model, &scores);
    AddHistogram(
        labels, model, [](const Shard& s) -> const Histogram& { return s.request_candidates; }, 1, &sizes);
    for (const Method method : {Method::kScore, Method::kScoreStream, Method::kModelInfer}) {
      const int i = static_cast<int>(method);
      AddHistogram(
          With(labels, "method", kMethodNames[i]), model,
          [i](const Shard& s) -> const Histogram& { return s.request_duration_ns[i]; }, kSecondsPerNs, &durations);
    }
    for (int i = 0; i < kStages; ++i) {
      AddHistogram(
          With(labels, "stage", kStageNames[i]), model,
          [i](const Shard& s) -> const Histogram& { return s.stage_ns[i]; }, kSecondsPerNs, &stages);
    }
    AddFeatures(model, &Shard::values, &values);
    AddFeatures(model, &Shard::out_of_vocabulary, &unseen);
    AddFeatures(model, &Shard::missing, &missing);
    AddGauge(With(With(labels, "created_by", facts.created_by), "instruction_set", facts.instruction_set), 1, &info);
    AddGauge(labels, static_cast<double>(facts.bytes), &bytes);
    AddGauge(labels, facts.created_seconds, &created);
    AddGauge(labels, facts.loaded_seconds, &loaded);
    AddGauge(labels, facts.load_duration_seconds, &load);
  }
  for (MetricFamily* family : {&candidates, &split, &unknown, &scores, &sizes, &durations, &stages, &values, &unseen,
                               &missing, &info, &bytes, &created, &loaded, &load}) {
    families->push_back(std::move(*family));
  }
}

}  // namespace

ServerMetrics::ServerMetrics(int serving_threads) {
  for (int i = 0; i < serving_threads; ++i) shards_.push_back(std::make_unique<Shard>());
}

void ServerMetrics::Add(const std::shared_ptr<const ModelMetrics>& model) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(models_, [&model](const auto& other) {
    const auto shown = other.lock();
    return shown != nullptr && shown->facts().name == model->facts().name &&
           shown->facts().version == model->facts().version;
  });
  models_.push_back(model);
}

ServerMetrics::Models ServerMetrics::LiveModels() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(models_, [](const auto& model) { return model.expired(); });
  Models live;
  for (const auto& model : models_) {
    if (auto locked = model.lock()) live.push_back(std::move(locked));
  }
  return live;
}

void ServerMetrics::CollectRequests(const Models& models, Families* families) const {
  MetricFamily& requests = AddFamily("hilomoe_requests_total", "Requests answered, by method, model and status code.",
                                     MetricType::Counter, families);
  AddRequests(
      {{"model", ""}, {"version", ""}}, shards_,
      [](const Shard& shard) -> const RequestCounters& { return shard.without_model; }, &requests);
  for (const auto& model : models) {
    AddRequests(
        ModelLabels(*model), model->shards(),
        [](const ModelMetrics::Shard& shard) -> const RequestCounters& { return shard.requests; }, &requests);
  }
  MetricFamily& shed = AddFamily("hilomoe_requests_shed_total", "Requests ended without a full evaluation, by reason.",
                                 MetricType::Counter, families);
  for (int i = 0; i < kShedReasons; ++i) {
    AddCounter({{"reason", kShedReasonNames[i]}},
               Sum(shards_, [i](const Shard& shard) -> const Counter& { return shard.shed[i]; }), &shed);
  }
}

void ServerMetrics::CollectCapture(Families* families) const {
  const RequestCapture* const capture = capture_.load();
  if (capture == nullptr) return;
  const auto counter = [families](const char* name, const char* help, uint64_t value) {
    AddCounter({}, static_cast<double>(value), &AddFamily(name, help, MetricType::Counter, families));
  };
  counter("hilomoe_captured_requests_total", "Requests written to capture_path.", capture->captured());
  counter("hilomoe_capture_dropped_total", "Sampled requests that could not be written, or not in time.",
          capture->dropped());
  AddGauge({}, static_cast<double>(capture->bytes()),
           &AddFamily("hilomoe_capture_bytes", "Size of the file in capture_path.", MetricType::Gauge, families));
}

void ServerMetrics::CollectState(Families* families) const {
  const auto gauge = [families](const char* name, const char* help, double value) {
    AddGauge({}, value, &AddFamily(name, help, MetricType::Gauge, families));
  };
  // Read in this order, so that a request that ends meanwhile is not counted as ended before it began.
  const uint64_t finished = Sum(shards_, [](const Shard& shard) -> const Counter& { return shard.finished; });
  const uint64_t started = Sum(shards_, [](const Shard& shard) -> const Counter& { return shard.started; });
  gauge("hilomoe_requests_in_flight", "Requests that have arrived and are not answered yet.",
        started > finished ? static_cast<double>(started - finished) : 0);
  if (const AdmissionQueue* admission = admission_.load(); admission != nullptr) {
    gauge("hilomoe_evaluation_threads", "Evaluations that may run at once.", admission->max_running());
    gauge("hilomoe_evaluations_running", "Evaluations that run now.", admission->running());
    gauge("hilomoe_queued_candidates", "Candidates of the requests that wait.",
          static_cast<double>(admission->queued_candidates()));
    gauge("hilomoe_max_queued_candidates", "Candidates that may wait; more is refused.",
          static_cast<double>(admission->max_queued_candidates()));
  }
  gauge("hilomoe_ready", "1 once models are loaded and calls accepted, until draining begins.", ready_.load() ? 1 : 0);
  gauge("hilomoe_draining", "1 from the first signal to stop.", draining_.load() ? 1 : 0);
  AddGauge({{"version", HILOMOE_VERSION}, {"compiler", __VERSION__}, {"grpc", grpc::Version()}}, 1,
           &AddFamily("hilomoe_build_info", "The running program; always 1.", MetricType::Gauge, families));
  AddCounter({}, static_cast<double>(DroppedLogLines()),
             &AddFamily("hilomoe_log_lines_dropped_total", "Log lines that could not be written, or not in time.",
                        MetricType::Counter, families));
}

Families ServerMetrics::Collect() const {
  Families families;
  const Models models = LiveModels();
  CollectRequests(models, &families);
  CollectModels(models, &families);
  AppendRoutingMetrics(models, &families);
  CollectState(&families);
  CollectCapture(&families);
  if (const ModelRepository* repository = repository_.load()) AppendRepositoryMetrics(*repository, &families);
  AppendCpuThrottling(CgroupDirectories("cpu"), &families);
  AppendProcessMetrics(&families);
  return families;
}

}  // namespace hilomoe
