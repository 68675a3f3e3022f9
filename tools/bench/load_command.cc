#include "tools/bench/load_command.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/file_bytes.h"
#include "model/model_file.h"
#include "model/status_macros.h"
#include "runtime/available_memory.h"
#include "runtime/cpu_count.h"
#include "tools/bench/large_model.h"
#include "tools/bench/machine/huge_buffer.h"
#include "tools/bench/machine/machine_kernels.h"
#include "tools/common/statistics.h"

ABSL_FLAG(std::string, scratch, "", "directory that the model file is written to and removed from; must be given");
ABSL_FLAG(int64_t, file_mib, 4096, "size of the model file");
ABSL_FLAG(int32_t, rounds, 5, "each measures everything once, in random order");
ABSL_FLAG(int32_t, loading_threads, 0, "beside one; 0: as many as the cgroup and the affinity allow");

namespace hilomoe::bench {
namespace {

constexpr size_t kMostBufferBytes = size_t{256} << 20;  // of one thread's limit, more than caches hold
constexpr size_t kMapBytes = size_t{256} << 20;         // at once, as ModelFile does
constexpr char kReadMemory[] = "limit: read memory";
constexpr char kReadMapped[] = "limit: read the file, long mapped";
constexpr char kMapAndRead[] = "limit: map and read the file";
constexpr char kCopyMemory[] = "limit: copy memory";
constexpr char kCopyToFreshMemory[] = "limit: copy to fresh memory";

struct LoadOptions {
  std::string scratch;
  size_t file_bytes = 0;
  int rounds = 0;
  int threads = 0;

