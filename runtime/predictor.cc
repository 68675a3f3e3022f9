#include "runtime/predictor.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/reference.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"
#include "runtime/dense_product.h"

namespace hilomoe {
namespace {

uint64_t NowNs() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

}  // namespace

// One block as it runs. The first block's product is split by scope, so that the context's half is computed once.
struct BlockPlan {
  int stacked = 0;                          // O + L*K, the width of z = [y | a]
  std::unique_ptr<DenseProduct> context;    // of the first block, null when no feature is of the context
  std::unique_ptr<DenseProduct> candidate;  // null when every feature is of the context
  kernels::Routing routing;
};

struct Predictor::State {
  explicit State(ModelFile model)
      : file(std::move(model)), encoder(file.spec(), file.vocabularies(), file.tensors().features) {}

  absl::Status Plan();
  void GatherFeature(const EncodedBatch& batch, size_t f, size_t begin, int rows, float* x) const;
  void Gather(const EncodedBatch& batch, bool context, size_t begin, int rows, float* x) const;

  ModelFile file;
  RequestEncoder encoder;
  const kernels::Kernels* kernels = nullptr;
  std::vector<BlockPlan> blocks;
};

// All of it is sized for kTileRows rows.
struct Workspace::Buffers {
  std::vector<float> x;               // [rows, D]: context columns first
  std::vector<float> context_x;       // [rows, D]: rows are used as x's when the batch is flat, else the first one only
  std::vector<float> context_z;       // [rows, stacked] of the first block
  std::vector<std::vector<float>> z;  // per block [rows, stacked]: base output, then A
  std::vector<float> gated;           // [rows, L*k] of top-k routing
  std::vector<int32_t> kept;          // [rows, L*k]
  std::vector<float> inverse_norm;    // [rows]
  std::vector<float> context_squared_norm;  // [rows]
  std::vector<std::byte> scratchpad;
  std::vector<DenseProduct::Executor> context;    // none or one
  std::vector<DenseProduct::Executor> candidate;  // per block, less the first without has_candidate
  bool has_candidate = true;                      // the first block has columns of the candidates

