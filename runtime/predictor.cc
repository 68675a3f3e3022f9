#include "runtime/predictor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "runtime/aligned_vector.h"
#include "runtime/column_view.h"
#include "runtime/input_gather.h"
#include "runtime/packed_product.h"
#include "runtime/served_attention.h"
#include "runtime/served_block.h"

namespace hilomoe {
namespace {

uint64_t NowNs() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

}  // namespace

struct Predictor::State {
  State(ModelFile model, const kernels::Kernels& chosen)
      : file(std::move(model)),
        encoder(file.spec(), file.vocabularies(), file.tensors().features),
        kernels(chosen),
        gather(file.spec(), file.tensors().features, file.matrices().features, kernels) {
    Plan();
  }

  void Plan();
  // The network reads whole rows of x in a candidate's place, not only through products that split.
  bool NeedsWholeRows() const { return file.spec().blocks().empty() || file.spec().cross_layers() > 0; }

  const ModelFile file;
  const RequestEncoder encoder;
  const kernels::Kernels& kernels;
  const InputGather gather;
  std::vector<std::unique_ptr<ServedAttention>> attention;
  std::vector<std::unique_ptr<ServedBlock>> blocks;
};

void Predictor::State::Plan() {
  const ModelSpec& spec = file.spec();
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    attention.push_back(std::make_unique<ServedAttention>(spec, i, file.matrices().attention[i]));
  }
  for (size_t i = 0; i < spec.blocks().size(); ++i) {
    const bool whole = spec.is_first(i) || i > spec.deep_blocks();  // reads x, or what a cross layer made of it
    blocks.push_back(std::make_unique<ServedBlock>(
        spec.blocks()[i], file.tensors().blocks[i], file.matrices().blocks[i],
        spec.is_first(i) ? spec.context_width() : 0, whole ? spec.input_width() : blocks[i - 1]->output_ld()));
  }
}

// All of it is sized for kTileRows rows.
struct Workspace::Buffers {
  Buffers(const Predictor::State& state, RoutingStatistics* statistics);

  AlignedVector<float> x;                   // [rows, D]: the candidates' columns; all of them with NeedsWholeRows
  AlignedVector<float> context_x;           // [rows, D]: rows as x's when the batch is flat, else the first one only
  AlignedVector<float> linear;              // [rows], of the context
  AlignedVector<float> logits;              // [rows], of one tower
  std::vector<AlignedVector<float>> cross;  // per cross layer its output [rows, D]
  AlignedVector<std::byte> scratchpad;
  // The candidate row whose tile was fetched last; a helper's may be of a request before, and then, where it is the row
  // of the first tile it gets, that tile is not fetched ahead.
  size_t fetched = 0;
  std::vector<ServedAttention::Runner> attention;
  std::vector<ServedBlock::Runner> blocks;
  RoutingStatistics::Worker* const routing;  // null: not counted
};

Workspace::Buffers::Buffers(const Predictor::State& state, RoutingStatistics* statistics)
    : routing(statistics != nullptr ? statistics->AddWorker() : nullptr) {
  const ModelSpec& spec = state.file.spec();
  const size_t D = spec.input_width();
  x.resize(kTileRows * D);
  context_x.resize(kTileRows * D);
  linear.resize(kTileRows);
  logits.resize(kTileRows);
  size_t bytes = 0;
  for (const auto& served : state.blocks) bytes = std::max(bytes, served->scratchpad_bytes());
  scratchpad.resize(bytes);
  attention.reserve(state.attention.size());
  blocks.reserve(state.blocks.size());
  for (const auto& served : state.attention) {
    attention.emplace_back(*served, state.gather, state.kernels, x.data());
  }
  cross.assign(spec.cross_layers(), AlignedVector<float>(kTileRows * D));
  for (size_t i = 0; i < state.blocks.size(); ++i) {
    const float* input = spec.is_first(i)         ? x.data()
                         : i < spec.deep_blocks() ? blocks[i - 1].output()
                                                  : cross[i - 1 - spec.deep_blocks()].data();
    blocks.emplace_back(*state.blocks[i], state.kernels, context_x.data(), input, scratchpad.data());
  }
}

