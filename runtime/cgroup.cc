#include "runtime/cgroup.h"

#include <filesystem>
#include <fstream>
#include <sstream>

namespace hilomoe {
namespace {

namespace fs = std::filesystem;

void AppendGroups(const fs::path& mount, const std::string& group, std::vector<std::string>* directories) {
  fs::path directory = mount;
  directories->push_back(directory.string());
  for (const fs::path& part : fs::path(group).relative_path()) {
    directory /= part;
    directories->push_back(directory.string());
  }
}

}  // namespace

std::vector<std::string> CgroupDirectories(const std::string& controller) {
  std::vector<std::string> directories;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:group
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      AppendGroups("/sys/fs/cgroup", group, &directories);
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name == controller) AppendGroups(fs::path("/sys/fs/cgroup") / controller, group, &directories);
    }
  }
  return directories;
}

std::optional<CpuThrottling> ReadCpuThrottling(const std::vector<std::string>& directories) {
  CpuThrottling sum;
  bool found = false;
  for (const std::string& directory : directories) {
    std::ifstream file(fs::path(directory) / "cpu.stat");
    std::string name;
    for (uint64_t value = 0; file >> name >> value;) {
      if (name == "nr_periods") sum.periods += value;
      if (name == "nr_throttled") sum.throttled_periods += value;
      if (name == "throttled_usec") sum.throttled_seconds += static_cast<double>(value) * 1e-6;  // v2
      if (name == "throttled_time") sum.throttled_seconds += static_cast<double>(value) * 1e-9;  // v1
      found = found || name == "nr_periods";
    }
  }
  return found ? std::optional(sum) : std::nullopt;
}

}  // namespace hilomoe