  const DenseProduct::Executor& block(size_t b) const { return candidate[b - (has_candidate ? 0 : 1)]; }
};

Workspace::Workspace(const Predictor& predictor) : buffers_(std::make_unique<Buffers>()) {
  const Predictor::State& state = *predictor.state_;
  const ModelSpec& spec = state.file.spec();
  Buffers& b = *buffers_;
  b.x.resize(kTileRows * spec.input_width());
  b.context_x.resize(kTileRows * spec.input_width());
  b.inverse_norm.resize(kTileRows);
  b.context_squared_norm.resize(kTileRows);
  size_t kept = 0, scratchpad = 0;
  for (size_t i = 0; i < state.blocks.size(); ++i) {
    const BlockPlan& plan = state.blocks[i];
    kept = std::max(kept, spec.blocks()[i].layers * spec.blocks()[i].top_k);
    for (const auto* product : {plan.context.get(), plan.candidate.get()}) {
      if (product != nullptr) scratchpad = std::max(scratchpad, product->scratchpad_bytes());
    }
    b.z.emplace_back(static_cast<size_t>(kTileRows * plan.stacked));
  }
  b.gated.resize(kTileRows * kept);
  b.kept.resize(kTileRows * kept);
  b.scratchpad.resize(scratchpad);
  for (size_t i = 0; i < state.blocks.size(); ++i) {
    const BlockPlan& plan = state.blocks[i];
    const float* x = i == 0 ? b.x.data() + spec.context_width() : b.z[i - 1].data();
    if (plan.context != nullptr) {
      b.context_z.resize(static_cast<size_t>(kTileRows * plan.stacked));
      b.context.emplace_back(*plan.context, b.context_x.data(), b.context_z.data(), b.scratchpad.data());
    }
    if (plan.candidate != nullptr) {
      b.candidate.emplace_back(*plan.candidate, x, b.z[i].data(), b.scratchpad.data());
    } else {
      b.has_candidate = false;
    }
  }
}

Workspace::~Workspace() = default;

absl::Status Predictor::State::Plan() {
  const ModelSpec& spec = file.spec();
  int ldx = static_cast<int>(spec.input_width());
  for (size_t i = 0; i < spec.blocks().size(); ++i) {
    const BlockSpec& block = spec.blocks()[i];
    const ServingBlockTensors<const float>& tensors = file.tensors().blocks[i];
    BlockPlan& plan = blocks.emplace_back();
    plan.stacked = static_cast<int>(block.width + block.stack());
    const int ldw = static_cast<int>(block.input);
    const int split = i == 0 ? static_cast<int>(spec.context_width()) : 0;
    if (split > 0) {
      HILOMOE_ASSIGN_OR_RETURN(
          plan.context, DenseProduct::Create(tensors.stacked_weight, plan.stacked, split, ldw, ldx, plan.stacked));
    }
    if (ldw > split) {
      HILOMOE_ASSIGN_OR_RETURN(plan.candidate, DenseProduct::Create(tensors.stacked_weight + split, plan.stacked,
                                                                    ldw - split, ldw, ldx, plan.stacked));
    }
    if (block.layers > 0) {
      plan.routing = {static_cast<int>(block.layers),
                      static_cast<int>(block.experts),
                      static_cast<int>(block.top_k),
                      tensors.alpha[0],
                      tensors.tau,
                      tensors.c,
                      tensors.gram};
    }
    ldx = plan.stacked;
  }
  return absl::OkStatus();
}

// Writes the feature's columns of rows [begin, begin + rows) of its scope to x, the first input column of row 0.
void Predictor::State::GatherFeature(const EncodedBatch& batch, size_t f, size_t begin, int rows, float* x) const {
  const ModelSpec& spec = file.spec();
  const FeatureSpec& feature = spec.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  const FeatureTensors<const float>& tensors = file.tensors().features;
  const size_t ldx = spec.input_width(), d = feature.width;
  float* out = x + feature.input_offset;
  if (feature.is_number()) {
    const float* weight = tensors.numeric_weight[f];
    for (int r = 0; r < rows; ++r, out += ldx) {
      const float value = encoded.values[begin + r];
      if (d == 0) out[0] = value;
      for (size_t i = 0; i < d; ++i) out[i] = value * weight[i];
      if (feature.missing_indicator) out[std::max<size_t>(d, 1)] = encoded.missing[begin + r];
    }
    return;
  }
  const float* table = tensors.tables[feature.table];
  if (!feature.is_pooled()) {
    for (int r = 0; r < rows; ++r, out += ldx) std::memcpy(out, table + encoded.rows[begin + r] * d, d * sizeof(float));
    return;
  }
  for (int r = 0; r < rows; ++r, out += ldx) {
    std::memset(out, 0, d * sizeof(float));
    const uint32_t first = encoded.offsets[begin + r], last = encoded.offsets[begin + r + 1];
    for (uint32_t i = first; i < last; ++i) kernels->add(static_cast<int>(d), table + encoded.rows[i] * d, out);
    if (last == first) continue;
    const float scale = 1 / static_cast<float>(last - first);
    for (size_t i = 0; i < d; ++i) out[i] *= scale;
  }
}

void Predictor::State::Gather(const EncodedBatch& batch, bool context, size_t begin, int rows, float* x) const {
  for (size_t f = 0; f < file.spec().features().size(); ++f) {
    if (file.spec().features()[f].is_context() == context) GatherFeature(batch, f, begin, rows, x);
  }
}

Predictor::Predictor(std::unique_ptr<State> state) : state_(std::move(state)) {}
Predictor::~Predictor() = default;

absl::StatusOr<std::unique_ptr<Predictor>> Predictor::Create(ModelFile file, const PredictorOptions& options) {
  auto state = std::make_unique<State>(std::move(file));
  state->kernels = &kernels::SelectKernels(options.instruction_set);
  HILOMOE_RETURN_IF_ERROR(state->Plan());
  return std::unique_ptr<Predictor>(new Predictor(std::move(state)));
}

const ModelFile& Predictor::file() const { return state_->file; }
const RequestEncoder& Predictor::encoder() const { return state_->encoder; }
const kernels::Kernels& Predictor::kernels() const { return *state_->kernels; }

void Predictor::Evaluate(const EncodedBatch& batch, Workspace* workspace, absl::Span<float> logits) const {
  const State& state = *state_;
  const kernels::Kernels& k = *state.kernels;
  const ModelSpec& spec = state.file.spec();
  const ServingTensors<const float>& tensors = state.file.tensors();
  Workspace::Buffers& b = *workspace->buffers_;
  const int D = static_cast<int>(spec.input_width());
  const int context_width = static_cast<int>(spec.context_width());
  const bool shared = batch.context_rows == 1;
  const size_t blocks = state.blocks.size();

  const auto prepare_context = [&](size_t begin, int rows) {
    if (context_width == 0) return;
    state.Gather(batch, true, begin, rows, b.context_x.data());
    if (blocks > 0) b.context[0].Run(rows);
    k.squared_norm(rows, context_width, b.context_x.data(), D, b.context_squared_norm.data());
  };
  if (shared) prepare_context(0, 1);

  for (size_t begin = 0; begin < batch.candidate_rows; begin += kTileRows) {
    const int rows = static_cast<int>(std::min<size_t>(kTileRows, batch.candidate_rows - begin));
    if (!shared) prepare_context(begin, rows);
    state.Gather(batch, false, begin, rows, b.x.data());
    const size_t step = shared ? 0 : 1;  // from one row's context to the next one's
    const float* x = b.x.data();
    int ldx = D;
    for (size_t i = 0; i < blocks; ++i) {
      const BlockPlan& plan = state.blocks[i];
      const BlockSpec& block = spec.blocks()[i];
      const int O = static_cast<int>(block.width);
      float* z = b.z[i].data();
      if (plan.candidate != nullptr) b.block(i).Run(rows);
      for (int r = 0; r < rows && plan.context != nullptr; ++r) {
        const float* half = &b.context_z[r * step * plan.stacked];
        if (plan.candidate != nullptr) {
          k.add(plan.stacked, half, z + r * plan.stacked);
        } else {
          std::memcpy(z + r * plan.stacked, half, static_cast<size_t>(plan.stacked) * sizeof(float));
        }
      }
      const float* inverse_norm = nullptr;
      if (block.layers > 0 && block.unit_query) {
        const int own = i == 0 ? context_width : 0;  // columns whose norm the context brings along
        k.squared_norm(rows, static_cast<int>(block.input) - own, x + own, ldx, b.inverse_norm.data());
        for (int r = 0; r < rows; ++r) {
          const float squared = b.inverse_norm[r] + (own > 0 ? b.context_squared_norm[r * step] : 0);
          b.inverse_norm[r] = 1 / std::max(std::sqrt(squared), static_cast<float>(kMinQueryNorm));
        }
        inverse_norm = b.inverse_norm.data();
      }
      const auto activation = block.relu ? kernels::Activation::kRelu : kernels::Activation::kIdentity;
      const float* bias = tensors.blocks[i].bias;
      float* a = z + O;
      if (block.top_k > 0) {
        const int kept = static_cast<int>(block.layers * block.top_k);
        k.route_top_k(plan.routing, rows, a, plan.stacked, inverse_norm, b.gated.data(), kept, b.kept.data(), kept,
                      nullptr, 0);
        k.add_experts_top_k(rows, O, kept, b.gated.data(), kept, b.kept.data(), kept, tensors.blocks[i].u, O, bias,
                            activation, z, plan.stacked);
      } else {
        if (block.layers > 0)
          k.route_dense(plan.routing, rows, a, plan.stacked, inverse_norm, a, plan.stacked, nullptr, 0);
        k.add_experts_dense(rows, O, static_cast<int>(block.stack()), a, plan.stacked, tensors.blocks[i].u, O, bias,
                            activation, z, plan.stacked);
      }
      x = z;
      ldx = plan.stacked;
    }
    if (blocks == 0) {
      for (int r = 0; r < rows; ++r) {
        std::memcpy(&b.x[static_cast<size_t>(r) * D], &b.context_x[r * step * D],
                    static_cast<size_t>(context_width) * sizeof(float));
      }
    }
    k.head(rows, static_cast<int>(spec.head_width()), x, ldx, tensors.head_weight, tensors.head_bias[0],
           logits.data() + begin);
  }
}

absl::Status Predictor::Predict(const RequestView& request, Workspace* workspace, absl::Span<float> scores,
                                PredictTimes* times) const {
  const uint64_t start = times != nullptr ? NowNs() : 0;
  HILOMOE_RETURN_IF_ERROR(state_->encoder.Encode(request, &workspace->batch, &workspace->counts));
  const uint64_t encoded = times != nullptr ? NowNs() : 0;
  Evaluate(workspace->batch, workspace, scores);
  for (float& score : scores) score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(score))));
  if (times != nullptr) *times = {encoded - start, NowNs() - encoded};
  return absl::OkStatus();
}