  // A small file is for trying the command out; its limits mean nothing, and need not take much memory.
  size_t buffer_bytes() const { return std::min(kMostBufferBytes, file_bytes); }
};

// One line of the table.
struct Timed {
  std::string name;
  double bytes = 0;
  std::vector<std::string> limits;              // names of others: how fast the bytes could be had
  std::function<absl::StatusOr<double>()> run;  // once; seconds
  std::vector<double> seconds = {};
};

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string WithThreads(const std::string& name, int threads) {
  return absl::StrCat(name, ", ", threads, threads == 1 ? " thread" : " threads");
}

// Wall time of `work(thread)` on all threads at once.
double TimeThreads(int threads, const std::function<void(int)>& work) {
  const Clock::time_point start = Clock::now();
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
  work(0);
  for (std::thread& other : others) other.join();
  return SecondsSince(start);
}

volatile uint64_t g_sink;  // sums that nobody reads are not computed

using Buffers = std::vector<std::unique_ptr<HugeBuffer>>;  // two a thread

// What the memory gives: bytes read; bytes copied to where something was before; bytes copied to memory fresh from the
// kernel, which has to clear it and, on a virtual machine, to get it from its host, as for every load of a copy. Each
// as many as the file has, in turns through a thread's buffers: of less, one run differs from the next by a third. Not
// from as much memory: what the host gave a moment ago can be slower to read than the file, which is no limit.
Timed MemoryLimit(const std::string& name, int threads, const LoadOptions& options,
                  std::function<absl::Status(int thread, size_t turns)> work) {
  const size_t bytes = options.buffer_bytes() * static_cast<size_t>(threads);
  const size_t turns = std::max<size_t>(1, options.file_bytes / bytes);
  const auto run = [threads, turns, work = std::move(work)]() -> absl::StatusOr<double> {
    std::vector<absl::Status> done(static_cast<size_t>(threads));
    const double seconds = TimeThreads(threads, [&](int t) { done[static_cast<size_t>(t)] = work(t, turns); });
    for (const absl::Status& status : done) HILOMOE_RETURN_IF_ERROR(status);
    return seconds;
  };
  return {WithThreads(name, threads), static_cast<double>(bytes * turns), {}, run};
}

Timed ReadLimit(int threads, const LoadOptions& options, const Buffers& buffers) {
  const size_t words = options.buffer_bytes() / sizeof(uint64_t);
  return MemoryLimit(kReadMemory, threads, options, [words, &buffers](int t, size_t turns) {
    for (size_t i = 0; i < turns; ++i) g_sink = FastestReader().read(buffers[2 * t]->words(), words);
    return absl::OkStatus();
  });
}

Timed CopyLimit(int threads, const LoadOptions& options, const Buffers& buffers) {
  const size_t bytes = options.buffer_bytes();
  return MemoryLimit(kCopyMemory, threads, options, [bytes, &buffers](int t, size_t turns) {
    for (size_t i = 0; i < turns; ++i) std::memcpy(buffers[2 * t + 1]->words(), buffers[2 * t]->words(), bytes);
    return absl::OkStatus();
  });
}

Timed CopyToFreshLimit(int threads, const LoadOptions& options, const Buffers& buffers) {
  const size_t bytes = options.buffer_bytes();
  return MemoryLimit(kCopyToFreshMemory, threads, options, [bytes, &buffers](int t, size_t turns) -> absl::Status {
    HILOMOE_ASSIGN_OR_RETURN(const AnonymousMemory fresh, AnonymousMemory::Allocate(bytes * turns));
    for (size_t i = 0; i < turns; ++i) std::memcpy(fresh.data() + i * bytes, buffers[2 * t]->words(), bytes);
    return absl::OkStatus();
  });
}

// A thread's share of a mapped file, read; before that brought into sight where it is new.
absl::Status ReadShare(FileBytes* bytes, int thread, int threads, bool is_new) {
  const MachineKernels& reader = FastestReader();
  const size_t pieces = (bytes->size() + kMapBytes - 1) / kMapBytes;
  const size_t t = static_cast<size_t>(thread), of = static_cast<size_t>(threads);
  for (size_t i = pieces * t / of; i < pieces * (t + 1) / of; ++i) {
    const size_t begin = i * kMapBytes, end = std::min(begin + kMapBytes, bytes->size());
    if (is_new) HILOMOE_RETURN_IF_ERROR(bytes->Load(begin, end));
    const auto* const words = reinterpret_cast<const uint64_t*>(bytes->data() + begin);
    g_sink = reader.read(words, (end - begin) / sizeof(uint64_t) / kReadWords * kReadWords);
  }
  return absl::OkStatus();
}

// Reads a mapped file on all threads at once: seconds.
absl::StatusOr<double> TimeRead(FileBytes* bytes, int threads, bool is_new) {
  std::vector<absl::Status> read(static_cast<size_t>(threads));
  const double seconds =
      TimeThreads(threads, [&](int t) { read[static_cast<size_t>(t)] = ReadShare(bytes, t, threads, is_new); });
  for (const absl::Status& status : read) HILOMOE_RETURN_IF_ERROR(status);
  return seconds;
}

// The memory that the file itself lies in: it can be slower than that of the buffers, and so much of it is more than
// the processor knows the addresses of (with small pages, a host's as well).
Timed ReadMappedLimit(int threads, FileBytes* mapped) {
  return {WithThreads(kReadMapped, threads), static_cast<double>(mapped->size()), {}, [threads, mapped] {
            return TimeRead(mapped, threads, false);
          }};
}

absl::StatusOr<double> TimeMapAndRead(const std::string& path, int threads) {
  const Clock::time_point start = Clock::now();
  HILOMOE_ASSIGN_OR_RETURN(FileBytes bytes, FileBytes::Open(path, FileMemory::kMap));
  HILOMOE_RETURN_IF_ERROR(TimeRead(&bytes, threads, true).status());
  const double seconds = SecondsSince(start);
  HILOMOE_RETURN_IF_ERROR(bytes.FinishLoading());
  return seconds;
}

struct LoadCase {
  FileMemory memory;
  bool verify;
  int threads;
};

// From nothing to a predictor whose scores are right; that they are is checked after the clock has stopped.
absl::StatusOr<double> TimeLoad(const LargeModel& model, const LoadCase& load, const std::vector<float>& expected) {
  const ModelFileOptions options{.memory = load.memory, .threads = load.threads};
  const Clock::time_point start = Clock::now();
  absl::StatusOr<ModelFile> file =
      load.verify ? ModelFile::Open(model.path(), options) : ModelFile::OpenUnverified(model.path(), options);
  if (!file.ok()) return file.status();
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Predictor> predictor, Predictor::Create(*std::move(file)));
  const double seconds = SecondsSince(start);
  HILOMOE_ASSIGN_OR_RETURN(const std::vector<float> scores, model.Scores(*predictor));
  if (scores != expected) return absl::DataLossError("the loaded model gives other scores");
  return seconds;
}

// Refuses what would end in swapping or a full disk.
absl::Status CheckRoom(const LoadOptions& options) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(options.scratch, error);
  if (error) return absl::NotFoundError(absl::StrCat("--scratch: '", options.scratch, "': ", error.message()));
  const double file = static_cast<double>(options.file_bytes);
  if (static_cast<double>(space.available) < 1.1 * file) {
    return absl::ResourceExhaustedError(absl::StrCat("--scratch: '", options.scratch, "' lacks room for the file"));
  }
  // The file in the page cache, a copy of it, and the buffers of the limits.
  const double needed = 2.1 * file + 2.0 * options.threads * static_cast<double>(options.buffer_bytes());
  if (AvailableMemoryBytes() < needed) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%.1f GiB of memory are needed; set a smaller --file_mib", needed / (1 << 30)));
  }
  return absl::OkStatus();
}

