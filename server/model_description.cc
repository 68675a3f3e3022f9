#include "server/model_description.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "model/stored_matrix.h"

namespace hilomoe {
namespace {

// The coarsest of a group: a block that has to stay float32 does so in every model.
class GroupPrecision {
 public:
  void Add(const StoredMatrix* matrix) {
    if (matrix != nullptr) coarsest_ = std::max(coarsest_.value_or(matrix->precision), matrix->precision);
  }
  std::string Name() const { return coarsest_ ? PrecisionName(*coarsest_) : ""; }

 private:
  std::optional<Precision> coarsest_;
};

void DescribeVersion(const ServedModel& model, v1::GetModelResponse* response) {
  const ModelFile& file = model.predictor().file();
  const v1::ModelFileHeader& header = file.header();
  response->set_version(model.version());
  *response->mutable_config() = header.config();
  response->set_created(header.provenance().created());
  response->set_created_by(header.provenance().created_by());
  response->set_label(header.provenance().label());
  response->set_group_by(header.provenance().group_by());
  *response->mutable_metrics() = header.provenance().metrics();
  GroupPrecision embeddings, dense, experts;
  for (const StoredMatrix* table : file.matrices().features.tables) embeddings.Add(table);
  for (const auto& block : file.matrices().blocks) {
    dense.Add(block.stacked_weight);
    experts.Add(block.u);
  }
  response->set_embedding_precision(embeddings.Name());
  response->set_dense_precision(dense.Name());
  response->set_expert_precision(experts.Name());
  const ModelFacts& facts = model.shared_metrics()->facts();
  response->set_instruction_set(facts.instruction_set);
  response->mutable_memory()->set_kind(facts.memory);
  response->mutable_memory()->set_bytes(facts.bytes);
}

void DescribeVersions(std::vector<ModelStatus> index, v1::GetModelResponse* response) {
  std::stable_sort(index.begin(), index.end(),
                   [](const ModelStatus& a, const ModelStatus& b) { return a.version > b.version; });
  for (const ModelStatus& status : index) {
    if (status.model != response->model() || status.version == 0) continue;
    v1::GetModelResponse::Version* version = response->add_versions();
    version->set_version(status.version);
    version->set_state(ModelStateName(status.state));
    version->set_reason(status.public_reason);
    for (const std::string& label : status.labels) version->add_labels(label);
    version->set_since_seconds(status.since_seconds);
    version->set_failures(status.failures);
  }
}

}  // namespace

absl::Status DescribeModel(const ModelRepository& repository, const v1::GetModelRequest& request,
                           v1::GetModelResponse* response) {
  const std::shared_ptr<const ModelTable> table = repository.table();
  const auto model = table->Find(request.model(), request.version(), request.label());
  if (model.ok()) {
    response->set_model((*model)->name());
    DescribeVersion(**model, response);
  } else {
    if (request.version() != 0 || !request.label().empty() || !absl::IsUnavailable(model.status())) {
      return model.status();
    }
    response->set_model(request.model().empty() ? table->known().begin()->first : request.model());
  }
  DescribeVersions(repository.Index(), response);
  return model.ok() || response->versions_size() > 0 ? absl::OkStatus() : model.status();
}

}  // namespace hilomoe
