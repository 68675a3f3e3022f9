#include "tools/bench/machine/machine.h"

#include <unistd.h>

#include <cstdint>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "runtime/cpu_count.h"
#include "tools/bench/machine/huge_buffer.h"

namespace hilomoe::bench {
namespace {

// From sysfs, as the kernel sees them: under a hypervisor CPUID may tell of the whole host's.
size_t CacheBytes(int level, size_t otherwise) {
  for (int i = 0; i < 8; ++i) {
    const std::string path = absl::StrCat("/sys/devices/system/cpu/cpu0/cache/index", i, "/");
    std::ifstream level_file(path + "level"), type_file(path + "type"), size_file(path + "size");
    int its_level = 0;
    std::string type;
    size_t kib = 0;  // "32K"
    if (level_file >> its_level && type_file >> type && size_file >> kib && its_level == level &&
        type != "Instruction") {
      return kib << 10;
    }
  }
  return otherwise;
}

}  // namespace

Machine DescribeMachine() {
  Machine machine;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    machine.cpu = line.substr(line.find(':') + 2);
    break;
  }
  if (machine.cpu.empty()) machine.cpu = "unknown CPU";
  machine.cpus = UsableCpuCount();
  // Where sysfs tells nothing, what CPUID tells of a core's own caches is right.
  const auto known = [](int64_t bytes, size_t otherwise) { return bytes > 0 ? static_cast<size_t>(bytes) : otherwise; };
  machine.l1_bytes = CacheBytes(1, known(::sysconf(_SC_LEVEL1_DCACHE_SIZE), size_t{32} << 10));
  machine.l2_bytes = CacheBytes(2, known(::sysconf(_SC_LEVEL2_CACHE_SIZE), size_t{1} << 20));
  machine.l3_bytes = CacheBytes(3, size_t{32} << 20);
  return machine;
}

void FlushCaches(const Machine& machine) {
  // Twice the last level: a replacement policy that resists a single sweep keeps little of what was there before.
  static const HugeBuffer buffer(2 * (machine.l3_bytes + machine.l2_bytes));
  const volatile uint64_t* words = buffer.words();
  for (size_t i = 0; i < buffer.size() / sizeof(uint64_t); i += 8) (void)words[i];
}

}  // namespace hilomoe::bench
