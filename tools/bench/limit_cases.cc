// What the machine can do: the rates that all other cases are measured by.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/bench/machine/huge_buffer.h"
#include "tools/bench/machine/machine_kernels.h"
#include "tools/bench/roofline.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

volatile double g_sink;  // results that nobody reads are not computed

Case Limit(std::string name, std::string instruction_set, int threads) {
  Case c;
  c.group = kLimitsGroup;
  c.name = std::move(name);
  c.instruction_set = std::move(instruction_set);
  c.threads = threads;
  if (threads > 1) {
    Case single = c;
    single.threads = 1;
    c.compared_with.push_back(FullName(single));
  }
  return c;
}

Case Fma(const MachineKernels& kernels, int threads) {
  constexpr int64_t kSteps = 1 << 14;
  Case c = Limit(FmaLimit(kernels.precision), kernels.instruction_set, threads);
  c.work.flops = 2.0 * kSteps * static_cast<double>(kernels.multiply_adds);
  c.work.precision = kernels.precision;
  c.prepare = [&kernels](int) -> absl::StatusOr<Operands> {
    Operands operands;
    operands.run = [&kernels] { g_sink = kernels.multiply_add(kSteps); };
    operands.verify = [&kernels]() -> absl::Status {
      const double sum = kernels.multiply_add(kSteps), expected = kSteps * static_cast<double>(kernels.multiply_adds);
      if (sum == expected) return absl::OkStatus();
      return absl::DataLossError(absl::StrCat("the sums are ", sum, " instead of ", expected));
    };
    return operands;
  };
  return c;
}

// Reads all words that `make` gives a thread, `times` times; `bytes`: how much they are.
Case Read(const std::string& name, size_t bytes, size_t times, int threads,
          std::function<std::vector<Words>(int thread)> make) {
  const MachineKernels& kernels = FastestReader();
  Case c = Limit(name, kernels.instruction_set, threads);
  c.work.bytes = static_cast<double>(bytes * times);
  c.prepare = [&kernels, times, make = std::move(make)](int thread) -> absl::StatusOr<Operands> {
    const auto words = std::make_shared<const std::vector<Words>>(make(thread));
    const auto count = [](const Words& w) { return w.bytes / sizeof(uint64_t) / kReadWords * kReadWords; };
    Operands operands;
    operands.run = [&kernels, words, count, times] {
      for (size_t i = 0; i < times; ++i) {
        for (const Words& w : *words) g_sink = static_cast<double>(kernels.read(w.first.get(), count(w)));
      }
    };
    operands.verify = [&kernels, words, count]() -> absl::Status {
      for (const Words& w : *words) {
        uint64_t expected = 0;
        for (size_t i = 0; i < count(w); ++i) expected += w.first.get()[i];
        if (kernels.read(w.first.get(), count(w)) != expected) {
          return absl::DataLossError("the sum of the words is wrong");
        }
      }
      return absl::OkStatus();
    };
    return operands;
  };
  return c;
}

std::vector<Words> RandomWords(size_t bytes, int thread) {
  const auto buffer = std::make_shared<HugeBuffer>(bytes);
  std::mt19937_64 engine(static_cast<uint64_t>(thread));
  for (size_t i = 0; i < bytes / sizeof(uint64_t); ++i) buffer->words()[i] = engine();
  return {{{buffer, buffer->words()}, bytes}};
}

constexpr size_t kLineWords = 8;

// Lines of 64 bytes, each naming the next one, all in one random cycle.
class LineCycle {
 public:
  LineCycle(size_t bytes, uint64_t seed) : buffer_(bytes), lines_(buffer_.size() / 64) {
    std::mt19937_64 engine(seed);
    for (size_t i = 0; i < lines_; ++i) Next(i) = i;
    for (size_t i = lines_ - 1; i > 0; --i) std::swap(Next(i), Next(engine() % i));  // Sattolo: a single cycle
  }
  uint64_t& Next(size_t line) { return buffer_.words()[line * kLineWords]; }
  size_t lines() const { return lines_; }
  size_t Follow(size_t line, size_t hops) {
    for (; hops > 0; --hops) line = Next(line);
    return line;
  }

 private:
  HugeBuffer buffer_;
  size_t lines_;
};

