#include "runtime/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "runtime/cgroup.h"

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

double CgroupQuota() {
  double quota = INFINITY;
  for (const std::string& directory : CgroupDirectories("cpu")) quota = std::min(quota, QuotaOf(directory));
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
