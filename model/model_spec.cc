#include "model/model_spec.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

// Far above any sensible model, low enough that no product of sizes overflows.
constexpr uint32_t kMaxWidth = 1 << 14;
constexpr uint32_t kMaxLength = 1 << 16;
constexpr uint32_t kMaxExperts = 256;
constexpr uint32_t kMaxLayers = 64;
constexpr uint32_t kMaxStack = 4096;  // of all layers; the kernels keep a row's scores on the stack
constexpr uint32_t kMaxTableRows = 1u << 30;
// Numbers of an attention's history. Every evaluating thread has room for two of them, while two rows of a table are
// enough for a file that asks for it.
constexpr size_t kMaxHistory = size_t{1} << 22;

// A JSON string is UTF-8, and the library checks it.
bool IsUtf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

bool HasIds(const v1::Feature& feature) { return feature.kind() != v1::Feature::NUMERIC; }

absl::Status CheckRange(std::string_view field, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, absl::StrCat(value, " is not between ", least, " and ", most));
}

absl::Status CheckDefault(const v1::Feature& feature) {
  if (!feature.has_default_value()) return absl::OkStatus();
  if (feature.required()) return FieldError("default_value", "a required feature is never absent; drop one of the two");
  const std::string& value = feature.default_value();
  if (HasIds(feature) && feature.id_type() == v1::Feature::INT64) {
    for (const std::string_view cell : DefaultIds(feature.kind(), value)) {
      int64_t id = 0;
      if (!absl::SimpleAtoi(absl::string_view(cell.data(), cell.size()), &id)) {
        return FieldError("default_value", absl::StrCat("'", std::string(cell), "' is not an INT64 id"));
      }
    }
  }
  float number = 0;
  if (!HasIds(feature) && (!absl::SimpleAtof(value, &number) || !std::isfinite(number))) {
    return FieldError("default_value", absl::StrCat("'", value, "' is not a finite number"));
  }
  return absl::OkStatus();
}

absl::Status CheckIdFeature(const v1::Feature& feature) {
  if (feature.id_type() == v1::Feature::ID_TYPE_UNSPECIFIED) {
    return FieldError("id_type", "say INT64 or STRING; file and wire follow it");
  }
  if (feature.has_numeric()) return FieldError("numeric", "belongs to NUMERIC features only");
  if (feature.pooling() == v1::Feature::NONE && feature.kind() != v1::Feature::SEQUENCE) {
    return FieldError("pooling", "NONE belongs to SEQUENCE features only");
  }
  HILOMOE_RETURN_IF_ERROR(CheckRange("max_length", feature.max_length(), 1, kMaxLength));
  if (feature.has_share_embedding()) {
    if (feature.has_vocabulary()) return FieldError("vocabulary", "belongs to the feature whose embedding is shared");
    return absl::OkStatus();
  }
  HILOMOE_RETURN_IF_ERROR(CheckRange("embedding_width", feature.embedding_width(), 1, kMaxWidth));
  const v1::Vocabulary& vocabulary = feature.vocabulary();
  if (vocabulary.hash_buckets() > 0) {
    if (vocabulary.has_min_count() || vocabulary.has_max_size()) {
      return FieldError("vocabulary.hash_buckets", "hashing keeps no vocabulary; drop min_count and max_size");
    }
    return CheckRange("vocabulary.hash_buckets", vocabulary.hash_buckets(), 1, kMaxTableRows);
  }
  HILOMOE_RETURN_IF_ERROR(CheckRange("vocabulary.max_size", vocabulary.max_size(), 0, kMaxTableRows));
  return CheckRange("vocabulary.min_count", vocabulary.min_count(), 1, UINT32_MAX);
}

absl::Status CheckNumericFeature(const v1::Feature& feature) {
  if (feature.id_type() != v1::Feature::ID_TYPE_UNSPECIFIED)
    return FieldError("id_type", "a NUMERIC feature has no ids");
  if (feature.has_share_embedding()) return FieldError("share_embedding", "a NUMERIC feature has no table to share");
  if (feature.has_vocabulary()) return FieldError("vocabulary", "a NUMERIC feature has no vocabulary");
  HILOMOE_RETURN_IF_ERROR(CheckRange("embedding_width", feature.embedding_width(), 0, kMaxWidth));
  const v1::Numeric& numeric = feature.numeric();
  if (numeric.transform() == v1::Numeric::QUANTILE) {
    HILOMOE_RETURN_IF_ERROR(CheckRange("numeric.buckets", numeric.buckets(), 2, 1 << 16));
    if (feature.embedding_width() == 0) return FieldError("embedding_width", "QUANTILE buckets are embedded; say >= 1");
    if (numeric.missing_indicator()) {
      return FieldError("numeric.missing_indicator", "QUANTILE has a row of its own for a missing number");
    }
  } else if (numeric.has_buckets()) {
    return FieldError("numeric.buckets", "belongs to QUANTILE");
  }
  return absl::OkStatus();
}

