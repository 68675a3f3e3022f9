// Blocks as they are served: product, routing, experts, bias and activation.
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/reference.h"
#include "model/status_macros.h"
#include "runtime/served_block.h"
#include "tools/bench/random_numbers.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

using kernels::Kernels;

// What is run of a block's work.
enum class Part {
  kWhole,          // every row with a context of its own
  kCandidateHalf,  // the context's half was computed before
};

struct RunningBlock {
  RunningBlock(BenchModel* model_, size_t index_, int rows_, Part part_)
      : model(model_), index(index_), rows(rows_), part(part_), spec(model_->spec().blocks()[index_]) {}

  absl::Status Create(const Kernels& kernels) {
    HILOMOE_ASSIGN_OR_RETURN(const Predictor* const predictor, model->Open());
    const size_t split = index == 0 ? model->spec().context_width() : 0;
    const ModelFile& file = predictor->file();
    block = std::make_unique<ServedBlock>(spec, file.tensors().blocks[index], file.matrices().blocks[index], split,
                                          spec.input);
    x = RandomNumbers(kTileRows * spec.input, 31);
    scratchpad.resize(block->scratchpad_bytes());
    runner = std::make_unique<ServedBlock::Runner>(*block, kernels, x.data(), x.data(), scratchpad.data());
    if (part == Part::kCandidateHalf) runner->RunContext(1);
    return absl::OkStatus();
  }
  void Run() const {
    if (part == Part::kWhole) runner->RunContext(rows);
    runner->Run(rows, part == Part::kWhole ? 1 : 0, *runner);
  }
  // Some rows against the reference, batch norm and all.
  absl::Status Verify() const {
    Run();
    const BlockTensors<const Rounded>& tensors = model->reference_tensors().blocks[index];
    const size_t split = index == 0 ? model->spec().context_width() : 0;
    for (int r = 0; r < rows; r += 21) {
      std::vector<Rounded> row(&x[r * spec.input], &x[r * spec.input] + spec.input);
      if (part == Part::kCandidateHalf) std::copy_n(x.begin(), split, row.begin());
      std::vector<Rounded> y(spec.width), z(spec.stack()), s(spec.stack());
      const double gap = ReferenceBlock(spec, tensors, true, row.data(), y.data(), z.data(), s.data());
      if (gap <= Rounded::kDeviations) continue;
      ReferenceAfterBlock(spec, tensors, {}, index, 1, y);
      const absl::Span<const float> got(runner->output() + r * block->output_ld(), spec.width);
      HILOMOE_RETURN_IF_ERROR(CheckNumbers(absl::StrCat("row ", r), got, y));
    }
    return absl::OkStatus();
  }

  BenchModel* model;
  size_t index;
  int rows;
  Part part;
  const BlockSpec& spec;
  std::unique_ptr<ServedBlock> block;
  AlignedVector<float> x;
  AlignedVector<std::byte> scratchpad;
  std::unique_ptr<ServedBlock::Runner> runner;
};

Work BlockWork(const BlockSpec& spec, size_t input, int rows) {
  const double D = static_cast<double>(input), O = static_cast<double>(spec.width);
  const double L = static_cast<double>(spec.layers), K = static_cast<double>(spec.experts);
  const double kept = spec.top_k > 0 ? static_cast<double>(spec.top_k) : K;
  Work work;
  work.flops = rows * (2 * D * (O + L * K) + 2 * L * kept * O + L * (L - 1) * kept * K);
  // Of U one row needs what it keeps; of the Gram matrix a layer reads the columns of those before.
  const double u = L * (rows == 1 ? kept : K) * O, gram = L * (L - 1) / 2 * K * K;
  work.bytes = 4 * (D * (O + L * K) + u + gram + rows * D);
  return work;
}

}  // namespace

void AddBlockCases(Suite* suite, std::vector<Case>* cases) {
  struct What {
    const char* name;
    size_t index, input;
    Part part;
  };
  for (const auto& [name, index, input, part] :
       {What{"block 1", 0, 624, Part::kWhole}, What{"block 1, candidate's half", 0, 208, Part::kCandidateHalf},
        What{"block 2", 1, 400, Part::kWhole}}) {
    for (const int top_k : {0, 4}) {
      for (const int rows : {1, kTileRows}) {
        for (const Kernels* kernels : SupportedKernels(&Kernels::route_dense)) {
          Case c;
          c.group = "blocks";
          c.name = absl::StrCat(name, top_k > 0 ? ", top_k 4" : ", dense", ", rows ", rows);
          c.instruction_set = kernels->name;
          BlockSpec spec;
          spec.width = 400, spec.layers = 4, spec.experts = 16, spec.top_k = static_cast<size_t>(top_k);
          c.work = BlockWork(spec, input, rows);
          c.prepare = [suite, top_k, rows, kernels, index = index, part = part](int) -> absl::StatusOr<Operands> {
            HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model,
                                     suite->models.Get({.ids = suite->options.ids, .top_k = top_k}));
            const auto block = std::make_shared<RunningBlock>(model, index, rows, part);
            HILOMOE_RETURN_IF_ERROR(block->Create(*kernels));
            return Operands{[block] { return block->Verify(); }, [block] { block->Run(); }};
          };
          if (kernels->route_dense == kernels::SelectKernels().route_dense) {
            AddWarmAndFlushed(c, cases);
          } else {
            cases->push_back(c);
          }
        }
      }
    }
  }
}

}  // namespace hilomoe::bench
