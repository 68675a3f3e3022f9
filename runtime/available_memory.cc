#include "runtime/available_memory.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "runtime/cgroup.h"

namespace hilomoe {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The number that is all of a file, or stands behind `key` in one of its lines; `missing` when there is none ("max").
double NumberIn(const std::string& path, const std::string& key, double missing) {
  std::ifstream file(path);
  double number = 0;
  if (key.empty()) return file >> number ? number : missing;
  for (std::string word; file >> word;) {
    if (word == key && file >> number) return number;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return missing;
}

}  // namespace

double CgroupMemoryLeft(const std::string& directory) {
  const auto left = [&](const char* limit, const char* used, const char* cache) {
    const double most = NumberIn(directory + limit, "", kInfinity);
    const double taken = NumberIn(directory + used, "", 0) - NumberIn(directory + "/memory.stat", cache, 0);
    return std::max(0.0, most - std::max(0.0, taken));
  };
  return std::min(left("/memory.max", "/memory.current", "inactive_file"),
                  left("/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file"));
}

double AvailableMemoryBytes() {
  double bytes = NumberIn("/proc/meminfo", "MemAvailable:", kInfinity) * 1024;
  for (const std::string& directory : CgroupDirectories("memory")) {
    bytes = std::min(bytes, CgroupMemoryLeft(directory));
  }
  return bytes;
}

}  // namespace hilomoe