absl::Status SetExperts(const v1::Experts& experts, BlockSpec* spec) {
  HILOMOE_RETURN_IF_ERROR(CheckRange("layers", experts.layers(), 0, kMaxLayers));
  if (experts.layers() > 0) {
    HILOMOE_RETURN_IF_ERROR(CheckRange("experts_per_layer", experts.experts_per_layer(), 1, kMaxExperts));
    HILOMOE_RETURN_IF_ERROR(CheckRange("top_k", experts.top_k(), 0, experts.experts_per_layer()));
    if (experts.layers() * experts.experts_per_layer() > kMaxStack) {
      return FieldError("layers", absl::StrCat("layers * experts_per_layer exceeds ", kMaxStack));
    }
    if (experts.top_k() == 1 && experts.experts_per_layer() > 1) {
      return FieldError("top_k", "1 gives the router no gradient: every score is 1; keep 2 or more");
    }
  }
  spec->layers = experts.layers();
  spec->experts = spec->layers > 0 ? experts.experts_per_layer() : 0;
  spec->top_k = experts.top_k() < spec->experts ? experts.top_k() : 0;
  spec->calibrated = experts.routing_scale() == v1::Experts::CALIBRATED;
  spec->unit_query = experts.query_norm() == v1::Experts::UNIT;
  spec->hierarchical = experts.hierarchical();
  spec->projected_query = spec->layers > 0 && experts.query_projection() == v1::Experts::LINEAR;
  if (spec->projected_query && !spec->calibrated) {
    return FieldError("query_projection", "a PAPER router is constant; LINEAR needs CALIBRATED");
  }
  return absl::OkStatus();
}

absl::StatusOr<BlockSpec> MakeBlock(const v1::Block& block, size_t input) {
  HILOMOE_RETURN_IF_ERROR(CheckRange("width", block.width(), 1, kMaxWidth));
  if (!(block.dropout() >= 0 && block.dropout() < 1)) return FieldError("dropout", "must be in [0, 1)");
  BlockSpec spec;
  spec.input = input;
  spec.width = block.width();
  HILOMOE_RETURN_IF_ERROR(InField("experts", SetExperts(block.experts(), &spec)));
  spec.batch_norm = block.batch_norm();
  spec.activation = block.activation();
  spec.dropout = block.dropout();
  return spec;
}

absl::StatusOr<BlockSpec> MakeCrossLayer(const v1::CrossLayer& layer, size_t input) {
  HILOMOE_RETURN_IF_ERROR(CheckRange("cross", input, 1, kMaxWidth));
  BlockSpec spec;
  spec.input = spec.width = input;
  HILOMOE_RETURN_IF_ERROR(InField("experts", SetExperts(layer.experts(), &spec)));
  spec.batch_norm = false;
  spec.activation = v1::Block::IDENTITY;
  return spec;
}

}  // namespace

absl::StatusOr<ModelSpec> ModelSpec::Create(const v1::ModelConfig& config) {
  ModelSpec spec;
  spec.config_ = config;
  if (config.features().empty()) return FieldError("features", "a model needs at least one feature");
  for (int i = 0; i < config.features_size(); ++i) {
    HILOMOE_RETURN_IF_ERROR(InField(absl::StrCat("features[", i, "]"), spec.AddFeature(config.features(i))));
  }
  HILOMOE_RETURN_IF_ERROR(spec.ShareTables());
  for (int i = 0; i < config.network().attention_size(); ++i) {
    HILOMOE_RETURN_IF_ERROR(
        InField(absl::StrCat("network.attention[", i, "]"), spec.AddAttention(config.network().attention(i))));
  }
  for (int i = 0; i < config.features_size(); ++i) {
    const auto reads = [i](const AttentionSpec& attention) {
      return std::find(attention.history.begin(), attention.history.end(), i) != attention.history.end();
    };
    if (spec.features_[i].is_unpooled() && std::none_of(spec.attention_.begin(), spec.attention_.end(), reads)) {
      return FieldError(absl::StrCat("features[", i, "].pooling"), "NONE, and no attention reads the feature");
    }
  }
  spec.LayOutInput();
  HILOMOE_RETURN_IF_ERROR(CheckRange("features", spec.input_width_, 1, 1 << 20));
  HILOMOE_RETURN_IF_ERROR(InField("network", spec.AddBlocks(config.network())));
  return spec;
}