Workspace::Workspace(const Predictor& predictor, const PredictorHelpers* helpers, RoutingStatistics* statistics)
    : helpers_(helpers), buffers_(std::make_unique<Buffers>(*predictor.state_, statistics)) {}
Workspace::~Workspace() = default;

PredictorHelpers::PredictorHelpers(const Predictor& predictor, TileTeam* team, size_t split_candidates,
                                   RoutingStatistics* statistics)
    : team_(team), split_candidates_(split_candidates) {
  for (int i = 0; i < team->helpers(); ++i) {
    workspaces_.push_back(std::make_unique<Workspace>(predictor, nullptr, statistics));
  }
}

struct Predictor::Tile {
  size_t begin;  // candidate row
  int rows;
  size_t next;  // candidate row of the tile that is likely to be evaluated next with the same buffers,
  int next_rows;
  // Whose context: of the request's caller when it is shared, else of the buffers that evaluate the tile. Row r's is
  // row r * context_step.
  const Workspace::Buffers& context;
  int context_step;
};

namespace {

// The rows of a batch in tiles of kTileRows. Where workers share the batch, the last tiles are smaller, a half and two
// quarters for each of them, so that all are done at nearly the same time. The first tile has what is left: its
// embeddings are the ones that nothing is evaluated before, to fetch them beside.
class Tiling {
 public:
  Tiling(size_t rows, size_t workers) : rows_(rows) {
    if (workers > 1) {
      ends_[0].tiles = 2 * workers;
      ends_[1].tiles = workers;
    }
    size_t left = rows;
    for (Run& run : ends_) {
      run.tiles = std::min(run.tiles, (left + run.rows - 1) / run.rows);
      left -= std::min(left, run.tiles * run.rows);
      count_ += run.tiles;
    }
  }

  size_t count() const { return count_; }
  size_t begin(size_t tile) const {
    // A few rows would read all weights for themselves: the second tile shares its own with them.
    if (tile == 1 && count_ > 1 && Boundary(1) < kFew) return Boundary(2) / 2;
    return Boundary(tile);
  }
  int rows(size_t tile) const { return static_cast<int>(begin(tile + 1) - begin(tile)); }

 private:
  struct Run {
    size_t rows, tiles;
  };
  static constexpr size_t kFew = kTileRows / 4;

  size_t Boundary(size_t tile) const {
    size_t left = count_ - std::min(tile, count_), behind = 0;
    for (const Run& run : ends_) {
      const size_t tiles = std::min(left, run.tiles);
      behind += tiles * run.rows;
      left -= tiles;
    }
    return rows_ - std::min(rows_, behind);
  }

  const size_t rows_;
  size_t count_ = 0;
  Run ends_[3] = {{kTileRows / 4, 0}, {kTileRows / 2, 0}, {kTileRows, SIZE_MAX}};  // from the last tile on
};

}  // namespace

Predictor::Predictor(std::unique_ptr<State> state) : state_(std::move(state)) {}
Predictor::~Predictor() = default;

absl::StatusOr<std::unique_ptr<Predictor>> Predictor::Create(ModelFile file, const PredictorOptions& options) {
  std::unique_ptr<State> state;
  try {
    state = std::make_unique<State>(std::move(file), kernels::SelectKernels(options.instruction_set));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("no memory to pack the model's weights");
  }
  return std::unique_ptr<Predictor>(new Predictor(std::move(state)));
}

const ModelFile& Predictor::file() const { return state_->file; }
size_t Predictor::bytes() const {
  size_t bytes = state_->file.bytes();
  for (const auto& attention : state_->attention) bytes += attention->bytes();
  for (const auto& block : state_->blocks) bytes += block->bytes();
  return bytes;
}
const RequestEncoder& Predictor::encoder() const { return state_->encoder; }
const kernels::Kernels& Predictor::kernels() const { return state_->kernels; }

