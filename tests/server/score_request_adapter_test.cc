#include "server/score_request_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/stubs/logging.h"
#include "test_model.h"

namespace hilomoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Small blocks, so that values lie across their borders.
class Bytes {
 public:
  explicit Bytes(const std::string& text) : stream_(text.data(), static_cast<int>(text.size()), 7) {}
  google::protobuf::io::ZeroCopyInputStream* get() { return &stream_; }

 private:
  google::protobuf::io::ArrayInputStream stream_;
};

absl::Status ReadHead(const std::string& bytes, RequestHead* head) {
  ScoreRequestAdapter adapter;
  return adapter.ReadHead(Bytes(bytes).get(), head);
}

// The protocol needs no spec.
absl::Status Parse(ScoreRequestAdapter* adapter, const std::string& bytes) {
  static const ModelSpec* const spec = new ModelSpec(*ModelSpec::Create(TestModelConfig()));
  return adapter->Parse(Bytes(bytes).get(), *spec);
}

TEST(ScoreRequestAdapterTest, ViewsShowTheMessage) {
  v1::ScoreRequest request = MakeTestRequest(3, 1);
  ScoreRequestAdapter adapter;
  ASSERT_TRUE(Parse(&adapter, request.SerializeAsString()).ok());
  const RequestView& view = adapter.view();
  EXPECT_EQ(view.num_candidates, 3);
  ASSERT_EQ(view.context.size(), 3);
  ASSERT_EQ(view.candidates.size(), 3);
  EXPECT_EQ(view.context[0].feature_id, 1);
  EXPECT_EQ(view.context[1].feature, "age");
  EXPECT_THAT(view.context[1].numbers, ElementsAre(0.5F));
  EXPECT_EQ(view.candidates[0].ids.size(), 3);
  EXPECT_EQ(view.candidates[0].ids[2], request.candidates(0).ids(2));
  EXPECT_EQ(view.candidates[1].strings, request.candidates(1).strings());
  EXPECT_EQ(view.candidates[1].row_lengths.size(), 3);
  EXPECT_EQ(view.candidates[2].numbers[1], request.candidates(2).numbers(1));
}

TEST(ScoreRequestAdapterTest, NothingOfAnEarlierRequestRemains) {
  ScoreRequestAdapter adapter;
  ASSERT_TRUE(Parse(&adapter, MakeTestRequest(50, 1).SerializeAsString()).ok());
  adapter.Recycle();
  ASSERT_TRUE(Parse(&adapter, MakeSlowRequest(2).SerializeAsString()).ok());
  EXPECT_EQ(adapter.view().num_candidates, 2);
  EXPECT_EQ(adapter.view().context.size(), 0);
  ASSERT_EQ(adapter.view().candidates.size(), 1);
  EXPECT_EQ(adapter.view().candidates[0].ids.size(), 2);
  EXPECT_TRUE(adapter.view().candidates[0].row_lengths.empty());
}

TEST(ScoreRequestAdapterTest, LargeRequestsDoNotKeepTheirMemory) {
  ScoreRequestAdapter adapter;
  const std::string large = MakeSlowRequest(1'000'000).SerializeAsString();
  ASSERT_TRUE(Parse(&adapter, large).ok());
  EXPECT_GT(adapter.request().SpaceUsedLong(), ScoreRequestAdapter::kMaxKeptBytes);
  adapter.Recycle();
  EXPECT_LT(adapter.request().SpaceUsedLong(), 4096);
  const std::string small = MakeSlowRequest(1000).SerializeAsString();
  ASSERT_TRUE(Parse(&adapter, small).ok());
  adapter.Recycle();
  EXPECT_GT(adapter.request().SpaceUsedLong(), small.size());  // kept for the next one
}

TEST(ScoreRequestAdapterTest, HeadIsReadWithoutColumns) {
  v1::ScoreRequest request = MakeTestRequest(20, 2);
  request.set_model("ctr");
  request.set_version(UINT64_MAX);
  RequestHead head;
  ASSERT_TRUE(ReadHead(request.SerializeAsString(), &head).ok());
  EXPECT_EQ(head.model, "ctr");
  EXPECT_EQ(head.version, UINT64_MAX);
  EXPECT_EQ(head.num_candidates, 20);
  ASSERT_TRUE(ReadHead("", &head).ok());
  EXPECT_EQ(head.model, "");
  EXPECT_EQ(head.version, 0);
  EXPECT_EQ(head.num_candidates, 0);
}

