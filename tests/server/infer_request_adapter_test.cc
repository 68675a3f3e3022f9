#include "server/infer_request_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <random>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/stubs/logging.h"
#include "infer_request.h"
#include "server/served_model.h"
#include "test_model.h"

namespace hilomoe {
namespace {

using inference::ModelInferRequest;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A second string feature, so that values of one kind come from several tensors.
v1::ModelConfig Config() {
  v1::ModelConfig config = TestModelConfig();
  v1::Feature* city = config.add_features();
  city->set_id(7);
  city->set_name("city");
  city->set_kind(v1::Feature::CATEGORICAL);
  city->set_scope(v1::Feature::CONTEXT);
  city->set_id_type(v1::Feature::STRING);
  city->set_embedding_width(4);
  city->mutable_vocabulary()->set_hash_buckets(10);
  return config;
}

class InferRequestAdapterTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new TemporaryDirectory();
    path_ = new std::string(WriteTestModel(directory_->path(), {.config = Config()}));
    const auto model = ServedModel::Load({"ctr", 12, *path_}, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = new std::shared_ptr<const ServedModel>(*model);
  }
  static void TearDownTestSuite() {
    delete model_;
    delete path_;
    delete directory_;
  }

  // In pieces of `piece` bytes, so that values lie across their borders; 0: in one.
  absl::Status Parse(const std::string& bytes, int piece = 7) {
    google::protobuf::io::ArrayInputStream stream(bytes.data(), static_cast<int>(bytes.size()), piece > 0 ? piece : -1);
    return adapter_.Parse(&stream, predictor().file().spec());
  }
  absl::Status Parse(const ModelInferRequest& request) { return Parse(request.SerializeAsString()); }
  absl::Status ReadHead(const std::string& bytes, RequestHead* head) {
    google::protobuf::io::ArrayInputStream stream(bytes.data(), static_cast<int>(bytes.size()), 7);
    return adapter_.ReadHead(&stream, head);
  }
  absl::Status Predict(std::vector<float>* scores) {
    scores->resize(adapter_.view().num_candidates);
    return predictor().Predict(adapter_.view(), (*model_)->workspace(0), absl::MakeSpan(*scores));
  }
  static const Predictor& predictor() { return (*model_)->predictor(); }
  // The values of a request's only feature.
  const ColumnView& Column() {
    const RequestView& view = adapter_.view();
    EXPECT_EQ(view.context.size() + view.candidates.size(), 1);
    return view.context.empty() ? view.candidates[0] : view.context[0];
  }