void Print(const std::vector<Timed>& timed) {
  for (const Timed& line : timed) {
    const double median = Quantile(line.seconds, 0.5);
    const double spread = 50 * (Quantile(line.seconds, 0.75) - Quantile(line.seconds, 0.25)) / median;
    std::printf("%-44s %7.3f s %5.1f %% %8.2f", line.name.c_str(), median, spread, line.bytes / median / 1e9);
    const char* separator = "  ";
    for (const Timed& limit : timed) {
      if (std::find(line.limits.begin(), line.limits.end(), limit.name) == line.limits.end()) continue;
      const double least = Quantile(limit.seconds, 0.5) / limit.bytes * line.bytes;
      std::printf("%s%.0f %% (%s)", separator, 100 * least / median, limit.name.c_str() + std::strlen("limit: "));
      separator = ", ";
    }
    std::printf("\n");
  }
}

// Limits and loads of one kind of memory. mapped: the file, of kMap.
std::vector<Timed> Lines(FileMemory memory, const LargeModel& model, FileBytes* mapped,
                         const std::vector<float>& expected, const LoadOptions& options, const Buffers& buffers) {
  const bool copy = memory == FileMemory::kCopy;
  const double bytes = static_cast<double>(mapped->size());
  const std::set<int> thread_counts = {1, options.threads};
  std::vector<Timed> timed;
  for (const int threads : thread_counts) {
    if (copy) {
      timed.push_back(CopyLimit(threads, options, buffers));
      timed.push_back(CopyToFreshLimit(threads, options, buffers));
    } else {
      timed.push_back(ReadLimit(threads, options, buffers));
      timed.push_back(ReadMappedLimit(threads, mapped));
      timed.push_back({WithThreads(kMapAndRead, threads), bytes, {}, [&model, threads] {
                         return TimeMapAndRead(model.path(), threads);
                       }});
    }
  }
  for (const bool verify : {true, false}) {
    for (const int threads : thread_counts) {
      std::vector<std::string> limits;
      const auto limited_by = [&](const char* limit) { limits.push_back(WithThreads(limit, threads)); };
      if (copy) {
        for (const char* limit : {kCopyMemory, kCopyToFreshMemory}) limited_by(limit);
      } else if (verify) {  // without checksums, mapped bytes are not read
        for (const char* limit : {kReadMemory, kReadMapped, kMapAndRead}) limited_by(limit);
      }
      const std::string name =
          absl::StrCat(copy ? "COPY" : "MMAP", verify ? ", checksums verified" : ", without checksums");
      timed.push_back(
          {WithThreads(name, threads), bytes, std::move(limits),
           [&model, &expected, load = LoadCase{memory, verify, threads}] { return TimeLoad(model, load, expected); }});
    }
  }
  return timed;
}