TEST(ScoreRequestAdapterTest, WhatIsNoRequestIsRefused) {
  RequestHead head;
  ScoreRequestAdapter adapter;
  for (const std::string& bytes :
       {std::string("hello"), std::string("\x08"), std::string(3, '\xFF'), std::string("\x22\x05\x08"),
        std::string(1, '\0'), std::string("\x0A\x01\xFF") /* a model that is not UTF-8 */}) {
    EXPECT_EQ(ReadHead(bytes, &head).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Parse(&adapter, bytes).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ScoreRequestAdapterTest, HeadBoundsWhatParsingCosts) {
  v1::ScoreRequest request;
  RequestHead head;
  for (size_t i = 0; i < ScoreRequestAdapter::kMaxColumns / 2; ++i) {
    request.add_context();
    request.add_candidates();
  }
  EXPECT_TRUE(ReadHead(request.SerializeAsString(), &head).ok());
  request.add_context();
  EXPECT_THAT(ReadHead(request.SerializeAsString(), &head).message(), HasSubstr("4096 columns"));
  request.Clear();
  request.set_model(std::string(ScoreRequestAdapter::kMaxNameBytes, 'm'));
  EXPECT_TRUE(ReadHead(request.SerializeAsString(), &head).ok());
  request.set_model(std::string(ScoreRequestAdapter::kMaxNameBytes + 1, 'm'));
  EXPECT_THAT(ReadHead(request.SerializeAsString(), &head).message(), HasSubstr("model"));
}

TEST(ScoreRequestAdapterTest, FieldsThatAreNotKnownAreBounded) {
  RequestHead head;
  const auto unknown = [](size_t count) {  // empty ones, of two bytes
    std::string bytes;
    for (size_t i = 0; i < count; ++i) bytes += std::string("\x7A\0", 2);
    return bytes;
  };
  const auto in_column = [](const std::string& bytes) {
    std::string column("\x22");
    for (size_t size = bytes.size(); size > 0; size >>= 7) column += static_cast<char>(size % 128 | (size > 127) << 7);
    return column + bytes;
  };
  constexpr size_t kMost = ScoreRequestAdapter::kMaxUnknownFields;
  EXPECT_TRUE(ReadHead(unknown(kMost), &head).ok());
  EXPECT_TRUE(ReadHead(in_column(unknown(kMost - 1)) + unknown(1), &head).ok());
  for (const std::string& bytes :
       {unknown(kMost + 1), in_column(unknown(kMost + 1)), in_column(unknown(kMost)) + unknown(1),
        in_column(unknown(kMost)) + in_column(unknown(1))}) {
    EXPECT_THAT(ReadHead(bytes, &head).message(), HasSubstr("16384 fields"));
  }
  const std::string group = "\x43\x44";
  for (const std::string& bytes : {group, in_column(group), std::string("\x32\x02") + group}) {
    EXPECT_EQ(ReadHead(bytes, &head).code(), absl::StatusCode::kInvalidArgument);
  }
}

// On damaged bytes, too: what a full parse accepts has the head that was read, because admission goes by it.
TEST(ScoreRequestAdapterTest, HeadAgreesWithAFullParse) {
  std::mt19937 random(7);
  const google::protobuf::LogSilencer silencer;
  v1::ScoreRequest request = MakeTestRequest(4, 3);
  request.set_model("m");
  request.set_version(300);
  const std::string good = request.SerializeAsString();
  int parsed = 0, strict = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    // A field may stand twice, with another value.
    if (round % 3 == 0) bytes += std::string("\x18") + static_cast<char>(random() % 128);
    for (int i = 0; i < round % 4; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    RequestHead head;
    v1::ScoreRequest full;
    if (!full.ParseFromString(bytes)) continue;
    ++parsed;
    if (!ReadHead(bytes, &head).ok()) {  // a group
      ++strict;
      continue;
    }
    ASSERT_EQ(head.model, full.model()) << round;
    ASSERT_EQ(head.version, full.version()) << round;
    ASSERT_EQ(head.num_candidates, full.num_candidates()) << round;
  }
  EXPECT_GT(parsed, 5000);
  EXPECT_LT(strict, parsed / 50);
}

}  // namespace
}  // namespace hilomoe
