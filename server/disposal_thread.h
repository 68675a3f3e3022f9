// Where models are destroyed: giving gigabytes back takes longer than a request may wait.
#ifndef HILOMOE_SERVER_DISPOSAL_THREAD_H_
#define HILOMOE_SERVER_DISPOSAL_THREAD_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "server/served_model.h"

namespace hilomoe {

// All methods: any thread.
class DisposalThread {
 public:
  // disposed: called on the thread after models have been destroyed; may be empty. low_priority: see
  // LowerThreadPriority.
  DisposalThread(bool low_priority, std::function<void()> disposed);
  // After Stop.
  ~DisposalThread() = default;

  // After Stop the model is destroyed here.
  void Take(std::unique_ptr<const ServedModel> model);
  // Destroys what it has taken and ends the thread.
  void Stop();

 private:
  void Run(bool low_priority);

  const std::function<void()> disposed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<const ServedModel>> taken_;  // guarded by mutex_
  bool stopping_ = false;                                  // guarded by mutex_
  std::thread thread_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_DISPOSAL_THREAD_H_
