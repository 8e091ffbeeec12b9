// dispatch: the kernel set of this process, picked once.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace fastrnn {

// Names of the sets that were compiled in and that this CPU can run, best first.
std::vector<std::string> available_kernel_sets();

// The set in use: FASTRNN_ISA where it is set (unknown or unsupported: std::runtime_error), else the best.
const KernelSet &kernels();

struct Caches {
  size_t l1, l2, l3; // data caches, bytes
};
const Caches &caches();

} // namespace fastrnn
