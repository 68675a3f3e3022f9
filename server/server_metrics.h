// All series of the server, for Prometheus.
//
// Requests are counted in cells of the thread that serves them; a scrape adds the cells up. So counting takes no lock
// and shares no cache line. Every label value is known at start or at a model's load: requests make no series.
#ifndef HILOMOE_SERVER_SERVER_METRICS_H_
#define HILOMOE_SERVER_SERVER_METRICS_H_

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "prometheus/collectable.h"
#include "server/admission_queue.h"
#include "server/metric_cells.h"
#include "server/model_metrics.h"
#include "server/model_repository.h"
#include "server/request_capture.h"

namespace hilomoe {

// Why a request was refused, or dropped before or within its evaluation.
enum class ShedReason { kQueueFull, kDeadlineOutOfReach, kLateOnArrival, kLateInQueue, kLateInEvaluation, kCancelled };
inline constexpr int kShedReasons = 6;
inline constexpr const char* kShedReasonNames[kShedReasons] = {
    "queue_full",        "deadline_out_of_reach",  "deadline_on_arrival",
    "deadline_in_queue", "deadline_in_evaluation", "cancelled"};

class ServerMetrics : public prometheus::Collectable {
 public:
  // One serving thread's cells. Only that thread writes.
  struct alignas(64) Shard {
    Counter started;  // requests
    Counter finished;
    RequestCounters without_model;  // refused before a model was found
    std::array<Counter, kShedReasons> shed;
  };

  explicit ServerMetrics(int serving_threads);

  Shard& shard(int thread) { return *shards_[thread]; }

  // Shown from now on, until the model's last owner lets go of it, instead of a model of the same name and version.
  // Adding one again changes nothing.
  void Add(const std::shared_ptr<const ModelMetrics>& model);
  // Their numbers are read at every scrape; they must outlive the scrapes. Null = not shown.
  void WatchAdmission(const AdmissionQueue* admission) { admission_.store(admission); }
  void WatchCapture(const RequestCapture* capture) { capture_.store(capture); }
  void WatchRepository(const ModelRepository* repository) { repository_.store(repository); }
  void SetReady(bool ready) { ready_.store(ready); }
  bool ready() const { return ready_.load(); }
  void SetDraining(bool draining) { draining_.store(draining); }

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  using Models = std::vector<std::shared_ptr<const ModelMetrics>>;
  Models LiveModels() const;
  void CollectRequests(const Models& models, std::vector<prometheus::MetricFamily>* families) const;
  void CollectState(std::vector<prometheus::MetricFamily>* families) const;
  void CollectCapture(std::vector<prometheus::MetricFamily>* families) const;

  std::vector<std::unique_ptr<Shard>> shards_;
  std::atomic<const AdmissionQueue*> admission_{nullptr};
  std::atomic<const RequestCapture*> capture_{nullptr};
  std::atomic<const ModelRepository*> repository_{nullptr};
  std::atomic<bool> ready_{false};
  std::atomic<bool> draining_{false};
  mutable std::mutex mutex_;
  mutable std::vector<std::weak_ptr<const ModelMetrics>> models_;  // guarded by mutex_
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SERVER_METRICS_H_
