// float_mode: the control register of floating-point arithmetic, of the calling thread.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fastrnn {

#if defined(__x86_64__) || defined(_M_X64)
typedef unsigned FloatMode;
inline FloatMode float_mode() { return _mm_getcsr(); }
inline void set_float_mode(FloatMode mode) { _mm_setcsr(mode); }
// FTZ, DAZ, exceptions masked, round to nearest
inline FloatMode flushing(FloatMode mode) { return (mode | 0x9fc0u) & ~0x6000u; }
#elif defined(__aarch64__)
typedef uint64_t FloatMode;
inline FloatMode float_mode() {
  FloatMode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
inline FloatMode flushing(FloatMode mode) { return (mode | (1u << 24)) & ~(3ull << 22); }
#endif

// A mode while it lives; what was there before comes back after.
class WithFloatMode {
public:
  explicit WithFloatMode(FloatMode mode) : before_(float_mode()) { set_float_mode(mode); }
  ~WithFloatMode() { set_float_mode(before_); }
  WithFloatMode(const WithFloatMode &) = delete;
  WithFloatMode &operator=(const WithFloatMode &) = delete;

private:
  const FloatMode before_;
};
// Subnormals are flushed to zero.
struct FlushSubnormals : WithFloatMode {
  FlushSubnormals() : WithFloatMode(flushing(float_mode())) {}
};

} // namespace fastrnn