void Predictor::EvaluateContext(const EncodedBatch& batch, size_t begin, int rows, Workspace::Buffers* buffers) const {
  const State& state = *state_;
  Workspace::Buffers& b = *buffers;
  state.gather.Prefetch(batch, true, begin, rows);
  state.gather.Features(batch, true, begin, rows, b.context_x.data());
  std::fill_n(b.linear.begin(), rows, 0.0F);
  state.gather.AddLinear(batch, true, begin, rows, b.linear.data());
  for (size_t i = 0; i < b.blocks.size(); ++i) {
    if (state.file.spec().is_first(i)) b.blocks[i].RunContext(rows);
  }
}

void Predictor::EvaluateTile(const EncodedBatch& batch, const Tile& tile, Workspace::Buffers* buffers,
                             float* logits) const {
  const State& state = *state_;
  const ModelSpec& spec = state.file.spec();
  const ServingTensors<const float>& tensors = state.file.tensors();
  Workspace::Buffers& b = *buffers;
  const size_t D = spec.input_width(), begin = tile.begin;
  const int rows = tile.rows, context_step = tile.context_step;
  if (b.fetched != begin) state.gather.Prefetch(batch, false, begin, rows);  // the first one, or one not expected here
  state.gather.Features(batch, false, begin, rows, b.x.data());
  // The next tile's, while this one is evaluated.
  state.gather.Prefetch(batch, false, tile.next, tile.next_rows);
  b.fetched = tile.next;
  for (size_t i = 0; i < b.attention.size(); ++i) b.attention[i].Run(batch, begin, rows, tile.context.attention[i]);
  for (int r = 0; r < rows && state.NeedsWholeRows(); ++r) {
    std::memcpy(&b.x[static_cast<size_t>(r) * D], &tile.context.context_x[static_cast<size_t>(r * context_step) * D],
                spec.context_width() * sizeof(float));
  }
  const bool sampled = b.routing != nullptr && b.routing->Sample();
  if (sampled) b.routing->AddRows(rows);
  for (size_t i = 0; i < b.blocks.size(); ++i) {
    b.blocks[i].Run(rows, context_step, tile.context.blocks[i], sampled ? b.routing->scores() : nullptr);
    if (sampled) b.routing->Add(i, rows);
    if (i < spec.deep_blocks()) continue;
    const float* x = spec.is_first(i) ? b.x.data() : b.cross[i - 1 - spec.deep_blocks()].data();
    float* out = b.cross[i - spec.deep_blocks()].data();
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const float* y = b.blocks[i].output() + r * state.blocks[i]->output_ld();
      for (size_t d = 0; d < D; ++d) out[r * D + d] = b.x[r * D + d] * y[d] + x[r * D + d];
    }
  }
  // The head, one tower after the other.
  std::fill_n(logits, rows, tensors.head_bias[0]);
  const auto add_tower = [&](size_t width, const float* x, size_t ldx, const float* weight) {
    state.kernels.head(rows, static_cast<int>(width), x, static_cast<int>(ldx), weight, 0, b.logits.data());
    for (int r = 0; r < rows; ++r) logits[r] += b.logits[r];
  };
  const size_t deep = spec.deep_blocks();
  if (deep > 0) {
    add_tower(spec.deep_width(), b.blocks[deep - 1].output(), state.blocks[deep - 1]->output_ld(), tensors.head_weight);
  }
  if (!b.cross.empty()) add_tower(D, b.cross.back().data(), D, tensors.head_weight + spec.deep_width());
  if (b.blocks.empty()) add_tower(D, b.x.data(), D, tensors.head_weight);
  if (!spec.linear()) return;
  for (int r = 0; r < rows; ++r) logits[r] += tile.context.linear[r * context_step];
  state.gather.AddLinear(batch, false, begin, rows, logits);
}

void Predictor::Evaluate(const EncodedBatch& batch, Workspace* workspace, absl::Span<float> logits) const {
  EvaluateUnless([] { return false; }, false, batch, workspace, logits, [](absl::Span<float>) {});
}

