#include "server/served_model.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "server/disposal_thread.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {
namespace {

// What the process maps, in bytes.
size_t AddressSpace() {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * 4096;
}

void LimitAddressSpace(rlim_t bytes) {
  rlimit limit;
  ::getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = bytes;
  ::setrlimit(RLIMIT_AS, &limit);
}

// Wherever in a load memory runs out, an error says so and the process goes on.
TEST(ServedModelTest, SurvivesMemoryThatRunsOut) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need address space of their own";
#endif
  const TemporaryDirectory root;
  const std::string path = WriteTestModel(root.path());
  const auto load_all = [&path] {
    EvaluatingThreads threads;
    threads.serving = 64;
    // Memory of a thread's own would be reserved beforehand, for the limit not to matter.
    ::mallopt(M_ARENA_MAX, 1);
    DisposalThread disposal(/*low_priority=*/false, nullptr);
    const auto dispose = [&disposal](std::unique_ptr<const ServedModel> model) { disposal.Take(std::move(model)); };
    int refused = 0, beside_the_file = 0;
    for (size_t more = 0; more < size_t{256} << 20; more += size_t{32} << 10) {
      ::malloc_trim(0);
      LimitAddressSpace(AddressSpace() + more);
      const auto model = ServedModel::Load({"ctr", 1, path}, threads, {.threads = 2, .dispose = dispose});
      LimitAddressSpace(RLIM_INFINITY);
      const absl::Status& status = model.status();
      if (status.ok()) {
        std::fprintf(stderr, "loaded after %d refusals\n", refused);
        std::_Exit(beside_the_file > 0 && beside_the_file < refused ? 0 : 1);
      }
      ++refused;
      beside_the_file += absl::StrContains(status.message(), "give the process more");
      if (status.code() != absl::StatusCode::kResourceExhausted) {
        std::fprintf(stderr, "%s\n", std::string(status.ToString()).c_str());
        std::_Exit(2);
      }
    }
    std::_Exit(3);
  };
  // On a thread, whose stack does not have to grow.
  EXPECT_EXIT(std::thread(load_all).join(), ::testing::ExitedWithCode(0), "loaded after [0-9]+ refusals");
}

}  // namespace
}  // namespace hilomoe
