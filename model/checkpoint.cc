#include "model/checkpoint.h"

#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "model/encoded_batch.h"
#include "model/file_io.h"
#include "model/safetensors.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN and no infinity; the writer puts null for them.
double NumberOrNan(const Json& json) { return json.is_null() ? std::nan("") : json.get<double>(); }

Json MetricsJson(const Checkpoint& checkpoint) {
  Json json = {{"metrics", checkpoint.metrics}, {"utilisation", Json::array()}};
  for (const auto& block : checkpoint.utilisation) {
    Json layers = Json::array();
    for (const auto& layer : block.layers()) {
      layers.push_back(
          {{"expert", std::vector<float>(layer.expert().begin(), layer.expert().end())}, {"entropy", layer.entropy()}});
    }
    json["utilisation"].push_back({{"block", block.block()}, {"layers", layers}});
  }
  return json;
}

absl::Status ParseMetrics(const std::string& path, Checkpoint* checkpoint) {
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  try {
    const Json json = Json::parse(text);
    for (const auto& [name, value] : json.at("metrics").items()) checkpoint->metrics[name] = NumberOrNan(value);
    for (const Json& block : json.at("utilisation")) {
      auto& out = checkpoint->utilisation.emplace_back();
      out.set_block(block.at("block").get<uint32_t>());
      for (const Json& layer : block.at("layers")) {
        auto* to = out.add_layers();
        for (const Json& share : layer.at("expert")) to->add_expert(static_cast<float>(NumberOrNan(share)));
        to->set_entropy(static_cast<float>(NumberOrNan(layer.at("entropy"))));
      }
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "': ", error.what()));
  }
  return absl::OkStatus();
}

template <typename Id>
bool AllDiffer(const std::vector<Id>& ids) {
  return absl::flat_hash_set<Id>(ids.begin(), ids.end()).size() == ids.size();
}

}  // namespace

std::vector<uint32_t> TableRows(const ModelSpec& spec, const std::vector<VocabularyIds>& vocabularies) {
  std::vector<uint32_t> rows;
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    const size_t own = table.has_vocabulary() ? vocabularies[i].size() : table.hash_buckets + table.buckets;
    rows.push_back(kReservedRows + static_cast<uint32_t>(own));
  }
  return rows;
}

std::vector<uint32_t> Checkpoint::TableRows(const ModelSpec& spec) const {
  return hilomoe::TableRows(spec, vocabularies);
}

absl::Status WriteVocabularies(const std::string& path, const ModelSpec& spec,
                               const std::vector<VocabularyIds>& vocabularies) {
  std::vector<SafetensorsEntry> entries;
  std::vector<std::string> bytes(spec.tables().size());
  std::vector<std::vector<int64_t>> ends(spec.tables().size());
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    if (!table.has_vocabulary()) continue;
    if (table.id_type == v1::Feature::INT64) {
      const absl::Span<const int64_t> ids = vocabularies[i].int64s;
      entries.push_back(MakeEntry(table.feature + ".ids", "I64", {ids.size()}, ids));
      continue;
    }
    for (const std::string& id : vocabularies[i].strings) {
      bytes[i] += id;
      ends[i].push_back(static_cast<int64_t>(bytes[i].size()));
    }
    entries.push_back({table.feature + ".bytes", "U8", {bytes[i].size()}, bytes[i]});
    entries.push_back(MakeEntry(table.feature + ".ends", "I64", {ends[i].size()}, absl::MakeConstSpan(ends[i])));
  }
  return WriteSafetensors(path, entries);
}

