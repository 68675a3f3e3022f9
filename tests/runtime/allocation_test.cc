// Once warm, Predict allocates nothing of ours. Calls to operator new that come from inside oneDNN's library are told
// apart by the caller's address and counted on their own.
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/runtime/request_columns.h"
#include "tests/runtime/served_model.h"

namespace {

std::atomic<uint64_t> ours{0}, onednns{0};

void* Allocate(size_t size, size_t alignment, const void* caller) {
  Dl_info library{};
  const bool onednn = dladdr(caller, &library) != 0 && library.dli_fname != nullptr &&
                      std::strstr(library.dli_fname, "libdnnl") != nullptr;
  (onednn ? onednns : ours).fetch_add(1, std::memory_order_relaxed);
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size == 0 ? 1 : size) != 0) throw std::bad_alloc();
  return memory;
}

constexpr size_t kDefault = alignof(std::max_align_t);

}  // namespace

// NOLINTBEGIN(misc-new-delete-overloads)
void* operator new(size_t size) { return Allocate(size, kDefault, __builtin_return_address(0)); }
void* operator new[](size_t size) { return Allocate(size, kDefault, __builtin_return_address(0)); }
void* operator new(size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment), __builtin_return_address(0));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment), __builtin_return_address(0));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
// NOLINTEND(misc-new-delete-overloads)

namespace hilomoe {
namespace {

TEST(AllocationTest, AWarmPredictAllocatesNothing) {
  const ServedModel model(std::string(kAllFeatures) + R"(network {
      blocks { width: 40 experts { layers: 3 experts_per_layer: 8 } }
      blocks { width: 33 experts { layers: 2 experts_per_layer: 8 top_k: 2 } }
      blocks { width: 20 } })");
  const std::unique_ptr<Predictor> predictor = model.Open();
  Workspace workspace(*predictor);
  std::vector<float> scores(200);

  // Shared and flat, few and many candidates, features absent, unknown and out of vocabulary.
  const Columns context{Strings("user", {"s1"}), Ids("history", {100, 101, 999}, {3}), Numbers("age", {30})};
  const Columns user_alone{Strings("user", {"?"})};
  std::vector<int64_t> items;
  std::vector<std::string> users;
  for (int i = 0; i < 150; ++i) {
    items.push_back(95 + i % 20);
    users.push_back(absl::StrCat("s", i % 9));
  }
  const Columns many{Ids("item", items), Ids("hash", items), Numbers("price", std::vector<float>(150, 2)),
                     Strings("tags", users), Numbers("no such feature", {})};
  const Columns flat{Ids("item", items), Strings("user", users)};
  const Columns one{Ids("item", {103})};
  const Columns age{Numbers("age", {1}), Numbers("days", {2})};
  const RequestView requests[] = {
      {150, context.views(), many.views()},
      {1, user_alone.views(), one.views()},
      {150, age.views(), flat.views()},
      {70, {}, {}},
      {0, context.views(), {}},
  };
  const auto serve = [&] {
    PredictTimes times;
    for (const RequestView& request : requests) {
      const absl::Status status =
          predictor->Predict(request, &workspace, absl::MakeSpan(scores).first(request.num_candidates), &times);
      ASSERT_TRUE(status.ok()) << status;
    }
  };
  const uint64_t cold = ours;
  serve();
  EXPECT_GT(ours, cold) << "the counter does not count";
  serve();
  const uint64_t warm = ours, warm_onednn = onednns;
  for (int i = 0; i < 20; ++i) serve();
  EXPECT_EQ(ours - warm, 0);
  RecordProperty("inside_onednn", std::to_string(onednns - warm_onednn));
}

}  // namespace
}  // namespace hilomoe
