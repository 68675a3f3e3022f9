// Requests that helpers evaluate tiles of have the same bits as those that one thread evaluates.
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/predictor.h"
#include "tests/runtime/request_columns.h"
#include "tests/runtime/served_model.h"

namespace hilomoe {
namespace {

constexpr size_t kSplitCandidates = 128;

struct Case {
  std::string name;
  std::string features;
  std::string network;
  Precision precision = Precision::kFloat32;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// What candidates take from the context: the first block's half and its part of |x|, whole rows, the linear term, a
// history.
std::vector<Case> Cases() {
  constexpr char kDense[] =
      "blocks { width: 40 experts { layers: 3 experts_per_layer: 5 } }"
      "blocks { width: 24 activation: DICE experts { layers: 2 experts_per_layer: 4 } } linear: true";
  constexpr char kTopK[] =
      "blocks { width: 40 experts { layers: 3 experts_per_layer: 5 top_k: 2 } }"
      "blocks { width: 24 experts { layers: 2 experts_per_layer: 20 top_k: 3 } }";
  constexpr char kCross[] =
      "cross { experts { layers: 2 experts_per_layer: 4 } } cross { } blocks { width: 24 } linear: true";
  const std::string attended = std::string(kAllFeatures) + kAlignedSequences;
  std::vector<Case> cases = {{"no_blocks", kAllFeatures, "linear: true"},
                             {"attention", attended, std::string(kAttention) + kDense}};
  for (const auto& [name, precision] :
       {std::pair("float32", Precision::kFloat32), {"bfloat16", Precision::kBfloat16}, {"int8", Precision::kInt8}}) {
    cases.push_back({absl::StrCat("dense_", name), kAllFeatures, kDense, precision});
    cases.push_back({absl::StrCat("top_k_", name), kAllFeatures, kTopK, precision});
    cases.push_back({absl::StrCat("cross_", name), kAllFeatures, kCross, precision});
  }
  return cases;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> Evaluate(const Predictor& predictor, const EncodedBatch& batch, Workspace* workspace) {
  std::vector<float> logits(batch.candidate_rows, NAN);
  predictor.Evaluate(batch, workspace, absl::MakeSpan(logits));
  return logits;
}

std::unique_ptr<TileTeam> MakeTeam(int threads) {
  auto team = TileTeam::Create(threads);
  EXPECT_TRUE(team.ok()) << team.status();
  return *std::move(team);
}

class SplitRequestTest : public testing::TestWithParam<Case> {
 protected:
  ServedModel model_{GetParam().features + "network {" + GetParam().network + "}",
                     1,
                     {GetParam().precision, GetParam().precision, GetParam().precision}};
};

TEST_P(SplitRequestTest, HelpersGiveTheSameBits) {
  const std::unique_ptr<Predictor> predictor = model_.Open();
  Workspace alone(*predictor);
  for (int threads = 1; threads <= 4; ++threads) {
    const std::unique_ptr<TileTeam> team = MakeTeam(threads);
    const PredictorHelpers helpers(*predictor, team.get(), kSplitCandidates);
    Workspace workspace(*predictor, &helpers);
    for (const size_t rows : {1, 127, 128, 130, 1000}) {
      for (const bool shared : {true, false}) {
        const EncodedBatch batch = RandomBatch(model_.spec, model_.table_rows, rows, shared, 2 * rows + shared);
        const std::vector<float> expected = Evaluate(*predictor, batch, &alone);
        workspace.split_requests = 0;
        // Until a helper has woken up early enough.
        const bool to_split = rows >= kSplitCandidates && threads > 1;
        for (int i = 0; i < 10'000 && (i < 3 || (to_split && workspace.split_requests == 0)); ++i) {
          ASSERT_TRUE(SameBits(expected, Evaluate(*predictor, batch, &workspace)))
              << rows << " rows, " << threads << " threads, " << (shared ? "shared context" : "flat");
        }
        EXPECT_EQ(workspace.split_requests > 0, to_split) << rows << " rows, " << threads << " threads";
      }
    }
  }
}

// From the values of a request on: helpers encode its columns, too.
TEST_P(SplitRequestTest, HelpersEncodeAlike) {
  const std::unique_ptr<Predictor> predictor = model_.Open();
  const std::unique_ptr<TileTeam> team = MakeTeam(3);
  const PredictorHelpers helpers(*predictor, team.get(), kSplitCandidates);
  Workspace alone(*predictor), workspace(*predictor, &helpers);
  constexpr size_t kRows = 500;
  std::vector<int64_t> items;
  std::vector<std::string> users;
  for (size_t i = 0; i < kRows; ++i) {
    items.push_back(static_cast<int64_t>(95 + i % 20));
    users.push_back(absl::StrCat("s", i % 9));
  }
  const Columns context{Strings("user", {"s1"}), Ids("history", {100, 101, 999}, {3}), Numbers("age", {30})};
  const Columns candidates{Ids("item", items), Ids("hash", items), Numbers("price", std::vector<float>(kRows, 2)),
                           Strings("tags", users), Ids("no such feature", {})};
  const Columns flat{Ids("item", items), Strings("user", users)};
  const RequestView requests[] = {{kRows, context.views(), candidates.views()}, {kRows, {}, flat.views()}};
  for (const RequestView& request : requests) {
    std::vector<float> expected(kRows), scores(kRows);
    ASSERT_TRUE(predictor->Predict(request, &alone, absl::MakeSpan(expected)).ok());
    for (int i = 0; i < 50; ++i) {
      workspace.counts = {};
      ASSERT_TRUE(predictor->Predict(request, &workspace, absl::MakeSpan(scores)).ok());
      ASSERT_TRUE(SameBits(expected, scores));
      EXPECT_EQ(workspace.counts.values, alone.counts.values);
      EXPECT_EQ(workspace.counts.out_of_vocabulary, alone.counts.out_of_vocabulary);
      EXPECT_EQ(workspace.counts.missing, alone.counts.missing);
    }
    alone.counts = {};
  }
}

// More callers than threads, each with requests of its own.
TEST_P(SplitRequestTest, CallersThatShareHelpersGetTheirOwnBits) {
  const std::unique_ptr<Predictor> predictor = model_.Open();
  const std::unique_ptr<TileTeam> team = MakeTeam(3);
  const PredictorHelpers helpers(*predictor, team.get(), kSplitCandidates);
  std::atomic<int> wrong{0};
  std::vector<std::jthread> callers;
  for (size_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      Workspace alone(*predictor), workspace(*predictor, &helpers);
      for (size_t i = 0; i < 10; ++i) {
        const EncodedBatch batch =
            RandomBatch(model_.spec, model_.table_rows, 100 + 90 * i, (i + caller) % 2 == 0, 10 * i + caller);
        wrong += !SameBits(Evaluate(*predictor, batch, &alone), Evaluate(*predictor, batch, &workspace));
      }
    });
  }
  callers.clear();
  EXPECT_EQ(wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, SplitRequestTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// Another request has the only helper, and keeps it.
TEST(BusyHelperTest, ARequestIsEvaluatedWithoutIt) {
  const ServedModel model(std::string(kAllFeatures) + "network { blocks { width: 17 } }");
  const std::unique_ptr<Predictor> predictor = model.Open();
  const std::unique_ptr<TileTeam> team = MakeTeam(2);
  std::atomic<bool> helper_at_work{false}, release{false};
  std::jthread other([&] {
    team->Run(2, true, [&](int worker, size_t, size_t) {
      if (worker > 0) helper_at_work = true;
      while (!(worker > 0 ? release : helper_at_work)) std::this_thread::yield();
    });
  });
  while (!helper_at_work) std::this_thread::yield();
  const PredictorHelpers helpers(*predictor, team.get(), kSplitCandidates);
  Workspace workspace(*predictor, &helpers), alone(*predictor);
  const EncodedBatch batch = RandomBatch(model.spec, model.table_rows, 1000, true, 1);
  EXPECT_TRUE(SameBits(Evaluate(*predictor, batch, &alone), Evaluate(*predictor, batch, &workspace)));
  EXPECT_EQ(workspace.split_requests, 0);
  release = true;
}

TEST(NoSplitTest, ZeroCandidatesMeansNever) {
  const ServedModel model(std::string(kAllFeatures) + "network { blocks { width: 17 } }");
  const std::unique_ptr<Predictor> predictor = model.Open();
  const std::unique_ptr<TileTeam> team = MakeTeam(2);
  const PredictorHelpers helpers(*predictor, team.get(), 0);
  Workspace workspace(*predictor, &helpers);
  const EncodedBatch batch = RandomBatch(model.spec, model.table_rows, 1000, true, 1);
  for (int i = 0; i < 20; ++i) (void)Evaluate(*predictor, batch, &workspace);
  EXPECT_EQ(workspace.split_requests, 0);
}

}  // namespace
}  // namespace hilomoe