absl::StatusOr<std::vector<VocabularyIds>> ReadVocabularies(const std::string& path, const ModelSpec& spec) {
  HILOMOE_ASSIGN_OR_RETURN(const Safetensors file, Safetensors::Read(path));
  std::vector<VocabularyIds> vocabularies(spec.tables().size());
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    if (!table.has_vocabulary()) continue;
    if (table.id_type == v1::Feature::INT64) {
      HILOMOE_ASSIGN_OR_RETURN(vocabularies[i].int64s, file.Int64s(table.feature + ".ids"));
      continue;
    }
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, file.Bytes(table.feature + ".bytes"));
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> ends, file.Int64s(table.feature + ".ends"));
    int64_t begin = 0;
    for (const int64_t end : ends) {
      if (end < begin || end > static_cast<int64_t>(bytes.size())) {
        return absl::DataLossError(absl::StrCat("'", path, "': '", table.feature, ".ends' does not ascend"));
      }
      vocabularies[i].strings.emplace_back(bytes.begin() + begin, bytes.begin() + end);
      begin = end;
    }
    if (begin != static_cast<int64_t>(bytes.size())) {
      return absl::DataLossError(absl::StrCat("'", path, "': '", table.feature, ".ends' does not end with the bytes"));
    }
  }
  // No look-up table can be built of ids that stand twice.
  for (size_t i = 0; i < vocabularies.size(); ++i) {
    if (AllDiffer(vocabularies[i].int64s) && AllDiffer(vocabularies[i].strings)) continue;
    return absl::DataLossError(
        absl::StrCat("'", path, "': an id of feature '", spec.tables()[i].feature, "' stands twice"));
  }
  return vocabularies;
}

absl::Status WriteCheckpoint(const std::string& path, const Checkpoint& checkpoint) {
  HILOMOE_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Create(checkpoint.config.model()));
  HILOMOE_ASSIGN_OR_RETURN(AtomicDirectory directory, AtomicDirectory::Create(path));
  const std::string& staging = directory.staging_path();

  std::string config;
  google::protobuf::TextFormat::PrintToString(checkpoint.config, &config);
  HILOMOE_RETURN_IF_ERROR(WriteFile(staging + "/config.textproto", config));

  const TensorRegistry registry = TensorRegistry::ForTraining(spec, checkpoint.TableRows(spec));
  std::vector<SafetensorsEntry> entries;
  for (const TensorSpec& tensor : registry.tensors()) {
    entries.push_back(MakeEntry(tensor.name, "F32", tensor.shape,
                                absl::MakeConstSpan(checkpoint.weights).subspan(tensor.offset, tensor.size)));
  }
  HILOMOE_RETURN_IF_ERROR(WriteSafetensors(staging + "/weights.safetensors", entries));
  HILOMOE_RETURN_IF_ERROR(WriteVocabularies(staging + "/vocabularies.safetensors", spec, checkpoint.vocabularies));
  const std::string metrics = MetricsJson(checkpoint).dump(2, ' ', false, Json::error_handler_t::replace);
  HILOMOE_RETURN_IF_ERROR(WriteFile(staging + "/metrics.json", metrics + "\n"));
  HILOMOE_RETURN_IF_ERROR(WriteFile(staging + "/samples.binpb", checkpoint.samples.SerializeAsString()));
  return directory.Commit();
}

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path) {
  Checkpoint checkpoint;
  ModelSpec spec;
  HILOMOE_RETURN_IF_ERROR(ReadTextProto(path + "/config.textproto", &checkpoint.config, [&] {
    absl::StatusOr<ModelSpec> created = ModelSpec::Create(checkpoint.config.model());
    if (!created.ok()) return InField("model", created.status());
    spec = *std::move(created);
    return absl::OkStatus();
  }));
  HILOMOE_ASSIGN_OR_RETURN(checkpoint.vocabularies, ReadVocabularies(path + "/vocabularies.safetensors", spec));
  HILOMOE_ASSIGN_OR_RETURN(const Safetensors weights, Safetensors::Read(path + "/weights.safetensors"));
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, checkpoint.TableRows(spec));
  // A config may ask for more than any memory holds; the file must have it first.
  if (registry.size() <= weights.bytes() / sizeof(float)) checkpoint.weights.reserve(registry.size());
  for (const TensorSpec& tensor : registry.tensors()) {
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<float> values, weights.Floats(tensor.name, tensor.shape));
    checkpoint.weights.insert(checkpoint.weights.end(), values.begin(), values.end());
  }
  HILOMOE_RETURN_IF_ERROR(ParseMetrics(path + "/metrics.json", &checkpoint));
  HILOMOE_ASSIGN_OR_RETURN(const std::string samples, ReadFile(path + "/samples.binpb"));
  if (!checkpoint.samples.ParseFromString(samples)) {
    return absl::DataLossError(absl::StrCat("'", path, "/samples.binpb' cannot be parsed"));
  }
  return checkpoint;
}

}  // namespace hilomoe
