// Prometheus metrics over HTTP.
#ifndef HILOMOE_SERVER_METRICS_PORT_H_
#define HILOMOE_SERVER_METRICS_PORT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/collectable.h"
#include "prometheus/exposer.h"

namespace hilomoe {

class MetricsPort {
 public:
  // Serves at once. UNAVAILABLE when it cannot listen.
  static absl::StatusOr<std::unique_ptr<MetricsPort>> Open(const std::string& address);
  ~MetricsPort();

  // Shown for as long as it lives. Several of them must not expose the same metric.
  void Add(const std::weak_ptr<prometheus::Collectable>& collectable) { exposer_->RegisterCollectable(collectable); }
  int port() const { return exposer_->GetListeningPorts().front(); }

 private:
  explicit MetricsPort(std::unique_ptr<prometheus::Exposer> exposer) : exposer_(std::move(exposer)) {}
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_METRICS_PORT_H_