absl::Status RunRounds(int rounds, std::vector<Timed>* timed) {
  std::mt19937 engine(3);
  std::vector<Timed*> order;
  for (Timed& line : *timed) order.push_back(&line);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), engine);
    for (Timed* line : order) {
      HILOMOE_ASSIGN_OR_RETURN(const double seconds, line->run());
      line->seconds.push_back(seconds);
    }
  }
  return absl::OkStatus();
}

absl::Status RunLoads(const LoadOptions& options, std::FILE* messages) {
  HILOMOE_RETURN_IF_ERROR(CheckRoom(options));
  std::fprintf(messages, "writing a model file of %zu MiB\n", options.file_bytes >> 20);
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<LargeModel> model,
                           LargeModel::Write(options.scratch, options.file_bytes));
  // Brings the file into the page cache, too, in huge pages.
  std::vector<float> expected;
  {
    HILOMOE_ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(model->path(), {.memory = FileMemory::kMap}));
    HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Predictor> predictor, Predictor::Create(std::move(file)));
    HILOMOE_ASSIGN_OR_RETURN(expected, model->Scores(*predictor));
  }
  HILOMOE_ASSIGN_OR_RETURN(FileBytes mapped, FileBytes::Open(model->path(), FileMemory::kMap));
  HILOMOE_RETURN_IF_ERROR(ReadShare(&mapped, 0, 1, true));
  Buffers buffers;
  for (int i = 0; i < 2 * options.threads; ++i) buffers.push_back(std::make_unique<HugeBuffer>(options.buffer_bytes()));
  std::printf("%zu bytes in a warm page cache, 16 tables of %u ids with vocabularies; %d rounds\n\n", mapped.size(),
              model->ids(), options.rounds);
  std::printf("%-44s %9s %7s %8s  %s\n", "", "median", "+-", "GB/s", "share of a limit");
  // Mapped first: what the page cache has lost meanwhile, a copy brings back in small pages, which take longer to map.
  for (const FileMemory memory : {FileMemory::kMap, FileMemory::kCopy}) {
    std::vector<Timed> timed = Lines(memory, *model, &mapped, expected, options, buffers);
    HILOMOE_RETURN_IF_ERROR(RunRounds(options.rounds, &timed));
    Print(timed);
  }
  return absl::OkStatus();
}

absl::StatusOr<Job> Prepare(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
  const int64_t mib = absl::GetFlag(FLAGS_file_mib);
  LoadOptions options;
  options.scratch = absl::GetFlag(FLAGS_scratch);
  options.file_bytes = static_cast<size_t>(mib) << 20;
  options.rounds = absl::GetFlag(FLAGS_rounds);
  options.threads = absl::GetFlag(FLAGS_loading_threads);
  if (options.scratch.empty()) return absl::InvalidArgumentError("--scratch: must be given");
  if (mib < 1 || mib > (1 << 20)) return absl::InvalidArgumentError("--file_mib: must be from 1 to 1048576");
  if (options.rounds < 1 || options.rounds > 1000) {
    return absl::InvalidArgumentError("--rounds: must be from 1 to 1000");
  }
  if (options.threads < 0 || options.threads > 64) {
    return absl::InvalidArgumentError("--loading_threads: must be from 0 to 64");
  }
  if (options.threads == 0) options.threads = std::min(64, UsableCpuCount());
  return Job([options](std::FILE* messages) { return RunLoads(options, messages); });
}

}  // namespace

Command LoadCommand() {
  return {.name = "load",
          .usage = "--scratch=DIR [flags]",
          .summary = "Measures how fast a model file of some GiB in a warm page cache is ready, copied and mapped.",
          .flag_files = {__FILE__},
          .prepare = Prepare};
}

}  // namespace hilomoe::bench
