#include "server/inference_metadata.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "server/infer_request_adapter.h"

namespace hilomoe {
namespace {

using TensorMetadata = inference::ModelMetadataResponse::TensorMetadata;

constexpr char kInputsProperty[] =
    "One tensor per feature. The first dimension is 1 for CONTEXT features and the number of candidates for CANDIDATE "
    "features; shapes are [n] or [n, 1]. A BAG or SEQUENCE has the values of all rows one after another and a tensor "
    "'<feature>.lengths' with the number of values of each row, or the shape [n, k] where every row has k. Any feature "
    "may have lengths; a row of length 0 is missing.";

absl::StatusOr<std::shared_ptr<const ServedModel>> FindModel(const ModelTable& table, const std::string& name,
                                                             const std::string& version) {
  VersionOrLabel wanted;
  HILOMOE_RETURN_IF_ERROR(ParseModelVersion(version, &wanted));
  return table.Find(name, wanted.version, wanted.label);
}

void AddTensor(const std::string& name, const char* datatype, int64_t rows, TensorMetadata* tensor) {
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  tensor->add_shape(rows);
}

void AddFeature(const FeatureSpec& feature, inference::ModelMetadataResponse* response) {
  constexpr int64_t kAnyNumber = -1;
  const int64_t rows = feature.is_context() ? 1 : kAnyNumber;
  const char* datatype = feature.is_numeric() ? "FP32" : feature.id_type == v1::Feature::STRING ? "BYTES" : "INT64";
  AddTensor(feature.name, datatype, feature.is_pooled() ? kAnyNumber : rows, response->add_inputs());
  if (feature.is_pooled()) {
    AddTensor(absl::StrCat(feature.name, kLengthsSuffix), "INT32", rows, response->add_inputs());
  }
  std::string property =
      absl::StrCat(v1::Feature::Scope_Name(feature.scope), " ", v1::Feature::Kind_Name(feature.kind));
  if (feature.is_pooled()) absl::StrAppend(&property, ", at most ", feature.max_length, " values count");
  if (feature.required) absl::StrAppend(&property, ", required");
  if (feature.default_value) absl::StrAppend(&property, ", default '", *feature.default_value, "'");
  (*response->mutable_properties())[absl::StrCat("feature.", feature.name)] = property;
}

const char* StateName(ModelState state) {
  switch (state) {
    case ModelState::kAvailable:
      return "READY";
    case ModelState::kLoading:
      return "LOADING";
    case ModelState::kUnloading:
      return "UNLOADING";
    default:
      return "UNAVAILABLE";
  }
}

absl::Status FillIndex(const ModelRepository& repository, const inference::RepositoryIndexRequest& request,
                       std::string ModelStatus::*reason, inference::RepositoryIndexResponse* response) {
  HILOMOE_RETURN_IF_ERROR(CheckRepositoryName(request.repository_name()));
  for (const ModelStatus& status : repository.Index()) {
    if (request.ready() && status.state != ModelState::kAvailable) continue;
    auto* model = response->add_models();
    model->set_name(status.model);
    if (status.version != 0) model->set_version(absl::StrCat(status.version));
    model->set_state(StateName(status.state));
    model->set_reason(status.*reason);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("repository_name: there is one repository; leave the name empty");
}

absl::Status InferenceMetadata::ServerLive(const inference::ServerLiveRequest&,
                                           inference::ServerLiveResponse* response) const {
  response->set_live(true);
  return absl::OkStatus();
}

absl::Status InferenceMetadata::ServerReady(const inference::ServerReadyRequest&,
                                            inference::ServerReadyResponse* response) const {
  response->set_ready(metrics_->ready() && !repository_->table()->models().empty());
  return absl::OkStatus();
}

absl::Status InferenceMetadata::ModelReady(const inference::ModelReadyRequest& request,
                                           inference::ModelReadyResponse* response) const {
  const auto model = FindModel(*repository_->table(), request.name(), request.version());
  if (absl::IsInvalidArgument(model.status())) return model.status();
  response->set_ready(model.ok() && (*model)->CheckIntact().ok());
  return absl::OkStatus();
}

absl::Status InferenceMetadata::ServerMetadata(const inference::ServerMetadataRequest&,
                                               inference::ServerMetadataResponse* response) const {
  response->set_name("hilomoe");
  response->set_version(HILOMOE_VERSION);
  response->add_extensions("model_repository");
  return absl::OkStatus();
}

absl::Status InferenceMetadata::ModelMetadata(const inference::ModelMetadataRequest& request,
                                              inference::ModelMetadataResponse* response) const {
  const auto table = repository_->table();
  HILOMOE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedModel> model,
                           FindModel(*table, request.name(), request.version()));
  response->set_name(model->name());
  for (const auto& served : table->models()) {
    if (served->name() == model->name()) response->add_versions(absl::StrCat(served->version()));
  }
  response->set_platform("hilomoe");
  for (const FeatureSpec& feature : model->predictor().file().spec().features()) AddFeature(feature, response);
  AddTensor(kScoresOutput, "FP32", -1, response->add_outputs());
  (*response->mutable_properties())["inputs"] = kInputsProperty;
  return absl::OkStatus();
}

absl::Status InferenceMetadata::RepositoryIndex(const inference::RepositoryIndexRequest& request,
                                                inference::RepositoryIndexResponse* response) const {
  return FillIndex(*repository_, request, &ModelStatus::reason, response);
}

absl::Status InferenceMetadata::PublicRepositoryIndex(const inference::RepositoryIndexRequest& request,
                                                      inference::RepositoryIndexResponse* response) const {
  return FillIndex(*repository_, request, &ModelStatus::public_reason, response);
}

}  // namespace hilomoe
