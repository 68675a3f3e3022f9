#include "tools/train/memory_plan.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tools/train/evaluation.h"

namespace hilomoe {
namespace {

constexpr size_t kMebibyte = size_t{1} << 20;
// Measured with a tiny model and log.
constexpr size_t kProgramBytes = 20 * kMebibyte;
constexpr size_t kThreadBytes = 1 * kMebibyte;
// Of its left operand oneDNN packs so many rows and columns at a time, in memory that a thread keeps.
constexpr size_t kPackedRows = 10'176, kPackedColumns = 384;
// What the metrics keep and sort of a row: score, label, group; group and key.
constexpr size_t kEvaluationRowBytes = 4 + 1 + 8 + 16;

size_t LargestBlock(const RowCache& cache) {
  size_t bytes = 0;
  for (size_t i = 0; i < cache.blocks(); ++i) bytes = std::max(bytes, cache.block_bytes(i));
  return bytes;
}

// Ids of all pooled features of a row, on average.
double PooledIds(const RowCache& cache) {
  double bytes = static_cast<double>(cache.bytes()) / static_cast<double>(cache.rows());
  for (const RowColumns::Kind kind : cache.columns().features) {
    bytes -= kind == RowColumns::Kind::kNumberOrMissing ? 5 : 4;
  }
  bytes -= 1 + (cache.columns().weights ? 4 : 0) + (cache.columns().groups ? 8 : 0);
  return std::max(0.0, bytes / sizeof(uint32_t));
}

size_t WidestInput(const ModelSpec& spec) {
  size_t widest = spec.head_width();
  for (const BlockSpec& block : spec.blocks()) widest = std::max(widest, block.input);
  return widest;
}

// Floats of a batch row that Forward keeps, and those that Backward adds; `positions` of a row's history.
struct Activations {
  double forward = 0, backward = 0;
};
Activations CountActivations(const ModelSpec& spec, double positions) {
  const double D = static_cast<double>(spec.input_width());
  Activations floats{.forward = D + 3, .backward = 0};  // x; logits twice and their gradient
  for (const AttentionSpec& attention : spec.attention()) {
    const size_t row =
        attention.query_width + 2 * attention.inner_width() + 2 * attention.heads * attention.history_width;
    const size_t position = attention.history_width + attention.heads;
    floats.forward += static_cast<double>(row) + positions * static_cast<double>(position);
    floats.backward += static_cast<double>(row) + positions * static_cast<double>(attention.history_width);
  }
  double widest_product = 0;
  for (const BlockSpec& block : spec.blocks()) {
    const size_t n = block.stack(), ldz = block.stacked_rows();
    const bool keeps_normalised = block.activation == v1::Block::SILU || block.activation == v1::Block::DICE;
    floats.forward += static_cast<double>(ldz + block.width * (keeps_normalised ? 2 : 1) + 3 * n + 1);
    floats.backward += static_cast<double>(n + 1);
    widest_product = std::max(widest_product, static_cast<double>(ldz));
  }
  // Outputs of the cross layers; gradients of x and of a block's output and input, and what crossing adds.
  const double cross = static_cast<double>(spec.cross_layers());
  floats.forward += cross * D;
  floats.backward += widest_product + D + 2 * static_cast<double>(WidestInput(spec)) + (cross > 0 ? D : 0);
  return floats;
}

size_t VocabularyBytes(const VocabularyIds& ids) {
  size_t bytes = ids.int64s.size() * sizeof(int64_t) + ids.strings.size() * sizeof(std::string);
  size_t written = ids.int64s.size() * sizeof(int64_t);
  for (const std::string& id : ids.strings) {
    // Short strings stand in place; malloc rounds the others up and adds its header.
    if (id.size() > 15) bytes += (id.size() + 1 + 8 + 15) / 16 * 16;
    written += id.size() + sizeof(int64_t);
  }
  // A checkpoint's list of ids and a look-up table are never there together.
  const double places = static_cast<double>(ids.size()) / 0.7;
  const size_t table = static_cast<size_t>(places / VocabularyBucket::kPlaces) * sizeof(VocabularyBucket);
  return bytes + std::max(written, table);
}

}  // namespace

std::string MemoryPlan::Text() const {
  const auto mib = [](size_t bytes) { return (bytes + kMebibyte - 1) / kMebibyte; };
  return absl::StrCat(mib(total()), " MiB: weights ", mib(weights), ", optimizer ", mib(optimizer), ", gradients ",
                      mib(gradients), ", activations ", mib(activations), ", rows ", mib(rows), ", evaluation ",
                      mib(evaluation), ", vocabularies ", mib(vocabularies), ", program ", mib(program));
}

MemoryPlan PredictMemory(const ModelSpec& spec, const TensorRegistry& registry, size_t optimizer_floats,
                         const std::vector<VocabularyIds>& vocabularies, const RowCache& train, const RowCache& valid,
                         const BatchSource::Options& batches, int threads) {
  const size_t batch_rows = std::min(batches.batch_rows, train.rows());
  const size_t evaluation_rows = std::min(kEvaluationRows, std::max(valid.rows(), train.rows()));
  MemoryPlan plan;
  const size_t n = static_cast<size_t>(threads);
  const size_t packed = std::min(std::max(batch_rows, evaluation_rows) / n + 1, kPackedRows) *
                        std::min(WidestInput(spec), kPackedColumns) * sizeof(float);
  plan.program = kProgramBytes + n * (kThreadBytes + packed);
  plan.weights = 2 * registry.size() * sizeof(float);
  plan.optimizer = optimizer_floats * sizeof(float);

  const double pooled_ids = PooledIds(train);
  plan.gradients = registry.size() * sizeof(float);
  for (size_t i = 0; i < registry.gathered(); ++i) {
    const TensorSpec& table = registry.tensors()[i];
    double ids = 0;  // of a batch, at most
    for (const FeatureSpec& feature : spec.features()) {
      const bool reads = i < spec.tables().size() ? feature.table == static_cast<int>(i) : feature.table >= 0;
      const double own = feature.is_pooled() ? pooled_ids : 1;
      if (reads) ids = i < spec.tables().size() ? ids + own : std::max(ids, own);  // a linear table has one feature
    }
    const size_t rows = std::min(table.shape[0], static_cast<size_t>(static_cast<double>(batch_rows) * ids));
    plan.gradients -= table.size * sizeof(float);
    plan.gradients += table.shape[0] * sizeof(int32_t);
    // Vectors that grow take up to twice what they hold.
    plan.gradients += 2 * rows * (table.shape[1] + 1) * sizeof(float);
  }

  const Activations floats = CountActivations(spec, pooled_ids);
  plan.activations = static_cast<size_t>(static_cast<double>(std::max(batch_rows, evaluation_rows)) * floats.forward +
                                         static_cast<double>(batch_rows) * floats.backward) *
                     sizeof(float);
  plan.rows = BatchSourceBytes(train, batches) + 2 * LargestBlock(valid);
  plan.evaluation = valid.rows() * kEvaluationRowBytes;
  for (const VocabularyIds& ids : vocabularies) plan.vocabularies += VocabularyBytes(ids);
  return plan;
}

size_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    size_t kibibytes = 0;
    if (word == "VmHWM:" && status >> kibibytes) return kibibytes << 10;
  }
  return 0;
}

}  // namespace hilomoe
