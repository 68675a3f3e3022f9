// A fixed number of threads that run one function together, over and over.
#ifndef HILOMOE_TOOLS_TRAIN_PARALLEL_H_
#define HILOMOE_TOOLS_TRAIN_PARALLEL_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace hilomoe {

class Parallel {
 public:
  explicit Parallel(int threads);  // threads - 1 new ones, which take no signals
  ~Parallel();

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs function(t) for t = 0 .. threads-1, t = 0 on the caller, and returns when all are done. Not reentrant. What
  // one thread wrote, every thread sees in the next Run.
  void Run(const std::function<void(int thread)>& function);

  // The part of [0, n) that is thread t's: contiguous, in multiples of `grain` but for the last.
  std::pair<size_t, size_t> Slice(size_t n, int thread, size_t grain = 1) const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
  std::vector<std::thread> workers_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_PARALLEL_H_
