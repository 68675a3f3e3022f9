// Where models are destroyed, and what they lay in: giving gigabytes back takes longer than a request may wait.
#ifndef HILOMOE_SERVER_DISPOSAL_THREAD_H_
#define HILOMOE_SERVER_DISPOSAL_THREAD_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model/anonymous_memory.h"
#include "server/served_model.h"

namespace hilomoe {

// All methods: any thread.
class DisposalThread {
 public:
  // disposed: called on the thread, with its name, after a model has been destroyed; may be empty. low_priority: see
  // LowerThreadPriority.
  DisposalThread(bool low_priority, std::function<void(const std::string&)> disposed);
  // After Stop.
  ~DisposalThread() = default;

  // After Stop they are destroyed here.
  void Take(std::unique_ptr<const ServedModel> model);
  void Take(AnonymousMemory memory);
  // Destroys what it has taken and ends the thread.
  void Stop();

 private:
  void Run(bool low_priority);

  const std::function<void(const std::string&)> disposed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<const ServedModel>> models_;  // as all that follows, guarded by mutex_
  std::vector<AnonymousMemory> memory_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_DISPOSAL_THREAD_H_
