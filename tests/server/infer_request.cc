#include "infer_request.h"

#include <gtest/gtest.h>

namespace hilomoe {
namespace {

const v1::Feature& FeatureOf(const v1::Column& column, const v1::ModelConfig& config) {
  for (const v1::Feature& feature : config.features()) {
    if (column.feature_id() != 0 ? feature.id() == column.feature_id() : feature.name() == column.feature()) {
      return feature;
    }
  }
  ADD_FAILURE() << "no such feature: " << column.DebugString();
  return v1::Feature::default_instance();
}

std::vector<std::string> Strings(const v1::Column& column) {
  std::vector<std::string> strings;
  size_t begin = 0;
  for (const uint32_t bytes : column.string_bytes()) {
    strings.push_back(column.strings().substr(begin, bytes));
    begin += bytes;
  }
  return strings;
}

void AddColumn(const v1::Column& column, const v1::Feature& feature, int64_t rows, bool raw,
               inference::ModelInferRequest* request) {
  const bool numbers = feature.kind() == v1::Feature::NUMERIC;
  const bool strings = !numbers && feature.id_type() == v1::Feature::STRING;
  int64_t values = rows;
  if (column.row_lengths_size() > 0) {
    values = 0;
    for (const uint32_t length : column.row_lengths()) values += length;
  }
  auto* tensor = AddInput(feature.name(), numbers ? "FP32" : strings ? "BYTES" : "INT64", {values}, request);
  if (raw) {
    request->add_raw_input_contents(
        numbers   ? RawBytes(std::vector<float>(column.numbers().begin(), column.numbers().end()))
        : strings ? RawStrings(Strings(column))
                  : RawBytes(std::vector<int64_t>(column.ids().begin(), column.ids().end())));
  } else if (numbers) {
    *tensor->mutable_contents()->mutable_fp32_contents() = column.numbers();
  } else if (strings) {
    for (const std::string& text : Strings(column)) tensor->mutable_contents()->add_bytes_contents(text);
  } else {
    for (const int64_t id : column.ids()) tensor->mutable_contents()->add_int64_contents(id);
  }
  if (column.row_lengths_size() == 0) return;
  auto* lengths = AddInput(feature.name() + ".lengths", "INT32", {rows}, request);
  const std::vector<int32_t> row_lengths(column.row_lengths().begin(), column.row_lengths().end());
  if (raw) {
    request->add_raw_input_contents(RawBytes(row_lengths));
  } else {
    lengths->mutable_contents()->mutable_int_contents()->Add(row_lengths.begin(), row_lengths.end());
  }
}

}  // namespace

inference::ModelInferRequest::InferInputTensor* AddInput(const std::string& name, const std::string& datatype,
                                                         const std::vector<int64_t>& shape,
                                                         inference::ModelInferRequest* request) {
  auto* tensor = request->add_inputs();
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  tensor->mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

std::string RawStrings(const std::vector<std::string>& values) {
  std::string raw;
  for (const std::string& value : values) {
    raw += RawBytes(std::vector<uint32_t>{static_cast<uint32_t>(value.size())}) + value;
  }
  return raw;
}

inference::ModelInferRequest MakeInferRequest(const v1::ScoreRequest& request, const v1::ModelConfig& config,
                                              bool raw) {
  inference::ModelInferRequest infer;
  infer.set_model_name(request.model());
  for (const v1::Column& column : request.context()) AddColumn(column, FeatureOf(column, config), 1, raw, &infer);
  for (const v1::Column& column : request.candidates()) {
    AddColumn(column, FeatureOf(column, config), request.num_candidates(), raw, &infer);
  }
  return infer;
}

}  // namespace hilomoe
