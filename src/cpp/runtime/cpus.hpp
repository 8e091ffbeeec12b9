// cpus: how many CPUs this process may really use.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace fastrnn {

struct Cpus {
  std::vector<int> allowed; // CPUs that the affinity mask lets the process run on
  size_t cores = 1;         // physical cores among them: two hyperthreads of a core share one set of FMA units
  double quota = 0;         // CPUs that control groups grant, as time on CPU over time; 0: no limit

  // Threads that can compute at the same time: one a core, and no more than the quota pays for.
  size_t usable() const;
};

// Reads the system's files below `root` ("" for the real ones; tests lay out their own). An unreadable file counts as
// no limit.
Cpus read_cpus(const std::string &root, std::vector<int> allowed);

// The affinity mask of the calling thread, as a list of CPUs.
std::vector<int> allowed_cpus();

} // namespace fastrnn