absl::Status ModelSpec::AddFeature(const v1::Feature& feature) {
  if (feature.name().empty()) return FieldError("name", "every feature needs a name");
  if (feature.name().find('\0') != std::string::npos) return FieldError("name", "holds a NUL byte");
  if (!IsUtf8(feature.name())) return FieldError("name", "is not UTF-8; neither file headers nor requests can hold it");
  if (FindFeature(feature.name()) >= 0) return FieldError("name", absl::StrCat("'", feature.name(), "' stands twice"));
  if (feature.id() == 0) return FieldError("id", absl::StrCat("feature '", feature.name(), "' needs an id > 0"));
  if (FindFeature(feature.id()) >= 0) return FieldError("id", absl::StrCat(feature.id(), " stands twice"));
  if (feature.kind() == v1::Feature::KIND_UNSPECIFIED) {
    return FieldError("kind", "say CATEGORICAL, BAG, SEQUENCE or NUMERIC");
  }
  if (feature.scope() == v1::Feature::SCOPE_UNSPECIFIED) return FieldError("scope", "say CONTEXT or CANDIDATE");
  HILOMOE_RETURN_IF_ERROR(HasIds(feature) ? CheckIdFeature(feature) : CheckNumericFeature(feature));
  HILOMOE_RETURN_IF_ERROR(CheckDefault(feature));

  FeatureSpec spec;
  spec.name = feature.name();
  spec.id = feature.id();
  spec.kind = feature.kind();
  spec.scope = feature.scope();
  spec.id_type = feature.id_type();
  spec.transform = feature.numeric().transform();
  spec.required = feature.required();
  spec.missing_indicator = feature.numeric().missing_indicator();
  if (feature.has_default_value()) spec.default_value = feature.default_value();
  spec.max_length = feature.max_length();
  spec.pooling = feature.pooling();
  spec.width = feature.embedding_width();
  if ((HasIds(feature) && !feature.has_share_embedding()) || spec.is_bucketed()) {
    spec.table = static_cast<int>(tables_.size());
    TableSpec& table = tables_.emplace_back();
    table.feature = spec.name;
    table.owner = static_cast<int>(features_.size());
    table.width = spec.width;
    table.id_type = spec.id_type;
    table.min_count = feature.vocabulary().min_count();
    table.max_size = feature.vocabulary().max_size();
    table.hash_buckets = feature.vocabulary().hash_buckets();
    table.buckets = feature.numeric().buckets();
  }
  const auto by_name = [this](int f, std::string_view name) { return features_[f].name < name; };
  by_name_.insert(std::lower_bound(by_name_.begin(), by_name_.end(), spec.name, by_name),
                  static_cast<int>(features_.size()));
  features_.push_back(std::move(spec));
  return absl::OkStatus();
}

absl::Status ModelSpec::ShareTables() {
  for (int i = 0; i < config_.features_size(); ++i) {
    const v1::Feature& feature = config_.features(i);
    if (!feature.has_share_embedding()) continue;
    const std::string field = absl::StrCat("features[", i, "].share_embedding");
    const int owner = FindFeature(feature.share_embedding());
    if (owner < 0) return FieldError(field, absl::StrCat("there is no feature '", feature.share_embedding(), "'"));
    const FeatureSpec& from = features_[owner];
    if (from.table < 0 || tables_[from.table].owner != owner || from.is_numeric()) {
      return FieldError(field, absl::StrCat("'", from.name, "' has no embedding of ids of its own"));
    }
    FeatureSpec& spec = features_[i];
    if (spec.id_type != from.id_type) {
      return FieldError(field, absl::StrCat("'", from.name, "' has another id_type"));
    }
    if (feature.has_embedding_width() && feature.embedding_width() != from.width) {
      return FieldError(field, absl::StrCat("'", from.name, "' has embedding_width ", from.width));
    }
    spec.table = from.table;
    spec.width = from.width;
  }
  return absl::OkStatus();
}