  static TemporaryDirectory* directory_;
  static std::string* path_;
  static std::shared_ptr<const ServedModel>* model_;
  InferRequestAdapter adapter_;
};

TemporaryDirectory* InferRequestAdapterTest::directory_ = nullptr;
std::string* InferRequestAdapterTest::path_ = nullptr;
std::shared_ptr<const ServedModel>* InferRequestAdapterTest::model_ = nullptr;

// One context, or the context again in every row.
v1::ScoreRequest NativeRequest(uint32_t n, uint32_t seed, bool flat) {
  v1::ScoreRequest request = MakeTestRequest(n, seed);
  v1::Column* city = request.add_context();
  city->set_feature("city");
  city->set_strings("Zürich");
  city->add_string_bytes(7);
  if (!flat) return request;
  for (const v1::Column& column : request.context()) {
    v1::Column* repeated = request.add_candidates();
    *repeated = column;
    for (uint32_t r = 1; r < n; ++r) {
      repeated->mutable_ids()->MergeFrom(column.ids());
      repeated->mutable_numbers()->MergeFrom(column.numbers());
      repeated->mutable_row_lengths()->MergeFrom(column.row_lengths());
      repeated->mutable_strings()->append(column.strings());
      repeated->mutable_string_bytes()->MergeFrom(column.string_bytes());
    }
  }
  request.clear_context();
  return request;
}

TEST_F(InferRequestAdapterTest, ScoresAreThoseOfTheNativeRequest) {
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

TEST_F(InferRequestAdapterTest, WithoutCandidatesThereIsNothingToScore) {
  ASSERT_TRUE(Parse(MakeInferRequest(NativeRequest(0, 1, false), Config(), true)).ok());
  EXPECT_EQ(adapter_.view().num_candidates, 0);
  ASSERT_TRUE(Parse("").ok());
  EXPECT_EQ(adapter_.view().num_candidates, 0);
}

// The same three ids in every datatype, raw and typed.
TEST_F(InferRequestAdapterTest, IdsAreWidened) {
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

TEST_F(InferRequestAdapterTest, NumbersBecomeFloats) {
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
TEST_F(InferRequestAdapterTest, UnpackedFieldsAreRead) {
  const std::string item = "\x0A\x04item\x12\x05INT64\x18\x02";             // name, datatype, shape 2
  const std::string contents = std::string("\x2A\x04\x18\x07\x18\x09", 6);  // contents { int64_contents 7, 9 }
  const std::string input = item + contents;
  ASSERT_TRUE(Parse(std::string("\x2A") + static_cast<char>(input.size()) + input).ok());
  EXPECT_THAT(Column().ids, ElementsAre(7, 9));
}

TEST_F(InferRequestAdapterTest, RowsOfManyValues) {
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

TEST_F(InferRequestAdapterTest, TheScopeSaysWhatRowsAre) {
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

TEST_F(InferRequestAdapterTest, EveryErrorNamesItsTensor) {
  using Change = std::function<void(ModelInferRequest*)>;
  const auto set_shape = [](int input, std::vector<int64_t> shape) -> Change {
    return [=](ModelInferRequest* r) {
      r->mutable_inputs(input)->mutable_shape()->Clear();
      r->mutable_inputs(input)->mutable_shape()->Add(shape.begin(), shape.end());
    };
  };
  const auto set_type = [](int input, const char* type) -> Change {
    return [=](ModelInferRequest* r) { r->mutable_inputs(input)->set_datatype(type); };
  };
  // user, history, history.lengths, item, tags, tags.lengths, price
  constexpr int kUser = 0, kLengths = 2, kItem = 3, kTags = 4, kPrice = 6;
  v1::ScoreRequest native = MakeTestRequest(3, 9);
  native.mutable_context()->DeleteSubrange(1, 1);
  const ModelInferRequest typed = MakeInferRequest(native, Config(), false);
  const ModelInferRequest raw = MakeInferRequest(native, Config(), true);
  ASSERT_EQ(typed.inputs(kPrice).name(), "price");
  ASSERT_TRUE(Parse(typed).ok());
  ASSERT_TRUE(Parse(raw).ok());

  struct Case {
    const ModelInferRequest* good;
    const char* expected;
    Change change;
  };
  const Case cases[] = {
      {&typed, "'item': a shape of 0 dimensions", set_shape(kItem, {})},
      {&typed, "'item': a shape of 3 dimensions", set_shape(kItem, {3, 1, 1})},
      {&typed, "'item': a dimension of the shape is negative", set_shape(kItem, {-3})},
      {&typed, "'item': a dimension of the shape is negative", set_shape(kItem, {3, -1})},
      {&typed, "'tags': the shape is impossible", set_shape(kTags, {INT64_MAX, 2})},
      {&typed, "'item': shape [3, 2]; it takes [n] or [n, 1]", set_shape(kItem, {3, 2})},
      {&typed, "'tags': values with lengths", set_shape(kTags, {3, 2})},
      {&typed, "'history.lengths': lengths take", set_shape(kLengths, {1, 2})},
      {&typed, "'price': 4 rows, but 'item' has 3", set_shape(kPrice, {4})},
      {&typed, "'user': 2 rows; a context feature has one, or one for each of the 3", set_shape(kUser, {2})},
      {&typed, "'tags': 1 rows, but 'item' has 3", set_shape(kTags + 1, {1})},
      {&typed, "'user': 0 rows", set_shape(kUser, {0})},
      {&typed, "'tags': 1000000000 rows of no values",
       [&](auto* r) {
         r->mutable_inputs()->DeleteSubrange(kTags + 1, 1), set_shape(kTags, {1'000'000'000, 0})(r);
       }},
      {&typed, "candidates are more than anything",
       [&](auto* r) { r->mutable_inputs()->DeleteSubrange(kItem, 4), set_shape(kUser, {INT64_MAX})(r); }},
      {&typed, "'item': datatype 'FP32'; it takes INT64", set_type(kItem, "FP32")},
      {&typed, "'item': datatype 'BOOL'; it takes INT64", set_type(kItem, "BOOL")},
      {&typed, "'item': datatype ''; it takes INT64", set_type(kItem, "")},
      {&typed, "'tags': datatype 'INT64'; it takes BYTES", set_type(kTags, "INT64")},
      {&typed, "'price': datatype 'BYTES'; it takes FP32", set_type(kPrice, "BYTES")},
      {&typed, "'price': datatype 'FP128'; it takes FP32", set_type(kPrice, "FP128")},
      {&typed, "'history.lengths': datatype 'FP32'; it takes INT32", set_type(kLengths, "FP32")},
      {&typed, "'price': values of FP16 travel in raw_input_contents alone", set_type(kPrice, "FP16")},
      {&typed, "'item': values outside of uint64_contents", set_type(kItem, "UINT64")},
      {&typed, "'item': values outside of int64_contents",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->add_bytes_contents(std::string(1, '5')); }},
      {&typed, "'item': 2 values; the shape says 3",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->mutable_int64_contents()->RemoveLast(); }},
      {&typed, "'item': more than 3 values; the shape says 3",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->add_int64_contents(1); }},
      {&typed, "'item': 0 values; the shape says 3", [](auto* r) { r->mutable_inputs(kItem)->clear_contents(); }},
      {&typed, "'tags': more than",
       [](auto* r) { r->mutable_inputs(kTags)->mutable_contents()->add_bytes_contents(std::string(1, 'x')); }},
      {&typed, "'history.lengths': the length -1 is impossible",
       [](auto* r) { r->mutable_inputs(kLengths)->mutable_contents()->set_int_contents(0, -1); }},
      {&typed, "'item.lengths': lengths without a tensor that has the values",
       [](auto* r) { *r->mutable_inputs(kItem)->mutable_name() += ".lengths"; }},
      {&typed, "'history.lengths': stands twice", [](auto* r) { *r->add_inputs() = r->inputs(kLengths); }},
      {&typed, "1 raw_input_contents for 7 inputs", [](auto* r) { r->add_raw_input_contents(std::string(1, 0)); }},
      {&raw, "6 raw_input_contents for 7 inputs", [](auto* r) { r->mutable_raw_input_contents()->RemoveLast(); }},
      {&raw, "8 raw_input_contents for 7 inputs", [](auto* r) { r->add_raw_input_contents(std::string()); }},
      {&raw, "'item': typed contents beside raw_input_contents",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->add_int64_contents(1); }},
      {&raw, "'item': 25 bytes of raw contents for 3 values of 8",
       [](auto* r) { r->mutable_raw_input_contents(kItem)->push_back(0); }},
      {&raw, "'item': 16 bytes of raw contents for 3 values of 8",
       [](auto* r) { r->mutable_raw_input_contents(kItem)->resize(16); }},
      {&raw, "'tags': the raw contents end within value",
       [](auto* r) { r->mutable_raw_input_contents(kTags)->pop_back(); }},
      {&raw, "'tags': the raw contents end within value 0",
       [](auto* r) { r->mutable_raw_input_contents(kTags)->replace(0, 4, "\xFF\xFF\xFF\xFF"); }},
      {&raw, "'tags': 3 bytes of raw contents follow the last",
       [](auto* r) { r->mutable_raw_input_contents(kTags)->append("end"); }},
      {&typed, "'score': no such output; there is 'scores' alone",
       [](auto* r) { r->add_outputs()->set_name("score"); }},
      {&typed, "shared memory",
       [](auto* r) { (*r->mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("/x"); }},
      {&typed, "shared memory",
       [](auto* r) {
         r->add_outputs()->set_name("scores");
         (*r->mutable_outputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("/x");
       }},
      {&typed, "inputs.name: 257 bytes", [](auto* r) { r->mutable_inputs(kItem)->set_name(std::string(257, 'x')); }},
      {&typed, "model_name: 257 bytes", [](auto* r) { r->set_model_name(std::string(257, 'x')); }},
      {&typed, "id: 4097 bytes", [](auto* r) { r->set_id(std::string(4097, 'x')); }},
  };
  for (const Case& c : cases) {
    ModelInferRequest request = *c.good;
    c.change(&request);
    const absl::Status status = Parse(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.expected;
    EXPECT_THAT(status.message(), HasSubstr(c.expected));
  }
  // Left to the encoder, which names the feature.
  for (const Change& change : {Change([](auto* r) { *r->add_inputs() = r->inputs(kItem); }), Change([&](auto* r) {
                                 r->mutable_inputs(kTags + 1)->mutable_contents()->set_int_contents(0, 100);
                               })}) {
    ModelInferRequest request = typed;
    change(&request);
    ASSERT_TRUE(Parse(request).ok()) << Parse(request);
    std::vector<float> scores;
    EXPECT_EQ(Predict(&scores).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(InferRequestAdapterTest, WhatIsTolerated) {
  ModelInferRequest request = MakeInferRequest(NativeRequest(3, 1, false), Config(), true);
  (*request.mutable_parameters())["timeout"].set_int64_param(1000);
  (*request.mutable_parameters())["priority"].set_uint64_param(1);
  (*request.mutable_inputs(0)->mutable_parameters())["note"].set_string_param("x");
  request.add_outputs()->set_name("scores");
  (*request.mutable_outputs(0)->mutable_parameters())["binary_data"].set_bool_param(true);
  for (auto& input : *request.mutable_inputs()) input.mutable_contents();  // typed ones, but empty
  request.GetReflection()->MutableUnknownFields(&request)->AddVarint(1000, 1);
  RequestHead head;
  EXPECT_TRUE(ReadHead(request.SerializeAsString(), &head).ok()) << ReadHead(request.SerializeAsString(), &head);
  EXPECT_TRUE(Parse(request).ok()) << Parse(request);
}

TEST_F(InferRequestAdapterTest, AnotherKindOfAnswerIsRefused) {
  ModelInferRequest request = MakeInferRequest(NativeRequest(3, 1, false), Config(), true);
  request.add_outputs()->set_name("scores");
  (*request.mutable_outputs(0)->mutable_parameters())["classification"].set_int64_param(2);
  EXPECT_THAT(Parse(request).message(), HasSubstr("classification"));
}

TEST_F(InferRequestAdapterTest, HeadIsReadWithoutContents) {
  ModelInferRequest request = MakeInferRequest(NativeRequest(20, 2, false), Config(), true);
  request.set_model_name("ctr");
  RequestHead head;
  const auto read = [&] { return ReadHead(request.SerializeAsString(), &head); };
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.model, "ctr");
  EXPECT_EQ(head.version, 0);
  EXPECT_EQ(head.label, "");
  EXPECT_EQ(head.num_candidates, 20);
  request.set_model_version("18446744073709551615");
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.version, UINT64_MAX);
  request.set_model_version("stable");
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.version, 0);
  EXPECT_EQ(head.label, "stable");
  for (const char* version : {"0", "000", "18446744073709551616", "99999999999999999999999999"}) {
    request.set_model_version(version);
    EXPECT_THAT(read().message(), AllOf(HasSubstr("model_version"), HasSubstr("not a version"))) << version;
  }
  request.Clear();
  AddInput("item", "INT64", {INT64_MAX}, &request);
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.num_candidates, UINT32_MAX);
  ASSERT_TRUE(ReadHead("", &head).ok());
  EXPECT_EQ(head.model, "");
  EXPECT_EQ(head.label, "");
  EXPECT_EQ(head.num_candidates, 0);
}

TEST_F(InferRequestAdapterTest, WhatIsNoRequestIsRefused) {
  const std::string not_utf8 = "\x0A\x01\xFF";
  for (const std::string& bytes :
       {std::string("hello"), std::string("\x08"), std::string(3, '\xFF'), std::string("\x2A\x05\x08"),
        std::string(1, '\0'), not_utf8, std::string("\x1A\x01\xFF"), std::string("\x2A\x03") + not_utf8,
        std::string("\x32\x03") + not_utf8, std::string("\x2A\x04\x2A\x00\x2A\x00", 6) /* contents twice */,
        std::string("\x2A\x03\x1A\x01\xFF") /* a dimension cut short */}) {
    RequestHead head;
    EXPECT_EQ(ReadHead(bytes, &head).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Parse(bytes).code(), absl::StatusCode::kInvalidArgument);
  }
  // What a name is quoted as can travel in a header.
  ModelInferRequest request;
  AddInput("a\nb", "INT64", {1}, &request)->set_name("tags\n.lengths");
  AddInput("item", "INT64", {1}, &request);
  EXPECT_THAT(Parse(request).message(), HasSubstr("'item'"));
}

TEST_F(InferRequestAdapterTest, TensorsAreBounded) {
  std::string bytes;
  for (size_t i = 0; i < kMaxTensors; ++i) bytes += std::string("\x2A\0", 2);
  RequestHead head;
  EXPECT_TRUE(ReadHead(bytes, &head).ok());
  bytes += std::string("\x2A\0", 2);
  EXPECT_THAT(ReadHead(bytes, &head).message(), HasSubstr("8192 inputs"));
  bytes.clear();
  for (size_t i = 0; i <= kMaxTensors; ++i) bytes += std::string("\x3A\0", 2);
  EXPECT_THAT(ReadHead(bytes, &head).message(), HasSubstr("8192 raw_input_contents"));
  EXPECT_LT(adapter_.kept_bytes(), 3 << 20);
}

// Whatever the bytes: nothing is read beyond them, what is accepted can be encoded, and admission was not told of fewer
// candidates.
TEST_F(InferRequestAdapterTest, DamagedRequestsAreRefusedOrScored) {
  std::mt19937 random(7);
  const google::protobuf::LogSilencer silencer;
  int accepted = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    const ModelInferRequest good =
        MakeInferRequest(NativeRequest(1 + round % 4, round, round % 5 == 0), Config(), round % 2 == 0);
    std::string bytes = good.SerializeAsString();
    for (int i = 0; i < 1 + round % 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    RequestHead head;
    const absl::Status read = ReadHead(bytes, &head);
    if (!Parse(bytes, round % 3 == 0 ? 0 : 11).ok()) {
      ++refused;
      continue;
    }
    ++accepted;
    ASSERT_GE(head.num_candidates, adapter_.view().num_candidates) << round;
    if (ModelInferRequest full; full.ParseFromString(bytes) && read.ok()) {
      ASSERT_EQ(head.model, full.model_name()) << round;
    }
    if (adapter_.view().num_candidates > 10'000) continue;
    std::vector<float> scores;
    const absl::Status status = Predict(&scores);
    ASSERT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  }
  EXPECT_GT(accepted, 2000);
  EXPECT_GT(refused, 2000);
}

TEST_F(InferRequestAdapterTest, LargeRequestsDoNotKeepTheirMemory) {
  ModelInferRequest large;
  AddInput("item", "INT64", {1'000'000}, &large);
  large.add_raw_input_contents(std::string(8'000'000, '\0'));
  ASSERT_TRUE(Parse(large).ok());
  EXPECT_GT(adapter_.kept_bytes(), WireProtocol::kMaxKeptBytes);
  adapter_.Recycle();
  EXPECT_LT(adapter_.kept_bytes(), 4096);
  RequestHead head;
  ASSERT_TRUE(ReadHead(large.SerializeAsString(), &head).ok());
  EXPECT_EQ(head.num_candidates, 1'000'000);
  EXPECT_LT(adapter_.kept_bytes(), 4096);
  ASSERT_TRUE(Parse(MakeInferRequest(NativeRequest(500, 1, false), Config(), true)).ok());
  adapter_.Recycle();
  EXPECT_GT(adapter_.kept_bytes(), 500 * sizeof(int64_t));  // kept for the next one
}

TEST_F(InferRequestAdapterTest, AnswersAreRawIfTheRequestWas) {
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