bool Predictor::EvaluateUnless(absl::FunctionRef<bool()> abandoned, bool context_evaluated, const EncodedBatch& batch,
                               Workspace* workspace, absl::Span<float> logits,
                               absl::FunctionRef<void(absl::Span<float>)> finish) const {
  Workspace::Buffers& b = *workspace->buffers_;
  const PredictorHelpers* const helpers = workspace->helpers_;
  const bool split = helpers != nullptr && helpers->Split(batch.candidate_rows);
  const Tiling tiling(batch.candidate_rows, split ? helpers->workspaces_.size() + 1 : 1);
  const bool shared = batch.context_rows == 1;
  b.fetched = batch.candidate_rows;  // of this batch, none
  if (!context_evaluated) {
    state_->gather.Prefetch(batch, false, 0, tiling.rows(0));  // while the context is evaluated
    b.fetched = 0;
    if (shared) EvaluateContext(batch, 0, 1, &b);
  }
  if (shared) {
    for (ServedAttention::Runner& attention : b.attention) attention.PrepareContext(batch);
  }
  std::atomic<bool> stopped{false};
  const auto evaluate = [&](int worker, size_t index, size_t next) {
    // The remaining tiles are handed out, but cost nothing.
    if (stopped.load(std::memory_order_relaxed)) return;
    if (abandoned()) {
      stopped.store(true, std::memory_order_relaxed);
      return;
    }
    Workspace::Buffers& own = worker == 0 ? b : *helpers->workspaces_[static_cast<size_t>(worker - 1)]->buffers_;
    const size_t begin = tiling.begin(index);
    const int rows = tiling.rows(index);
    if (!shared) EvaluateContext(batch, begin, rows, &own);
    EvaluateTile(batch, {begin, rows, tiling.begin(next), tiling.rows(next), shared ? b : own, shared ? 0 : 1}, &own,
                 logits.data() + begin);
    finish(logits.subspan(begin, static_cast<size_t>(rows)));
  };
  if (helpers == nullptr) {
    for (size_t tile = 0; tile < tiling.count(); ++tile) evaluate(0, tile, tile + 1);
  } else {
    workspace->split_requests += helpers->team_->Run(tiling.count(), split, evaluate) > 0 ? 1 : 0;
  }
  return !stopped.load(std::memory_order_relaxed);
}

absl::Status Predictor::Predict(const RequestView& request, Workspace* workspace, absl::Span<float> scores,
                                PredictTimes* times, absl::FunctionRef<bool()> abandoned) const {
  const uint64_t start = times != nullptr ? NowNs() : 0;
  const PredictorHelpers* const helpers = workspace->helpers_;
  const bool split = helpers != nullptr && helpers->Split(request.num_candidates);
  const auto run = [&](size_t tasks, absl::FunctionRef<void(size_t)> work) {
    if (helpers == nullptr) return RequestEncoder::RunInOrder(tasks, work);
    helpers->team_->Run(tasks, split, [work](int /*worker*/, size_t task, size_t /*next*/) { work(task); });
  };
  bool context_evaluated = false;
  const auto evaluate_context = [&] {
    // While other threads still encode candidates. One alone does it later, when it can fetch the first tile meanwhile.
    if (!split) return;
    EvaluateContext(workspace->batch, 0, 1, workspace->buffers_.get());
    context_evaluated = true;
  };
  HILOMOE_RETURN_IF_ERROR(state_->encoder.Encode(request, &workspace->batch, &workspace->counts, &workspace->columns_,
                                                 run, evaluate_context));
  const uint64_t encoded = times != nullptr ? NowNs() : 0;
  const auto sigmoid = [](absl::Span<float> tile) {
    for (float& score : tile) score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(score))));
  };
  if (!EvaluateUnless(abandoned, context_evaluated, workspace->batch, workspace, scores, sigmoid)) {
    return absl::CancelledError("the evaluation was abandoned");
  }
  if (const auto bad = std::find_if(scores.begin(), scores.end(), [](float score) { return std::isnan(score); });
      bad != scores.end()) {
    return absl::InvalidArgumentError(absl::StrCat("candidate ", bad - scores.begin(),
                                                   ": no score; its numbers are so large that the model overflows"));
  }
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
