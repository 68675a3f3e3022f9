#include "server/health_board.h"

namespace hilomoe {

void HealthBoard::Attach(grpc::HealthCheckServiceInterface* service) {
  const std::lock_guard lock(mutex_);
  services_.push_back(service);
  for (const auto& [name, serving] : names_) service->SetServingStatus(name, serving && !draining_);
}

void HealthBoard::Clear() {
  const std::lock_guard lock(mutex_);
  services_.clear();
}

void HealthBoard::Set(const std::string& name, bool serving) {
  const std::lock_guard lock(mutex_);
  const auto [entry, is_new] = names_.try_emplace(name, serving);
  if (!is_new && entry->second == serving) return;  // watchers need not hear it again
  entry->second = serving;
  for (auto* service : services_) service->SetServingStatus(name, serving && !draining_);
}

void HealthBoard::StartDraining() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
  for (auto* service : services_) service->SetServingStatus(false);
}

}  // namespace hilomoe
