// What the model is given for the tensors of a request, and what its answer is written as.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "infer_request_fixture.h"

namespace hilomoe {
namespace {

using inference::ModelInferRequest;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

using InferRequestValuesTest = InferRequestFixture;

TEST_F(InferRequestValuesTest, ScoresAreThoseOfTheNativeRequest) {
  for (const bool flat : {false, true}) {
    for (const bool raw : {false, true}) {
      for (const uint32_t n : {1, 2, 63, 64, 65, 300}) {
        const v1::ScoreRequest native = NativeRequest(n, n, flat);
        const std::string bytes = MakeInferRequest(native, Config(), raw).SerializeAsString();
        for (const int piece : {0, 1, 7}) {
          ASSERT_TRUE(Parse(bytes, piece).ok()) << Parse(bytes, piece);
          std::vector<float> scores;
          ASSERT_TRUE(Predict(&scores).ok()) << Predict(&scores);
          EXPECT_EQ(scores, DirectScores(*path_, native)) << flat << raw << n;
          EXPECT_EQ(adapter_.view().context.size(), flat && n > 1 ? 0 : 4);
          adapter_.Recycle();
        }
      }
    }
  }
}

TEST_F(InferRequestValuesTest, WithoutCandidatesThereIsNothingToScore) {
  ASSERT_TRUE(Parse(MakeInferRequest(NativeRequest(0, 1, false), Config(), true)).ok());
  EXPECT_EQ(adapter_.view().num_candidates, 0);
  ASSERT_TRUE(Parse("").ok());
  EXPECT_EQ(adapter_.view().num_candidates, 0);
}

// The same three ids in every datatype, raw and typed.
TEST_F(InferRequestValuesTest, IdsAreWidened) {
  const auto check = [this](const std::string& datatype, const std::string& raw_bytes,
                            const std::function<void(inference::InferTensorContents*)>& type,
                            const std::vector<int64_t>& expected) {
    ModelInferRequest raw, typed;
    AddInput("item", datatype, {static_cast<int64_t>(expected.size())}, &raw);
    raw.add_raw_input_contents(raw_bytes);
    ASSERT_TRUE(Parse(raw).ok()) << datatype << Parse(raw);
    EXPECT_THAT(Column().ids, ElementsAreArray(expected)) << datatype;
    type(AddInput("item", datatype, {static_cast<int64_t>(expected.size()), 1}, &typed)->mutable_contents());
    ASSERT_TRUE(Parse(typed).ok()) << datatype << Parse(typed);
    EXPECT_THAT(Column().ids, ElementsAreArray(expected)) << datatype;
    EXPECT_EQ(Column().feature_id, 4);
    EXPECT_EQ(adapter_.view().num_candidates, expected.size());
  };
  const auto ints = [](std::vector<int32_t> values) {
    return [values](auto* contents) { contents->mutable_int_contents()->Add(values.begin(), values.end()); };
  };
  const auto uints = [](std::vector<uint32_t> values) {
    return [values](auto* contents) { contents->mutable_uint_contents()->Add(values.begin(), values.end()); };
  };
  check("INT64", RawBytes<int64_t>({-1, INT64_MIN, INT64_MAX}),
        [](auto* contents) {
          for (const int64_t id : {int64_t{-1}, INT64_MIN, INT64_MAX}) contents->add_int64_contents(id);
        },
        {-1, INT64_MIN, INT64_MAX});
  check("UINT64", RawBytes<uint64_t>({1, UINT64_MAX}),
        [](auto* contents) {
          for (const uint64_t id : {uint64_t{1}, UINT64_MAX}) contents->add_uint64_contents(id);
        },
        {1, -1});
  check("INT32", RawBytes<int32_t>({-5, 7}), ints({-5, 7}), {-5, 7});
  check("INT16", RawBytes<int16_t>({-5, 7}), ints({-5, 7}), {-5, 7});
  check("INT8", RawBytes<int8_t>({-5, 7}), ints({-5, 7}), {-5, 7});
  check("UINT32", RawBytes<uint32_t>({4'000'000'000, 7}), uints({4'000'000'000, 7}), {4'000'000'000, 7});
  check("UINT16", RawBytes<uint16_t>({60'000, 7}), uints({60'000, 7}), {60'000, 7});
  check("UINT8", RawBytes<uint8_t>({200, 7}), uints({200, 7}), {200, 7});
}

TEST_F(InferRequestValuesTest, NumbersBecomeFloats) {
  const auto raw = [this](const std::string& datatype, const std::string& bytes, const std::vector<float>& expected) {
    ModelInferRequest request;
    AddInput("price", datatype, {static_cast<int64_t>(expected.size())}, &request);
    request.add_raw_input_contents(bytes);
    ASSERT_TRUE(Parse(request).ok()) << datatype << Parse(request);
    EXPECT_THAT(Column().numbers, ElementsAreArray(expected)) << datatype;
  };
  const auto typed = [this](const std::string& datatype,
                            const std::function<void(inference::InferTensorContents*)>& type,
                            const std::vector<float>& expected) {
    ModelInferRequest request;
    type(AddInput("price", datatype, {static_cast<int64_t>(expected.size())}, &request)->mutable_contents());
    ASSERT_TRUE(Parse(request).ok()) << datatype << Parse(request);
    EXPECT_THAT(Column().numbers, ElementsAreArray(expected)) << datatype;
  };
  const float infinity = std::numeric_limits<float>::infinity();
  raw("FP32", RawBytes<float>({1.5F, -0.0F}), {1.5F, -0.0F});
  raw("FP64", RawBytes<double>({0.1, 1e300, -1e300}), {0.1F, infinity, -infinity});
  // 1, -2, the greatest, the smallest normal, the smallest of all, infinity
  raw("FP16", RawBytes<uint16_t>({0x3C00, 0xC000, 0x7BFF, 0x0400, 0x8001, 0x7C00}),
      {1, -2, 65504, 0x1p-14F, -0x1p-24F, infinity});
  raw("BF16", RawBytes<uint16_t>({0x3F80, 0xC000}), {1, -2});
  raw("INT64", RawBytes<int64_t>({-3, int64_t{1} << 40}), {-3, 0x1p40F});
  raw("INT32", RawBytes<int32_t>({-3, 4}), {-3, 4});
  raw("INT16", RawBytes<int16_t>({-3, 4}), {-3, 4});
  raw("INT8", RawBytes<int8_t>({-3, 4}), {-3, 4});
  raw("UINT64", RawBytes<uint64_t>({3, uint64_t{1} << 63}), {3, 0x1p63F});
  raw("UINT32", RawBytes<uint32_t>({3, 1U << 31}), {3, 0x1p31F});
  raw("UINT16", RawBytes<uint16_t>({3, 60'000}), {3, 60'000});
  raw("UINT8", RawBytes<uint8_t>({3, 200}), {3, 200});
  raw("BOOL", RawBytes<uint8_t>({0, 1, 2}), {0, 1, 1});
  typed("FP32", [](auto* c) { c->add_fp32_contents(1.5F); }, {1.5F});
  typed("FP64", [](auto* c) { c->add_fp64_contents(-0.1), c->add_fp64_contents(1e39); }, {-0.1F, infinity});
  typed("INT64", [](auto* c) { c->add_int64_contents(-3); }, {-3});
  typed("INT32", [](auto* c) { c->add_int_contents(-3); }, {-3});
  typed("UINT64", [](auto* c) { c->add_uint64_contents(UINT64_MAX); }, {0x1p64F});
  typed("UINT32", [](auto* c) { c->add_uint_contents(UINT32_MAX); }, {0x1p32F});
  typed("BOOL", [](auto* c) { c->add_bool_contents(false), c->add_bool_contents(true); }, {0, 1});
}

// Some clients write repeated scalars one by one.
TEST_F(InferRequestValuesTest, UnpackedFieldsAreRead) {
  const std::string item = "\x0A\x04item\x12\x05INT64\x18\x02";             // name, datatype, shape 2
  const std::string contents = std::string("\x2A\x04\x18\x07\x18\x09", 6);  // contents { int64_contents 7, 9 }
  const std::string input = item + contents;
  ASSERT_TRUE(Parse(std::string("\x2A") + static_cast<char>(input.size()) + input).ok());
  EXPECT_THAT(Column().ids, ElementsAre(7, 9));
}

TEST_F(InferRequestValuesTest, RowsOfManyValues) {
  ModelInferRequest request;
  auto* tags = AddInput("tags", "BYTES", {2, 3}, &request);
  for (const char* tag : {"a", "bb", "", "c", "dd", "e"}) tags->mutable_contents()->add_bytes_contents(tag);
  ASSERT_TRUE(Parse(request).ok()) << Parse(request);
  EXPECT_EQ(adapter_.view().num_candidates, 2);
  EXPECT_EQ(Column().strings, "abbcdde");
  EXPECT_THAT(Column().string_bytes, ElementsAre(1, 2, 0, 1, 2, 1));
  EXPECT_THAT(Column().row_lengths, ElementsAre(3, 3));

  AddInput("tags.lengths", "INT64", {3, 1}, &request)->mutable_contents()->mutable_int64_contents()->Resize(3, 2);
  request.mutable_inputs(0)->clear_shape();
  request.mutable_inputs(0)->add_shape(6);
  std::swap(*request.mutable_inputs(0), *request.mutable_inputs(1));  // in any order
  ASSERT_TRUE(Parse(request).ok()) << Parse(request);
  EXPECT_EQ(adapter_.view().num_candidates, 3);
  EXPECT_THAT(Column().row_lengths, ElementsAre(2, 2, 2));

  request.Clear();
  AddInput("history", "INT64", {1, 0}, &request);
  ASSERT_TRUE(Parse(request).ok()) << Parse(request);
  EXPECT_THAT(Column().row_lengths, ElementsAre(0));
  EXPECT_EQ(adapter_.view().context.size(), 1);

  // A missing number.
  request.Clear();
  AddInput("price", "FP32", {1}, &request)->mutable_contents()->add_fp32_contents(2);
  auto* lengths = AddInput("price.lengths", "INT32", {2}, &request)->mutable_contents();
  lengths->add_int_contents(0);
  lengths->add_int_contents(1);
  ASSERT_TRUE(Parse(request).ok()) << Parse(request);
  EXPECT_THAT(Column().numbers, ElementsAre(2));
  EXPECT_THAT(Column().row_lengths, ElementsAre(0, 1));
}

TEST_F(InferRequestValuesTest, TheScopeSaysWhatRowsAre) {
  const auto ids = [](const std::string& name, int rows, ModelInferRequest* request) {
    AddInput(name, "INT64", {rows}, request)->mutable_contents()->mutable_int64_contents()->Resize(rows, 101);
  };
  const auto expect = [this](const ModelInferRequest& request, size_t n, size_t context, size_t candidates) {
    ASSERT_TRUE(Parse(request).ok()) << Parse(request);
    EXPECT_EQ(adapter_.view().num_candidates, n);
    EXPECT_EQ(adapter_.view().context.size(), context);
    EXPECT_EQ(adapter_.view().candidates.size(), candidates);
  };
  ModelInferRequest request;
  ids("user", 1, &request);
  expect(request, 1, 1, 0);  // no candidate feature: one candidate of defaults
  ids("item", 1, &request);
  expect(request, 1, 1, 1);
  request.Clear();
  ids("item", 4, &request);
  ids("user", 1, &request);
  expect(request, 4, 1, 1);
  request.Clear();
  ids("user", 4, &request);
  ids("item", 4, &request);
  expect(request, 4, 0, 2);
  request.Clear();
  ids("user", 4, &request);
  expect(request, 4, 0, 1);
  // What the model does not know counts as a column, and for the candidates when nothing else says how many there are.
  request.Clear();
  ids("user", 1, &request);
  ids("new", 6, &request);
  ids("newer", 2, &request);
  ids("newer.lengths", 1, &request);
  expect(request, 6, 1, 2);
  ids("item", 3, &request);
  expect(request, 3, 1, 3);
  EncodedBatch batch;
  EncodeCounts counts;
  ASSERT_TRUE(predictor().encoder().Encode(adapter_.view(), &batch, &counts).ok());
  EXPECT_EQ(counts.unknown_features, 2);
}

TEST_F(InferRequestValuesTest, AnswersAreRawIfTheRequestWas) {
  const std::vector<float> scores = {0.25F, 0.5F, 0.75F};
  ModelInferRequest request = MakeInferRequest(NativeRequest(3, 1, false), Config(), true);
  request.set_id("request 1");
  ASSERT_TRUE(Parse(request).ok());
  std::copy(scores.begin(), scores.end(), adapter_.StartResponse().begin());
  const inference::ModelInferResponse& response = adapter_.FinishResponse(**model_, {});
  EXPECT_EQ(response.model_name(), "ctr");
  EXPECT_EQ(response.model_version(), "12");
  EXPECT_EQ(response.id(), "request 1");
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).name(), "scores");
  EXPECT_EQ(response.outputs(0).datatype(), "FP32");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(3));
  EXPECT_FALSE(response.outputs(0).has_contents());
  EXPECT_THAT(response.raw_output_contents(), ElementsAre(RawBytes(scores)));
  adapter_.Recycle();

  ASSERT_TRUE(Parse(MakeInferRequest(NativeRequest(2, 1, false), Config(), false)).ok());
  std::copy_n(scores.begin(), 2, adapter_.StartResponse().begin());
  adapter_.FinishResponse(**model_, {});
  EXPECT_EQ(response.model_version(), "12");
  EXPECT_EQ(response.id(), "");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2));
  EXPECT_THAT(response.outputs(0).contents().fp32_contents(), ElementsAre(0.25F, 0.5F));
  EXPECT_THAT(response.raw_output_contents(), IsEmpty());
}

}  // namespace
}  // namespace hilomoe
