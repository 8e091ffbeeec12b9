#include "kernels/dispatch.hpp"

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

namespace fastrnn {

// Defined by kernels.cpp, for each set and number type, and by low_precision.cpp, for each set.
#define FASTRNN_DECLARE(set)                                                                                           \
  namespace set {                                                                                                      \
  template <class T> Kernels<T> kernels_of();                                                                          \
  LowKernels int8_kernels(bool dot_instruction);                                                                       \
  LowKernels bfloat16_kernels();                                                                                       \
  }
FASTRNN_DECLARE(avx512)
FASTRNN_DECLARE(avx2)
FASTRNN_DECLARE(sse2)
FASTRNN_DECLARE(neon)

namespace {

struct Entry {
  const char *name;
  bool (*runs_here)();
  KernelSet (*get)();
};

#if defined(FASTRNN_HAS_AVX512)
// FASTRNN_VNNI=0 leaves the instruction out, as on a CPU with AVX-512 that lacks it: for tests.
bool has_dot_instruction() {
  const char *wanted = std::getenv("FASTRNN_VNNI");
  return __builtin_cpu_supports("avx512vnni") && !(wanted && std::string(wanted) == "0");
}
#endif

#define FASTRNN_SET(set, dot_instruction)                                                                              \
  [] {                                                                                                                 \
    return KernelSet{#set, set::kernels_of<float>(), set::kernels_of<double>(), set::int8_kernels(dot_instruction),    \
                     set::bfloat16_kernels()};                                                                         \
  }

// The sets that were compiled in, best first.
const Entry entries[] = {
#if defined(FASTRNN_HAS_AVX512)
    {"avx512",
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
     },
     FASTRNN_SET(avx512, has_dot_instruction())},
#endif
#if defined(FASTRNN_HAS_AVX2)
    {"avx2", [] { return bool(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")); },
     FASTRNN_SET(avx2, false)},
#endif
#if defined(FASTRNN_HAS_SSE2)
    {"sse2", [] { return bool(__builtin_cpu_supports("sse2")); }, FASTRNN_SET(sse2, false)},
#endif
#if defined(FASTRNN_HAS_NEON)
    {"neon", [] { return true; }, FASTRNN_SET(neon, false)},
#endif
};

void ask_cpu() {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
}

std::string join(const std::vector<std::string> &names) {
  std::string text;
  for (const auto &name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

KernelSet pick() {
  ask_cpu();
  const char *forced = std::getenv("FASTRNN_ISA");
  if (forced && !*forced) forced = nullptr;
  for (const Entry &entry : entries) {
    if (forced && std::string(forced) != entry.name) continue;
    if (entry.runs_here()) return entry.get();
    if (forced)
      throw std::runtime_error("FASTRNN_ISA: this CPU cannot run the kernel set '" + std::string(forced) +
                               "'; it can run " + join(available_kernel_sets()));
  }
  std::vector<std::string> known;
  for (const Entry &entry : entries) known.push_back(entry.name);
  if (forced)
    throw std::runtime_error("FASTRNN_ISA: expected one of " + join(known) + ", got '" + std::string(forced) + "'");
  throw std::runtime_error("fastrnn: no kernel set runs on this CPU; compiled in: " + join(known));
}

// The size in bytes of the data cache of one level, from /sys; 0 where there is no such file. (For the last level,
// sysconf() returns the sum over all sockets.)
size_t cache_size(int level) {
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::ifstream level_file(folder + "level"), type_file(folder + "type"), size_file(folder + "size");
    int found = 0;
    std::string type;
    size_t size = 0;
    char unit = 0;
    if (!(level_file >> found) || !(type_file >> type) || !(size_file >> size)) continue;
    if (found != level || type == "Instruction") continue;
    if (size_file >> unit) size <<= unit == 'M' ? 20 : unit == 'K' ? 10 : 0;
    return size;
  }
  return 0;
}
size_t first_known(size_t a, size_t b) { return a ? a : b; }

} // namespace

std::vector<std::string> available_kernel_sets() {
  ask_cpu();
  std::vector<std::string> names;
  for (const Entry &entry : entries)
    if (entry.runs_here()) names.push_back(entry.name);
  return names;
}

const KernelSet &kernels() {
  static const KernelSet set = pick();
  return set;
}

const Caches &caches() {
  static const Caches sizes = {first_known(cache_size(1), 32 << 10), first_known(cache_size(2), 1 << 20),
                               first_known(cache_size(3), 8 << 20)};
  return sizes;
}

} // namespace fastrnn