Case Latency(size_t bytes, int threads) {
  constexpr size_t kHops = 1 << 14;
  Case c = Limit("random reads, one after another", "portable", threads);
  c.work.random_reads = kHops;
  c.prepare = [bytes](int thread) -> absl::StatusOr<Operands> {
    const auto cycle = std::make_shared<LineCycle>(bytes, static_cast<uint64_t>(thread));
    const auto line = std::make_shared<size_t>(0);
    Operands operands;
    operands.run = [cycle, line] { *line = cycle->Follow(*line, kHops); };
    operands.verify = [cycle]() -> absl::Status {
      // The walk must see every line once: it comes back after as many hops as there are lines, and not before.
      size_t hops = 1;
      for (size_t at = cycle->Follow(0, 1); at != 0 && hops <= cycle->lines(); at = cycle->Follow(at, 1)) ++hops;
      if (hops == cycle->lines()) return absl::OkStatus();
      return absl::DataLossError(absl::StrCat("a cycle of ", hops, " instead of ", cycle->lines(), " lines"));
    };
    return operands;
  };
  return c;
}

// Reads at random places that are known beforehand: the loop prefetches far ahead, the processor overlaps what it can.
struct ScatteredReads {
  static constexpr size_t kReads = 1 << 14;
  static constexpr size_t kLists = 64;  // in turn, so that no list's lines are still in the caches
  static constexpr size_t kAhead = 64;

  ScatteredReads(size_t bytes, uint64_t seed) : buffer(bytes), places(kReads * kLists + kAhead) {
    std::mt19937_64 engine(seed);
    for (size_t i = 0; i < buffer.size() / sizeof(uint64_t); ++i) buffer.words()[i] = i;
    for (uint32_t& place : places) place = static_cast<uint32_t>(engine() % (buffer.size() / 64));
  }
  uint64_t Sum(size_t list) const {
    const uint32_t* place = &places[list * kReads];
    uint64_t sum = 0;
    for (size_t i = 0; i < kReads; ++i) {
      __builtin_prefetch(&buffer.words()[place[i + kAhead] * kLineWords]);
      sum += buffer.words()[place[i] * kLineWords];
    }
    return sum;
  }

  HugeBuffer buffer;
  std::vector<uint32_t> places;
  size_t next = 0;
};

Case Throughput(size_t bytes, int threads) {
  Case c = Limit(kRandomReadLimit, "portable", threads);
  c.work.random_reads = ScatteredReads::kReads;
  c.prepare = [bytes](int thread) -> absl::StatusOr<Operands> {
    const auto reads = std::make_shared<ScatteredReads>(bytes, static_cast<uint64_t>(thread));
    Operands operands;
    operands.run = [reads] { g_sink = static_cast<double>(reads->Sum(reads->next++ % ScatteredReads::kLists)); };
    operands.verify = [reads]() -> absl::Status {
      uint64_t expected = 0;
      for (size_t i = 0; i < ScatteredReads::kReads; ++i) expected += uint64_t{reads->places[i]} * kLineWords;
      if (reads->Sum(0) == expected) return absl::OkStatus();
      return absl::DataLossError("the sum of the words is wrong");
    };
    return operands;
  };
  return c;
}

}  // namespace

Case PlainRead(const std::string& name, size_t bytes, std::function<std::vector<Words>()> make) {
  Case c = Read(name, bytes, 1, 1, [make = std::move(make)](int /*thread*/) { return make(); });
  c.group = "products";
  return c;
}

void AddLimitCases(const Suite& suite, std::vector<Case>* cases) {
  const Machine& machine = suite.machine;
  int count = 0;
  const MachineKernels* const* all = SupportedMachineKernels(&count);
  // Half a cache, so that what else is in use does not push it out; of the shared one a quarter a thread.
  const std::pair<const char*, size_t> levels[] = {{"L1", machine.l1_bytes / 2},
                                                   {"L2", machine.l2_bytes / 2},
                                                   {"L3", machine.l3_bytes / 4},
                                                   {"memory", suite.options.memory_bytes}};
  for (const int threads : std::set<int>{1, suite.options.threads}) {
    for (int i = 0; i < count; ++i) cases->push_back(Fma(*all[i], threads));
    for (const auto& [level, bytes] : levels) {
      // Small buffers are read several times, so that the call costs nothing.
      const size_t times = std::max<size_t>(1, (size_t{1} << 20) / bytes);
      cases->push_back(Read(ReadLimit(level), bytes, times, threads,
                            [bytes = bytes](int thread) { return RandomWords(bytes, thread); }));
    }
    cases->push_back(Latency(suite.options.memory_bytes, threads));
    cases->push_back(Throughput(suite.options.memory_bytes, threads));
  }
}

}  // namespace hilomoe::bench
