#include "server/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/cgroup.h"

namespace hilomoe {
namespace {

void Append(const char* name, const char* help, prometheus::MetricType type, double value,
            std::vector<prometheus::MetricFamily>* families) {
  prometheus::ClientMetric metric;
  (type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  families->push_back({name, help, type, {metric}});
}

std::string FirstLine(const char* path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

// Seconds since the epoch when the machine booted; 0 when unknown.
double BootSeconds() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

}  // namespace

void AppendProcessMetrics(std::vector<prometheus::MetricFamily>* families) {
  using prometheus::MetricType;
  // The fields after the program's name, which may hold spaces: proc(5) numbers them from 3.
  const std::string stat = FirstLine("/proc/self/stat");
  const size_t name_end = stat.rfind(") ");
  std::vector<std::string> fields;
  if (name_end != std::string::npos) fields = absl::StrSplit(stat.substr(name_end + 2), ' ');
  const auto field = [&fields](size_t number) {
    double value = 0;
    return number - 3 < fields.size() && absl::SimpleAtod(fields[number - 3], &value) ? value : 0;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  if (!fields.empty()) {
    Append("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", MetricType::Counter,
           (field(14) + field(15)) / ticks, families);
    Append("process_threads", "Number of threads.", MetricType::Gauge, field(20), families);
    if (const double boot = BootSeconds(); boot > 0) {
      Append("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", MetricType::Gauge,
             boot + field(22) / ticks, families);
    }
    Append("process_virtual_memory_bytes", "Virtual memory size in bytes.", MetricType::Gauge, field(23), families);
    Append("process_resident_memory_bytes", "Resident memory size in bytes.", MetricType::Gauge, field(24) * page,
           families);
  }
  std::error_code error;
  double open_fds = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end; it.increment(error)) {
    ++open_fds;
  }
  if (!error) {
    // One of them is the listing's own.
    Append("process_open_fds", "Number of open file descriptors.", MetricType::Gauge, open_fds - 1, families);
  }
  if (rlimit limit{}; getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    Append("process_max_fds", "Maximum number of open file descriptors.", MetricType::Gauge,
           static_cast<double>(limit.rlim_cur), families);
  }
}

void AppendCpuThrottling(const std::vector<std::string>& directories, std::vector<prometheus::MetricFamily>* families) {
  const std::optional<CpuThrottling> cpu = ReadCpuThrottling(directories);
  if (!cpu) return;
  const auto counter = [families](const char* name, const char* help, double value) {
    Append(name, help, prometheus::MetricType::Counter, value, families);
  };
  counter("hilomoe_cpu_periods_total", "Periods of the CPU quotas of the process's control groups.",
          static_cast<double>(cpu->periods));
  counter("hilomoe_cpu_throttled_periods_total", "Of these, those in which a quota was used up.",
          static_cast<double>(cpu->throttled_periods));
  counter("hilomoe_cpu_throttled_seconds_total", "For how long threads had to wait then, all of them added up.",
          cpu->throttled_seconds);
}

}  // namespace hilomoe
