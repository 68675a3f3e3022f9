#include "tools/client/infer_request.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace hilomoe {
namespace {

template <typename Value>
void AppendRaw(const Value* values, size_t count, std::string* raw) {
  raw->append(reinterpret_cast<const char*>(values), count * sizeof(Value));
}

void AddTensor(const std::string& name, const char* datatype, int64_t values, std::string raw,
               inference::ModelInferRequest* request) {
  inference::ModelInferRequest::InferInputTensor* tensor = request->add_inputs();
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  tensor->add_shape(values);
  request->add_raw_input_contents(std::move(raw));
}

void AddColumn(const v1::Column& column, const FeatureSpec& feature, inference::ModelInferRequest* request) {
  std::string raw;
  if (feature.is_numeric()) {
    AppendRaw(column.numbers().data(), static_cast<size_t>(column.numbers_size()), &raw);
    AddTensor(feature.name, "FP32", column.numbers_size(), std::move(raw), request);
  } else if (feature.id_type == v1::Feature::STRING) {
    size_t begin = 0;
    for (const uint32_t bytes : column.string_bytes()) {
      AppendRaw(&bytes, 1, &raw);
      raw.append(column.strings(), begin, bytes);
      begin += bytes;
    }
    AddTensor(feature.name, "BYTES", column.string_bytes_size(), std::move(raw), request);
  } else {
    AppendRaw(column.ids().data(), static_cast<size_t>(column.ids_size()), &raw);
    AddTensor(feature.name, "INT64", column.ids_size(), std::move(raw), request);
  }
  if (column.row_lengths_size() == 0) return;
  std::string lengths;
  AppendRaw(column.row_lengths().data(), static_cast<size_t>(column.row_lengths_size()), &lengths);
  AddTensor(absl::StrCat(feature.name, ".lengths"), "INT32", column.row_lengths_size(), std::move(lengths), request);
}

}  // namespace

inference::ModelInferRequest MakeInferRequest(const v1::ScoreRequest& request, const ModelSpec& spec) {
  inference::ModelInferRequest infer;
  infer.set_model_name(request.model());
  if (request.version() != 0) infer.set_model_version(absl::StrCat(request.version()));
  for (const auto* columns : {&request.context(), &request.candidates()}) {
    for (const v1::Column& column : *columns) {
      for (const FeatureSpec& feature : spec.features()) {
        if (feature.id == column.feature_id()) AddColumn(column, feature, &infer);
      }
    }
  }
  return infer;
}

absl::Span<const float> ScoresOf(const inference::ModelInferResponse& response) {
  if (response.outputs_size() != 1 || response.outputs(0).datatype() != "FP32") return {};
  if (response.raw_output_contents_size() == 0) return response.outputs(0).contents().fp32_contents();
  const std::string& raw = response.raw_output_contents(0);
  if (response.raw_output_contents_size() != 1 || raw.size() % sizeof(float) != 0) return {};
  return {reinterpret_cast<const float*>(raw.data()), raw.size() / sizeof(float)};
}

}  // namespace hilomoe
