#include "server/disposal_thread.h"

#include <utility>

#include "server/log.h"
#include "server/thread_priority.h"

namespace hilomoe {

DisposalThread::DisposalThread(bool low_priority, std::function<void(const std::string&)> disposed)
    : disposed_(std::move(disposed)), thread_([this, low_priority] { Run(low_priority); }) {}

void DisposalThread::Take(std::unique_ptr<const ServedModel> model) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!stopping_) models_.push_back(std::move(model));
  }
  changed_.notify_one();
}

void DisposalThread::Take(AnonymousMemory memory) {
  if (memory.size() == 0) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!stopping_) memory_.push_back(std::move(memory));
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
    changed_.wait(lock, [this] { return stopping_ || !models_.empty() || !memory_.empty(); });
    if (models_.empty() && memory_.empty()) return;
    std::vector<std::unique_ptr<const ServedModel>> models;
    models.swap(models_);
    std::vector<AnonymousMemory> memory;
    memory.swap(memory_);
    lock.unlock();
    memory.clear();
    for (auto& model : models) {
      const std::string name = model->name();
      const uint64_t version = model->version();
      model.reset();
      LogInfo("unloaded model", {{"model", name}, {"version", version}});
      if (disposed_) disposed_(name);
    }
    lock.lock();
  }
}

}  // namespace hilomoe
