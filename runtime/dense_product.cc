#include "runtime/dense_product.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dnnl.h"
#include "dnnl.hpp"

namespace hilomoe {
namespace {

constexpr int kRowCounts[] = {1, 8, 16, 32, 64};
constexpr int kRowCountChoices = static_cast<int>(std::size(kRowCounts));
static_assert(kRowCounts[kRowCountChoices - 1] == kTileRows);

// OpenMP keeps the number of threads per thread, so each one has to be told once.
void StayOnThisThread() {
  thread_local const bool told = [] {
    omp_set_num_threads(1);
    return true;
  }();
  (void)told;
}

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

}  // namespace

struct DenseProduct::State {
  struct Variant {
    int rows;
    dnnl::matmul primitive;
    dnnl::memory::desc x, y, scratchpad;
    dnnl::memory weight;  // shared between variants that want the same layout
  };
  std::vector<Variant> variants;
  size_t scratchpad_bytes = 0;
};

DenseProduct::DenseProduct(std::unique_ptr<State> state) : state_(std::move(state)) {}
DenseProduct::~DenseProduct() = default;

absl::StatusOr<std::unique_ptr<DenseProduct>> DenseProduct::Create(const float* weight, int n, int k, int ldw, int ldx,
                                                                   int ldy) {
  using dnnl::memory;
  StayOnThisThread();
  try {
    auto state = std::make_unique<State>();
    dnnl::stream stream(Engine());
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const memory::desc plain({k, n}, memory::data_type::f32, memory::dims{1, ldw});
    memory given(plain, Engine(), const_cast<float*>(weight));
    for (const int rows : kRowCounts) {
      const memory::desc x({rows, k}, memory::data_type::f32, memory::dims{ldx, 1});
      const memory::desc y({rows, n}, memory::data_type::f32, memory::dims{ldy, 1});
      const memory::desc any({k, n}, memory::data_type::f32, memory::format_tag::any);
      const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(x, any, y), attributes, Engine());
      memory packed;
      for (const State::Variant& other : state->variants) {
        if (other.weight.get_desc() == description.weights_desc()) packed = other.weight;
      }
      if (!packed) {
        packed = memory(description.weights_desc(), Engine());
        dnnl::reorder(given, packed).execute(stream, given, packed);
        stream.wait();
      }
      state->scratchpad_bytes = std::max(state->scratchpad_bytes, description.scratchpad_desc().get_size());
      state->variants.push_back({rows, dnnl::matmul(description), x, y, description.scratchpad_desc(), packed});
    }
    return std::unique_ptr<DenseProduct>(new DenseProduct(std::move(state)));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("oneDNN cannot prepare a product of ", n, " x ", k, ": ", error.what()));
  }
}

size_t DenseProduct::scratchpad_bytes() const { return state_->scratchpad_bytes; }

struct DenseProduct::Executor::Arguments {
  struct Call {
    std::vector<dnnl::memory> memories;  // what `list` points to
    std::vector<dnnl_exec_arg_t> list;   // the C interface's: the C++ one makes such a list in every call
  };
  const State* state;
  dnnl::stream stream{Engine()};
  std::vector<Call> calls;  // per variant
  float* y;
};

DenseProduct::Executor::Executor(const DenseProduct& product, const float* x, float* y, std::byte* scratchpad)
    : arguments_(std::make_unique<Arguments>()) {
  StayOnThisThread();
  arguments_->state = product.state_.get();
  arguments_->y = y;
  for (const State::Variant& variant : product.state_->variants) {
    Arguments::Call& call = arguments_->calls.emplace_back();
    const auto add = [&call](int argument, dnnl::memory memory) {
      call.list.push_back({argument, memory.get()});
      call.memories.push_back(std::move(memory));
    };
    add(DNNL_ARG_SRC, dnnl::memory(variant.x, Engine(), const_cast<float*>(x)));
    add(DNNL_ARG_WEIGHTS, variant.weight);
    add(DNNL_ARG_DST, dnnl::memory(variant.y, Engine(), y));
    add(DNNL_ARG_SCRATCHPAD, dnnl::memory(variant.scratchpad, Engine(), scratchpad));
  }
}

DenseProduct::Executor::~Executor() = default;
DenseProduct::Executor::Executor(Executor&&) noexcept = default;

void DenseProduct::Executor::Run(int rows) const {
  StayOnThisThread();
  int choice = 0;
  while (kRowCounts[choice] < rows) ++choice;
  const State::Variant& variant = arguments_->state->variants[choice];
  const std::vector<dnnl_exec_arg_t>& list = arguments_->calls[choice].list;
  const dnnl_status_t status = dnnl_primitive_execute(variant.primitive.get(), arguments_->stream.get(),
                                                      static_cast<int>(list.size()), list.data());
  if (status == dnnl_success) return;
  // Out of memory, in all likelihood. The scores become NaN rather than those of the rows before.
  std::fill_n(arguments_->y, variant.y.get_size() / sizeof(float), std::numeric_limits<float>::quiet_NaN());
}

void Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, float alpha, const float* a,
          size_t lda, const float* b, size_t ldb, float beta, float* c, size_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {  // oneDNN would leave C as it is
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
    }
    return;
  }
  StayOnThisThread();
  const auto letter = [](Transpose transpose) { return transpose == Transpose::kYes ? 'T' : 'N'; };
  const auto size = [](size_t value) { return static_cast<dnnl_dim_t>(value); };
  const auto ld = [&](size_t value) { return size(std::max<size_t>(value, 1)); };
  // Cannot fail: it refuses only negative sizes and leading dimensions that are too small.
  dnnl_sgemm(letter(transpose_a), letter(transpose_b), size(m), size(n), size(k), alpha, a, ld(lda), b, ld(ldb), beta,
             c, ld(ldc));
}

const char* ProductInstructionSet() {
  const auto has = [set = dnnl_get_effective_cpu_isa()](dnnl_cpu_isa_t wanted) { return (set & wanted) == wanted; };
  if (has(dnnl_cpu_isa_avx512_core)) return "onednn avx512";
  if (has(dnnl_cpu_isa_avx2)) return "onednn avx2";
  return "onednn";
}

}  // namespace hilomoe