absl::Status Predictor::CheckGolden() const {
  const v1::ModelFileHeader& header = state_->file.header();
  Workspace workspace(*this);
  std::vector<ColumnView> context, candidates;
  std::vector<float> scores;
  for (int i = 0; i < header.golden_size(); ++i) {
    const v1::GoldenRequest& golden = header.golden(i);
    context.clear();
    candidates.clear();
    AppendColumnViews(golden.context(), &context);
    AppendColumnViews(golden.candidates(), &candidates);
    if (static_cast<uint32_t>(golden.scores_size()) != golden.num_candidates()) {
      return absl::DataLossError(absl::StrCat("golden request ", i, " has not one score a candidate"));
    }
    scores.resize(golden.num_candidates());
    if (const absl::Status status =
            Predict({golden.num_candidates(), context, candidates}, &workspace, absl::MakeSpan(scores));
        !status.ok()) {
      return absl::DataLossError(absl::StrCat("golden request ", i, " is refused: ", status.message()));
    }
    for (size_t r = 0; r < scores.size(); ++r) {
      const double expected = golden.scores(static_cast<int>(r));
      if (!(std::fabs(scores[r] - expected) <= header.golden_tolerance())) {
        return absl::DataLossError(absl::StrCat("golden request ", i, ", candidate ", r, " scores ", scores[r],
                                                " instead of ", expected, " (tolerance ", header.golden_tolerance(),
                                                "); the model is not served"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace hilomoe
