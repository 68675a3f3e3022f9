// Writes the seeds of the binary corpora, to be run again when a format changes:
//   write_fuzz_seeds tests/fuzz/corpus
// Inputs that fuzzing found stand beside them under the SHA-1 of their bytes; seeds have names.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "inference/grpc_inference_service.pb.h"
#include "model/checkpoint.h"
#include "runtime/column_view.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/runtime/served_model.h"

namespace hilomoe {
namespace {

constexpr char kEveryBlock[] = R"(
  blocks { width: 6 experts { layers: 2 experts_per_layer: 3 } }
  blocks { width: 5 activation: DICE experts { layers: 2 experts_per_layer: 4 top_k: 2 query_projection: LINEAR } }
  blocks { width: 4 activation: SILU batch_norm: false }
  cross { experts { layers: 1 experts_per_layer: 2 query_norm: NONE } }
  linear: true )";

void Write(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  Require(static_cast<bool>(file.flush()), path);
}

v1::Column* Add(google::protobuf::RepeatedPtrField<v1::Column>* to, uint32_t id,
                std::initializer_list<uint32_t> lengths = {}) {
  v1::Column* column = to->Add();
  column->set_feature_id(id);
  for (const uint32_t length : lengths) column->add_row_lengths(length);
  return column;
}

void AddStrings(v1::Column* column, std::initializer_list<const char*> values) {
  for (const std::string value : values) {
    column->mutable_strings()->append(value);
    column->add_string_bytes(static_cast<uint32_t>(value.size()));
  }
}

void AddIds(v1::Column* column, std::initializer_list<int64_t> values) {
  for (const int64_t value : values) column->add_ids(value);
}

void AddNumbers(v1::Column* column, std::initializer_list<float> values) {
  for (const float value : values) column->add_numbers(value);
}

// Every feature of kAllFeatures and kAlignedSequences; three candidates.
v1::ScoreRequest FullRequest() {
  v1::ScoreRequest request;
  request.set_model("ctr");
  request.set_version(3);
  request.set_num_candidates(3);
  auto *context = request.mutable_context(), *candidates = request.mutable_candidates();
  AddStrings(Add(context, 1), {"s1"});
  AddIds(Add(context, 3, {4}), {100, 105, 777, 101});
  AddNumbers(Add(context, 6), {37});
  AddNumbers(Add(context, 7), {-0.5F});
  AddIds(Add(context, 9, {2}), {102, 103});
  AddStrings(Add(context, 10, {2}), {"s0", "s9"});
  AddIds(Add(candidates, 2), {100, 102, 1});
  AddStrings(Add(candidates, 4, {0, 2, 1}), {"s2", "none", "s4"});
  AddNumbers(Add(candidates, 5, {1, 0, 1}), {-2.5F, 1});
  AddIds(Add(candidates, 8), {-1'000'000'007, 0, 5});
  return request;
}

// The context given for every candidate.
v1::ScoreRequest FlatRequest() {
  v1::ScoreRequest request;
  request.set_num_candidates(2);
  auto* candidates = request.mutable_candidates();
  AddStrings(Add(candidates, 1), {"s1", "s5"});
  AddIds(Add(candidates, 3, {0, 2}), {100, 104});
  AddIds(Add(candidates, 9, {1, 3}), {102, 103, 104, 105});
  AddStrings(Add(candidates, 10, {1, 0}), {"s3"});
  AddIds(Add(candidates, 2), {105, 103});
  AddNumbers(Add(request.mutable_context(), 6), {1e9F});
  return request;
}

// Two tiles; columns by name, one of them unknown.
v1::ScoreRequest LongRequest() {
  v1::ScoreRequest request;
  request.set_num_candidates(70);
  for (const char* name : {"item", "price", "none"}) request.add_candidates()->set_feature(name);
  for (int i = 0; i < 70; ++i) {
    request.mutable_candidates(0)->add_ids(100 + i % 7);
    request.mutable_candidates(1)->add_numbers(static_cast<float>(i));
    request.mutable_candidates(2)->add_row_lengths(0);
  }
  request.mutable_options()->set_timings(true);
  return request;
}

inference::ModelInferRequest::InferInputTensor* AddInput(inference::ModelInferRequest* request, const char* name,
                                                         const char* datatype, std::initializer_list<int64_t> shape) {
  auto* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  for (const int64_t extent : shape) input->add_shape(extent);
  return input;
}

inference::ModelInferRequest TypedRequest() {
  inference::ModelInferRequest request;
  request.set_model_name("ctr");
  request.set_model_version("stable");
  request.set_id("1");
  (*request.mutable_parameters())["timeout"].set_int64_param(1000);
  request.add_outputs()->set_name("scores");
  AddInput(&request, "user", "BYTES", {1, 1})->mutable_contents()->add_bytes_contents("s1");
  for (const int64_t id : {100, 105}) {
    if (request.inputs_size() < 2) AddInput(&request, "history", "INT64", {1, 2});
    request.mutable_inputs(1)->mutable_contents()->add_int64_contents(id);
  }
  AddInput(&request, "age", "FP64", {1})->mutable_contents()->add_fp64_contents(37);
  AddInput(&request, "days", "BOOL", {2})->mutable_contents()->add_bool_contents(true);
  request.mutable_inputs(3)->mutable_contents()->add_bool_contents(false);
  auto* item = AddInput(&request, "item", "INT32", {2})->mutable_contents();
  item->add_int_contents(101);
  item->add_int_contents(-1);
  auto* tags = AddInput(&request, "tags", "BYTES", {3})->mutable_contents();
  for (const char* tag : {"s2", "", "s4"}) tags->add_bytes_contents(tag);
  auto* lengths = AddInput(&request, "tags.lengths", "UINT32", {2})->mutable_contents();
  lengths->add_uint_contents(3);
  lengths->add_uint_contents(0);
  auto* price = AddInput(&request, "price", "FP32", {2, 1})->mutable_contents();
  price->add_fp32_contents(-2.5F);
  price->add_fp32_contents(1);
  auto* hash = AddInput(&request, "hash", "UINT64", {2})->mutable_contents();
  hash->add_uint64_contents(~uint64_t{0});
  hash->add_uint64_contents(7);
  AddInput(&request, "none", "FP32", {1})->mutable_contents()->add_fp32_contents(1);
  return request;
}

template <typename T>
std::string Raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

std::string RawStrings(std::initializer_list<const char*> values) {
  std::string raw;
  for (const std::string value : values) raw += Raw<uint32_t>({static_cast<uint32_t>(value.size())}) + value;
  return raw;
}

inference::ModelInferRequest RawRequest() {
  inference::ModelInferRequest request;
  request.set_model_version("3");
  AddInput(&request, "clicks", "INT64", {2});
  request.add_raw_input_contents(Raw<int64_t>({102, 103}));
  AddInput(&request, "clicks.lengths", "INT64", {1});
  request.add_raw_input_contents(Raw<int64_t>({2}));
  AddInput(&request, "topics", "BYTES", {1, 2});
  request.add_raw_input_contents(RawStrings({"s0", "s9"}));
  AddInput(&request, "item", "INT16", {3});
  request.add_raw_input_contents(Raw<int16_t>({100, -1, 102}));
  AddInput(&request, "price", "FP16", {2});
  request.add_raw_input_contents(Raw<uint16_t>({0x3C00, 0x0001}));
  AddInput(&request, "price.lengths", "UINT8", {3, 1});
  request.add_raw_input_contents(Raw<uint8_t>({1, 0, 1}));
  AddInput(&request, "age", "BF16", {1});
  request.add_raw_input_contents(Raw<uint16_t>({0x4220}));
  AddInput(&request, "hash", "INT8", {3});
  request.add_raw_input_contents(Raw<int8_t>({-1, 0, 1}));
  AddInput(&request, "days", "FP32", {1});
  request.add_raw_input_contents(Raw<float>({0.25F}));
  return request;
}

void WriteModel(const std::string& path, const std::string& config, const StoragePrecision& precision) {
  ServedModel model(config, 1, precision);
  v1::GoldenRequest& golden = *model.contents.header.add_golden();
  const v1::ScoreRequest request = FullRequest();
  golden.set_num_candidates(request.num_candidates());
  *golden.mutable_context() = request.context();
  *golden.mutable_candidates() = request.candidates();
  const std::unique_ptr<Predictor> predictor = model.Open(kernels::InstructionSet::kPortable);
  Workspace workspace(*predictor);
  std::vector<ColumnView> context, candidates;
  AppendColumnViews(request.context(), &context);
  AppendColumnViews(request.candidates(), &candidates);
  std::vector<float> scores(request.num_candidates());
  const absl::Status scored =
      predictor->Predict({scores.size(), context, candidates}, &workspace, absl::MakeSpan(scores));
  Require(scored.ok(), scored.ToString());
  for (const float score : scores) golden.add_scores(score);
  model.contents.header.set_golden_tolerance(0.02);  // the instruction sets round differently
  model.contents.header.mutable_provenance()->set_created_by("hilomoe");
  (*model.contents.header.mutable_provenance()->mutable_metrics())["valid.auc"] = 0.7;
  auto* layer = model.contents.header.add_utilisation()->add_layers();
  layer->add_expert(1);
  const absl::Status written = WriteModelFile(path, [&] {
    // ServedModel has dropped the folded tensors.
    static std::vector<std::vector<float>> tensors;
    const TensorRegistry serving = TensorRegistry::ForServing(model.spec, model.table_rows);
    tensors = FoldTensors(model.spec, model.training, serving, model.weights);
    model.contents.tensors.assign(tensors.begin(), tensors.end());
    return model.contents;
  }());
  Require(written.ok(), written.ToString());
}

// As checkpoint_fuzz.cc has it.
void WriteCheckpointInput(const std::string& path) {
  Checkpoint checkpoint;
  *checkpoint.config.mutable_model() = ModelConfigFromText(
      absl::StrCat(kAllFeatures, "network { blocks { width: 2 experts { layers: 1 experts_per_layer: 2 } } }"));
  const ModelSpec spec = *ModelSpec::Create(checkpoint.config.model());
  for (const TableSpec& table : spec.tables()) {
    VocabularyIds& ids = checkpoint.vocabularies.emplace_back();
    if (!table.has_vocabulary()) continue;
    if (table.id_type == v1::Feature::INT64) {
      ids.int64s = {100, -7};
    } else {
      ids.strings = {"a", "", "bc"};
    }
  }
  checkpoint.weights.resize(TensorRegistry::ForTraining(spec, checkpoint.TableRows(spec)).size(), 0.5F);
  checkpoint.metrics = {{"valid.auc", 0.75}};
  checkpoint.utilisation.emplace_back().add_layers()->add_expert(0.5F);
  checkpoint.samples.set_num_candidates(1);
  AddIds(Add(checkpoint.samples.mutable_candidates(), 2), {3});
  const std::string directory = ScratchDirectory() + "/checkpoint";
  const absl::Status written = hilomoe::WriteCheckpoint(directory, checkpoint);
  Require(written.ok(), written.ToString());
  std::string bytes;
  for (const char* name :
       {"config.textproto", "weights.safetensors", "vocabularies.safetensors", "metrics.json", "samples.binpb"}) {
    const std::string file = ReadBytes(directory + "/" + name);
    bytes += Raw<uint32_t>({static_cast<uint32_t>(file.size())}) + file;
  }
  Write(path, bytes);
}

void Run(const std::string& corpus) {
  Write(corpus + "/score_request/full", FullRequest().SerializeAsString());
  Write(corpus + "/score_request/flat", FlatRequest().SerializeAsString());
  Write(corpus + "/score_request/long", LongRequest().SerializeAsString());
  Write(corpus + "/infer_request/typed", TypedRequest().SerializeAsString());
  Write(corpus + "/infer_request/raw", RawRequest().SerializeAsString());
  WriteCheckpointInput(corpus + "/checkpoint/small");
  std::filesystem::create_directories(corpus + "/model_file");
  const std::string features = absl::StrCat(kAllFeatures, kAlignedSequences);
  WriteModel(corpus + "/model_file/every_feature", absl::StrCat(features, "network {", kAttention, kEveryBlock, "}"),
             {});
  WriteModel(corpus + "/model_file/int8_bfloat16", absl::StrCat(kAllFeatures, "network {", kEveryBlock, "}"),
             {Precision::kInt8, Precision::kBfloat16, Precision::kInt8});
  WriteModel(corpus + "/model_file/no_blocks", absl::StrCat(kAllFeatures, "network { linear: true }"),
             {Precision::kBfloat16, Precision::kFloat32, Precision::kFloat32});
}

}  // namespace
}  // namespace hilomoe

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_fuzz_seeds CORPUS_DIRECTORY\n");
    return 2;
  }
  hilomoe::Run(argv[1]);
  return 0;
}