absl::Status ModelSpec::AddAttention(const v1::Attention& attention) {
  HILOMOE_RETURN_IF_ERROR(CheckRange("heads", attention.heads(), 1, 64));
  HILOMOE_RETURN_IF_ERROR(CheckRange("head_width", attention.head_width(), 1, 1024));
  AttentionSpec spec;
  const auto add = [&](const std::string& field, const std::string& name, v1::Feature::Kind kind,
                       std::vector<int>* to) -> absl::Status {
    const int f = FindFeature(name);
    if (f < 0) return FieldError(field, absl::StrCat("there is no feature '", name, "'"));
    if (features_[f].kind != kind) {
      return FieldError(field, absl::StrCat("'", name, "' is no ", v1::Feature::Kind_Name(kind), " feature"));
    }
    if (std::find(to->begin(), to->end(), f) != to->end())
      return FieldError(field, absl::StrCat(name, " stands twice"));
    to->push_back(f);
    return absl::OkStatus();
  };
  if (attention.query().empty()) return FieldError("query", "say at least one feature of the candidate");
  for (int i = 0; i < attention.query_size(); ++i) {
    const std::string field = absl::StrCat("query[", i, "]");
    HILOMOE_RETURN_IF_ERROR(add(field, attention.query(i), v1::Feature::CATEGORICAL, &spec.query));
    const FeatureSpec& feature = features_[spec.query.back()];
    if (feature.is_context()) return FieldError(field, absl::StrCat("'", feature.name, "' is no CANDIDATE feature"));
    spec.query_width += feature.width;
  }
  if (attention.history().empty()) return FieldError("history", "say at least one SEQUENCE feature");
  for (int i = 0; i < attention.history_size(); ++i) {
    const std::string field = absl::StrCat("history[", i, "]");
    HILOMOE_RETURN_IF_ERROR(add(field, attention.history(i), v1::Feature::SEQUENCE, &spec.history));
    const FeatureSpec& feature = features_[spec.history.back()];
    const FeatureSpec& first = features_[spec.history[0]];
    if (feature.scope != first.scope || feature.max_length != first.max_length) {
      return FieldError(field, absl::StrCat("'", feature.name, "' and '", first.name,
                                            "' stand side by side: they need the same scope and max_length"));
    }
    spec.history_width += feature.width;
  }
  if (const size_t positions = features_[spec.history[0]].max_length; positions * spec.history_width > kMaxHistory) {
    return FieldError("history", absl::StrCat("max_length ", positions, " times the history's width ",
                                              spec.history_width, " exceeds ", kMaxHistory));
  }
  for (const int f : spec.history) features_[f].aligned |= spec.history.size() > 1;
  spec.heads = attention.heads();
  spec.head_width = attention.head_width();
  if (attention.has_output_width()) {
    HILOMOE_RETURN_IF_ERROR(CheckRange("output_width", attention.output_width(), 1, kMaxWidth));
  }
  spec.output_width = attention.has_output_width() ? attention.output_width() : spec.history_width;
  attention_.push_back(std::move(spec));
  return absl::OkStatus();
}

void ModelSpec::LayOutInput() {
  size_t offset = 0;
  for (const v1::Feature::Scope scope : {v1::Feature::CONTEXT, v1::Feature::CANDIDATE}) {
    for (FeatureSpec& feature : features_) {
      if (feature.scope != scope) continue;
      feature.input_offset = offset;
      feature.input_width = (feature.width > 0 ? feature.width : 1) + (feature.missing_indicator ? 1 : 0);
      if (feature.is_unpooled()) feature.input_width = 0;
      offset += feature.input_width;
    }
    if (scope == v1::Feature::CONTEXT) context_width_ = offset;
  }
  for (AttentionSpec& attention : attention_) {
    attention.input_offset = offset;
    offset += attention.output_width;
  }
  input_width_ = offset;
}

absl::Status ModelSpec::AddBlocks(const v1::Network& network) {
  size_t input = input_width_;
  for (int i = 0; i < network.blocks_size(); ++i) {
    const absl::StatusOr<BlockSpec> block = MakeBlock(network.blocks(i), input);
    if (!block.ok()) return InField(absl::StrCat("blocks[", i, "]"), block.status());
    blocks_.push_back(*block);
    input = block->width;
  }
  deep_blocks_ = blocks_.size();
  for (int i = 0; i < network.cross_size(); ++i) {
    const absl::StatusOr<BlockSpec> layer = MakeCrossLayer(network.cross(i), input_width_);
    if (!layer.ok()) return InField(absl::StrCat("cross[", i, "]"), layer.status());
    blocks_.push_back(*layer);
  }
  return absl::OkStatus();
}

std::string ModelSpec::BlockName(size_t block) const {
  return block < deep_blocks_ ? absl::StrCat("blocks.", block) : absl::StrCat("cross.", block - deep_blocks_);
}

size_t ModelSpec::head_width() const {
  return blocks_.empty() ? input_width_ : deep_width() + (cross_layers() > 0 ? input_width_ : 0);
}

std::vector<std::string_view> DefaultIds(v1::Feature::Kind kind, std::string_view value) {
  if (kind == v1::Feature::CATEGORICAL) return value.empty() ? std::vector<std::string_view>{} : std::vector{value};
  std::vector<std::string_view> ids;
  while (!value.empty()) {
    const std::string_view id = value.substr(0, value.find('^'));
    if (!id.empty()) ids.push_back(id);
    value.remove_prefix(std::min(value.size(), id.size() + 1));
  }
  return ids;
}

int ModelSpec::FindFeature(std::string_view name) const {
  const auto by_name = [this](int f, std::string_view wanted) { return features_[f].name < wanted; };
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name, by_name);
  return found != by_name_.end() && features_[*found].name == name ? *found : -1;
}

int ModelSpec::FindFeature(uint32_t id) const {
  for (size_t i = 0; i < features_.size(); ++i) {
    if (features_[i].id == id) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace hilomoe
