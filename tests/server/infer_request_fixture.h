// An adapter of v2 requests, and a model for them.
#ifndef HILOMOE_TESTS_SERVER_INFER_REQUEST_FIXTURE_H_
#define HILOMOE_TESTS_SERVER_INFER_REQUEST_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "infer_request.h"
#include "server/infer_request_adapter.h"
#include "server/served_model.h"
#include "test_model.h"

namespace hilomoe {

class InferRequestFixture : public ::testing::Test {
 protected:
  // A second string feature, so that values of one kind come from several tensors.
  static v1::ModelConfig Config() {
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
  // One context, or the context again in every row.
  static v1::ScoreRequest NativeRequest(uint32_t n, uint32_t seed, bool flat) {
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
  absl::Status Parse(const inference::ModelInferRequest& request) { return Parse(request.SerializeAsString()); }
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

  static inline TemporaryDirectory* directory_ = nullptr;
  static inline std::string* path_ = nullptr;
  static inline std::shared_ptr<const ServedModel>* model_ = nullptr;
  InferRequestAdapter adapter_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_INFER_REQUEST_FIXTURE_H_
