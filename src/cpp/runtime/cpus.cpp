#include "runtime/cpus.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastrnn {

namespace {

// The quota of one control group of version 2 ("max 100000" or "150000 100000"), 0 for none.
double quota_of_v2(const std::string &folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::strtod(quota.c_str(), nullptr) / period;
}

// The same of version 1, where two files hold it and -1 means none.
double quota_of_v1(const std::string &folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

double smaller_limit(double a, double b) { return a > 0 && b > 0 ? std::min(a, b) : std::max(a, b); }

// A group is limited by its own quota and by those of all groups above it. In a container the path that /proc tells may
// be that of the host, of which only the last part, or nothing, is mounted: every part that exists is asked.
double quota_along(const std::string &mount, const std::string &path, double (*quota_of)(const std::string &)) {
  double limit = quota_of(mount);
  for (size_t end = path.find('/', 1); path.size() > 1; end = path.find('/', end + 1)) {
    limit = smaller_limit(limit, quota_of(mount + path.substr(0, end)));
    if (end == std::string::npos) break;
  }
  return limit;
}

double read_quota(const std::string &root) {
  double limit = 0;
  std::ifstream groups(root + "/proc/self/cgroup");
  bool any = false;
  for (std::string line; std::getline(groups, line);) {
    // hierarchy:controllers:path, for version 2 "0::path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    any = true;
    if (controllers.empty()) {
      limit = smaller_limit(limit, quota_along(root + "/sys/fs/cgroup", path, quota_of_v2));
      continue;
    }
    std::stringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');)
      if (name == "cpu") {
        limit = smaller_limit(limit, quota_along(root + "/sys/fs/cgroup/cpu", path, quota_of_v1));
        limit = smaller_limit(limit, quota_along(root + "/sys/fs/cgroup/" + controllers, path, quota_of_v1));
      }
  }
  if (!any) {
    limit = smaller_limit(limit, quota_of_v2(root + "/sys/fs/cgroup"));
    limit = smaller_limit(limit, quota_of_v1(root + "/sys/fs/cgroup/cpu"));
  }
  return limit;
}

// Cores are told apart by which CPUs share one ("0,4" or "0-1"). A CPU whose file is missing is a core of its own.
size_t count_cores(const std::string &root, const std::vector<int> &cpus) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string name = std::to_string(cpu);
    std::ifstream file(root + "/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(file >> siblings ? siblings : "cpu " + name);
  }
  return std::max<size_t>(cores.size(), 1);
}

} // namespace

size_t Cpus::usable() const {
  if (quota <= 0) return cores;
  // A thread beyond the quota would only use it up sooner, and then all of them are stopped until the period ends.
  return std::min(cores, std::max<size_t>(size_t(std::floor(quota + 1e-9)), 1));
}

Cpus read_cpus(const std::string &root, std::vector<int> allowed) {
  Cpus cpus;
  cpus.cores = count_cores(root, allowed);
  cpus.quota = read_quota(root);
  cpus.allowed = std::move(allowed);
  return cpus;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  // the kernel refuses a mask with room for fewer CPUs than it knows
  for (int most = 1024; most <= 1 << 20 && cpus.empty(); most *= 4) {
    cpu_set_t *const mask = CPU_ALLOC(size_t(most));
    if (!mask) break;
    const size_t bytes = CPU_ALLOC_SIZE(size_t(most));
    if (sched_getaffinity(0, bytes, mask) == 0)
      for (int cpu = 0; cpu < most; ++cpu)
        if (CPU_ISSET_S(size_t(cpu), bytes, mask)) cpus.push_back(cpu);
    CPU_FREE(mask);
  }
#endif
  if (cpus.empty())
    for (unsigned cpu = 0; cpu < std::max(std::thread::hardware_concurrency(), 1u); ++cpu) cpus.push_back(int(cpu));
  return cpus;
}

} // namespace fastrnn
