// A validated model config with everything that follows from it: tables, where each feature stands in the input, the
// shapes of the blocks. All code reads this, none reads the config's protobuf.
#ifndef HILOMOE_MODEL_MODEL_SPEC_H_
#define HILOMOE_MODEL_MODEL_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/model_config.pb.h"

namespace hilomoe {

// One input feature. Its slice of the block input x is [input_offset, input_offset + input_width).
struct FeatureSpec {
  std::string name;
  uint32_t id = 0;
  v1::Feature::Kind kind = v1::Feature::KIND_UNSPECIFIED;
  v1::Feature::Scope scope = v1::Feature::SCOPE_UNSPECIFIED;
  v1::Feature::IdType id_type = v1::Feature::ID_TYPE_UNSPECIFIED;
  v1::Numeric::Transform transform = v1::Numeric::NONE;
  bool required = false;
  bool missing_indicator = false;
  std::optional<std::string> default_value;
  size_t max_length = 0;
  v1::Feature::Pooling pooling = v1::Feature::MEAN;
  bool aligned = false;  // stands beside another sequence in an attention: every position counts, even one without id
  size_t width = 0;      // of the embedding; 0: the number itself
  int table = -1;        // index into tables(); -1: no table
  size_t input_offset = 0;
  size_t input_width = 0;  // width, or 1; plus 1 for the indicator; 0 without pooling

  bool is_numeric() const { return kind == v1::Feature::NUMERIC; }
  bool is_bucketed() const { return is_numeric() && transform == v1::Numeric::QUANTILE; }
  bool is_pooled() const { return kind == v1::Feature::BAG || kind == v1::Feature::SEQUENCE; }
  bool is_number() const { return is_numeric() && !is_bucketed(); }  // enters x as a number, or times a vector
  bool is_context() const { return scope == v1::Feature::CONTEXT; }
  bool is_unpooled() const { return is_pooled() && pooling == v1::Feature::NONE; }
};

// An embedding table and how its rows are chosen.
struct TableSpec {
  std::string feature;  // the owner's name
  int owner = 0;        // index into features()
  size_t width = 0;
  v1::Feature::IdType id_type = v1::Feature::ID_TYPE_UNSPECIFIED;
  uint32_t min_count = 1;
  uint32_t max_size = 0;      // 0 = no limit
  uint32_t hash_buckets = 0;  // > 0: no vocabulary
  uint32_t buckets = 0;       // > 0: the table of a QUANTILE number

  bool has_vocabulary() const { return hash_buckets == 0 && buckets == 0; }
};

// Target attention; see the Attention message. Its slice of x is [input_offset, input_offset + output_width).
struct AttentionSpec {
  std::vector<int> query;    // indices into features()
  std::vector<int> history;  // as are these
  size_t query_width = 0;
  size_t history_width = 0;
  size_t heads = 1;
  size_t head_width = 0;
  size_t output_width = 0;
  size_t input_offset = 0;

  size_t inner_width() const { return heads * head_width; }
};

// A block: input width D, output width O, L layers of K experts, k kept (0 = dense; never K).
struct BlockSpec {
  size_t input = 0;
  size_t width = 0;
  size_t layers = 0;
  size_t experts = 0;
  size_t top_k = 0;
  bool calibrated = true;
  bool unit_query = true;
  bool projected_query = false;
  bool hierarchical = true;  // else q_l+1 = q_l
  bool batch_norm = true;
  v1::Block::Activation activation = v1::Block::RELU;
  float dropout = 0;

  size_t stack() const { return layers * experts; }  // rows of V and U of all layers
  // Rows of [W0; V; V Wq], the last of a projected query only: what x is multiplied with, once.
  size_t stacked_rows() const { return width + stack() * (projected_query ? 2 : 1); }
};

// The ids in the default_value of a feature of ids, read as a log's cell: one, or (BAG, SEQUENCE) any number with '^'
// between them; what is empty is no id.
std::vector<std::string_view> DefaultIds(v1::Feature::Kind kind, std::string_view value);

class ModelSpec {
 public:
  // Errors are FieldErrors relative to the ModelConfig.
  static absl::StatusOr<ModelSpec> Create(const v1::ModelConfig& config);

  const v1::ModelConfig& config() const { return config_; }
  const std::vector<FeatureSpec>& features() const { return features_; }
  const std::vector<TableSpec>& tables() const { return tables_; }
  const std::vector<AttentionSpec>& attention() const { return attention_; }
  // The deep tower's blocks, then those of the cross layers.
  const std::vector<BlockSpec>& blocks() const { return blocks_; }
  size_t deep_blocks() const { return deep_blocks_; }
  size_t cross_layers() const { return blocks_.size() - deep_blocks_; }
  bool is_first(size_t block) const { return block == 0 || block == deep_blocks_; }  // reads x itself
  std::string BlockName(size_t block) const;                                         // "blocks.0", "cross.0"

  // x = [x_context ; x_candidate]: the context's features first, each scope in the order of the config; the outputs of
  // attention end it.
  size_t context_width() const { return context_width_; }
  size_t input_width() const { return input_width_; }
  // The head reads [deep ; cross], each absent without blocks or layers of its kind; x when both are.
  size_t deep_width() const { return deep_blocks_ > 0 ? blocks_[deep_blocks_ - 1].width : 0; }
  size_t head_width() const;

  // Whether the logit has a linear term, and whether feature f is in it.
  bool linear() const { return config_.network().linear(); }
  bool is_linear(size_t f) const { return linear() && !features_[f].is_unpooled(); }

  // Index into features(), -1 when unknown.
  int FindFeature(std::string_view name) const;
  int FindFeature(uint32_t id) const;

 private:
  absl::Status AddFeature(const v1::Feature& feature);
  absl::Status ShareTables();
  absl::Status AddAttention(const v1::Attention& attention);
  absl::Status AddBlocks(const v1::Network& network);
  void LayOutInput();

  v1::ModelConfig config_;
  std::vector<FeatureSpec> features_;
  std::vector<int> by_name_;  // indices into features_, sorted
  std::vector<TableSpec> tables_;
  std::vector<AttentionSpec> attention_;
  std::vector<BlockSpec> blocks_;
  size_t deep_blocks_ = 0;
  size_t context_width_ = 0;
  size_t input_width_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_MODEL_SPEC_H_
