// dispatch: the kernel set of this process, picked once.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/low_precision.hpp"

namespace fastrnn {

struct KernelSet {
  const char *name;
  Kernels<float> f32;
  Kernels<double> f64;
  LowKernels int8, bfloat16;
  template <class T> const Kernels<T> &of() const;
  const LowKernels *low(WeightsType) const; // null for float32
};
template <> inline const Kernels<float> &KernelSet::of<float>() const { return f32; }
template <> inline const Kernels<double> &KernelSet::of<double>() const { return f64; }
inline const LowKernels *KernelSet::low(WeightsType type) const {
  return type == WeightsType::int8 ? &int8 : type == WeightsType::bfloat16 ? &bfloat16 : nullptr;
}

// Names of the sets that were compiled in and that this CPU can run, best first.
std::vector<std::string> available_kernel_sets();

// The set in use: FASTRNN_ISA where it is set (unknown or unsupported: std::runtime_error), else the best.
const KernelSet &kernels();

struct Caches {
  size_t l1, l2, l3; // data caches, bytes
};
const Caches &caches();

} // namespace fastrnn
