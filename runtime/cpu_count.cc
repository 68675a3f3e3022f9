#include "runtime/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace hilomoe {
namespace {

namespace fs = std::filesystem;

// Processors that the quota in `directory` amounts to; infinity without one.
double QuotaOf(const fs::path& directory) {
  std::string quota;
  double period = 0;
  if (std::ifstream file(directory / "cpu.max"); file >> quota >> period) {
    return quota == "max" || period <= 0 ? INFINITY : std::atof(quota.c_str()) / period;
  }
  double microseconds = -1;
  std::ifstream quota_file(directory / "cpu.cfs_quota_us");
  std::ifstream period_file(directory / "cpu.cfs_period_us");
  if (quota_file >> microseconds && period_file >> period && microseconds > 0 && period > 0) {
    return microseconds / period;
  }
  return INFINITY;
}

// The smallest quota of `group` and its parents under `mount`.
double SmallestQuota(const fs::path& mount, const std::string& group) {
  double quota = QuotaOf(mount);
  fs::path directory = mount;
  for (const fs::path& part : fs::path(group).relative_path()) {
    directory /= part;
    quota = std::min(quota, QuotaOf(directory));
  }
  return quota;
}

double CgroupQuota() {
  double quota = INFINITY;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:group
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      quota = std::min(quota, SmallestQuota("/sys/fs/cgroup", group));
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name == "cpu") quota = std::min(quota, SmallestQuota("/sys/fs/cgroup/cpu", group));
    }
  }
  return quota;
}

int AffinityCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails only on machines with more processors than a cpu_set_t names; then the quota alone decides.
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return CPU_SETSIZE;
  return CPU_COUNT(&set);
}

}  // namespace

int UsableCpuCount() {
  const double quota = std::ceil(CgroupQuota());
  return std::max(1, static_cast<int>(std::min<double>(AffinityCount(), quota)));
}

}  // namespace hilomoe
