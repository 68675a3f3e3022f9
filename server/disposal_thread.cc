#include "server/disposal_thread.h"

#include <utility>

#include "server/log.h"
#include "server/thread_priority.h"

namespace hilomoe {

DisposalThread::DisposalThread(bool low_priority, std::function<void()> disposed)
    : disposed_(std::move(disposed)), thread_([this, low_priority] { Run(low_priority); }) {}

void DisposalThread::Take(std::unique_ptr<const ServedModel> model) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!stopping_) taken_.push_back(std::move(model));
  }
  changed_.notify_one();
}

void DisposalThread::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void DisposalThread::Run(bool low_priority) {
  NameThread("model disposal");
  if (low_priority) LowerThreadPriority();
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !taken_.empty(); });
    if (taken_.empty()) return;
    std::vector<std::unique_ptr<const ServedModel>> models;
    models.swap(taken_);
    lock.unlock();
    for (auto& model : models) {
      const std::string name = model->name();
      const uint64_t version = model->version();
      model.reset();
      LogInfo("unloaded model", {{"model", name}, {"version", version}});
    }
    if (disposed_) disposed_();
    lock.lock();
  }
}

}  // namespace hilomoe
