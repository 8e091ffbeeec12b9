// simd: vec, one SIMD register of float or double. The only file that depends on an instruction set.
//
// Everything above it is written once on these operations and compiled once per kernel set, each in a
// namespace of its own (FASTRNN_ISA), so that no code of a wider set can be picked up by a narrower one.
// Arithmetic and comparison are the compiler's vector extensions; what they lack stands here: explicit
// fma, ordered min / max, masked loads and stores, broadcast, 2^n and the transposition used in packing.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if !defined(FASTRNN_ISA)
#error "define FASTRNN_ISA as the name of the kernel set"
#endif

#if defined(FASTRNN_SET_AVX512)
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || !defined(__AVX512BW__)
#error "the avx512 kernel set is compiled without its flags"
#endif
#include <immintrin.h>
#define FASTRNN_VECTOR_BYTES 64
#define FASTRNN_REGISTERS 32
#elif defined(FASTRNN_SET_AVX2)
#if !defined(__AVX2__) || !defined(__FMA__)
#error "the avx2 kernel set is compiled without its flags"
#endif
#include <immintrin.h>
#define FASTRNN_VECTOR_BYTES 32
#define FASTRNN_REGISTERS 16
#elif defined(FASTRNN_SET_SSE2)
#include <emmintrin.h>
#define FASTRNN_VECTOR_BYTES 16
#define FASTRNN_REGISTERS 16
#elif defined(FASTRNN_SET_NEON)
#include <arm_neon.h>
#define FASTRNN_VECTOR_BYTES 16
#define FASTRNN_REGISTERS 32
#else
#error "unknown kernel set"
#endif

#define FASTRNN_INLINE inline __attribute__((always_inline))

namespace fastrnn {
namespace FASTRNN_ISA {

typedef float vfloat __attribute__((vector_size(FASTRNN_VECTOR_BYTES), may_alias));
typedef double vdouble __attribute__((vector_size(FASTRNN_VECTOR_BYTES), may_alias));
typedef int32_t vint32 __attribute__((vector_size(FASTRNN_VECTOR_BYTES), may_alias));
typedef int64_t vint64 __attribute__((vector_size(FASTRNN_VECTOR_BYTES), may_alias));

template <class T> struct vec_of;
template <> struct vec_of<float> {
  typedef vfloat type;
  typedef vint32 mask;
};
template <> struct vec_of<double> {
  typedef vdouble type;
  typedef vint64 mask;
};
template <class T> using vec = typename vec_of<T>::type;
template <class T> using vmask = typename vec_of<T>::mask;

#if defined(FASTRNN_SET_SSE2)
constexpr bool has_fma = false;
#else
constexpr bool has_fma = true;
#endif

// How many numbers one register holds.
template <class T> constexpr int lanes = FASTRNN_VECTOR_BYTES / int(sizeof(T));

// A loop over 0..N-1 whose index is a constant inside the body: accumulator arrays indexed by it stay in
// registers (with a plain loop GCC keeps them in memory around the k loop).
template <int I> struct index {
  static constexpr int value = I;
  constexpr operator int() const { return I; }
};
template <int N, int I = 0, class F> FASTRNN_INLINE void unroll(F &&body) {
  if constexpr (I < N) {
    body(index<I>{});
    unroll<N, I + 1>(body);
  }
}

#if defined(FASTRNN_SET_AVX512)

FASTRNN_INLINE vfloat load(const float *p) { return _mm512_loadu_ps(p); }
FASTRNN_INLINE vdouble load(const double *p) { return _mm512_loadu_pd(p); }
FASTRNN_INLINE void store(float *p, vfloat a) { _mm512_storeu_ps(p, a); }
FASTRNN_INLINE void store(double *p, vdouble a) { _mm512_storeu_pd(p, a); }
FASTRNN_INLINE __mmask16 first16(size_t n) { return n >= 16 ? 0xffff : __mmask16((1u << n) - 1u); }
FASTRNN_INLINE __mmask8 first8(size_t n) { return n >= 8 ? 0xff : __mmask8((1u << n) - 1u); }
FASTRNN_INLINE vfloat load_first(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first16(n), p); }
FASTRNN_INLINE vdouble load_first(const double *p, size_t n) { return _mm512_maskz_loadu_pd(first8(n), p); }
FASTRNN_INLINE void store_first(float *p, vfloat a, size_t n) { _mm512_mask_storeu_ps(p, first16(n), a); }
FASTRNN_INLINE void store_first(double *p, vdouble a, size_t n) { _mm512_mask_storeu_pd(p, first8(n), a); }
FASTRNN_INLINE vfloat broadcast(float a) { return _mm512_set1_ps(a); }
FASTRNN_INLINE vdouble broadcast(double a) { return _mm512_set1_pd(a); }
FASTRNN_INLINE vfloat fma(vfloat a, vfloat b, vfloat c) { return _mm512_fmadd_ps(a, b, c); }
FASTRNN_INLINE vdouble fma(vdouble a, vdouble b, vdouble c) { return _mm512_fmadd_pd(a, b, c); }
FASTRNN_INLINE vfloat fnma(vfloat a, vfloat b, vfloat c) { return _mm512_fnmadd_ps(a, b, c); }
FASTRNN_INLINE vdouble fnma(vdouble a, vdouble b, vdouble c) { return _mm512_fnmadd_pd(a, b, c); }
// min and max return the second operand where either is NaN.
FASTRNN_INLINE vfloat min(vfloat a, vfloat b) { return _mm512_min_ps(a, b); }
FASTRNN_INLINE vdouble min(vdouble a, vdouble b) { return _mm512_min_pd(a, b); }
FASTRNN_INLINE vfloat max(vfloat a, vfloat b) { return _mm512_max_ps(a, b); }
FASTRNN_INLINE vdouble max(vdouble a, vdouble b) { return _mm512_max_pd(a, b); }
FASTRNN_INLINE vfloat square_root(vfloat a) { return _mm512_sqrt_ps(a); }
FASTRNN_INLINE vdouble square_root(vdouble a) { return _mm512_sqrt_pd(a); }

#elif defined(FASTRNN_SET_AVX2)

alignas(32) static const int32_t first_lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
FASTRNN_INLINE __m256i first8(size_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(first_lanes + 8 - (n < 8 ? n : 8)));
}
FASTRNN_INLINE __m256i first4(size_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(first_lanes + 8 - 2 * (n < 4 ? n : 4)));
}
FASTRNN_INLINE vfloat load(const float *p) { return _mm256_loadu_ps(p); }
FASTRNN_INLINE vdouble load(const double *p) { return _mm256_loadu_pd(p); }
FASTRNN_INLINE void store(float *p, vfloat a) { _mm256_storeu_ps(p, a); }
FASTRNN_INLINE void store(double *p, vdouble a) { _mm256_storeu_pd(p, a); }
FASTRNN_INLINE vfloat load_first(const float *p, size_t n) { return _mm256_maskload_ps(p, first8(n)); }
FASTRNN_INLINE vdouble load_first(const double *p, size_t n) { return _mm256_maskload_pd(p, first4(n)); }
// AMD processors execute masked stores in microcode, so a full register is stored without a mask.
FASTRNN_INLINE void store_first(float *p, vfloat a, size_t n) {
  if (n >= 8) return store(p, a);
  _mm256_maskstore_ps(p, first8(n), a);
}
FASTRNN_INLINE void store_first(double *p, vdouble a, size_t n) {
  if (n >= 4) return store(p, a);
  _mm256_maskstore_pd(p, first4(n), a);
}
FASTRNN_INLINE vfloat broadcast(float a) { return _mm256_set1_ps(a); }
FASTRNN_INLINE vdouble broadcast(double a) { return _mm256_set1_pd(a); }
FASTRNN_INLINE vfloat fma(vfloat a, vfloat b, vfloat c) { return _mm256_fmadd_ps(a, b, c); }
FASTRNN_INLINE vdouble fma(vdouble a, vdouble b, vdouble c) { return _mm256_fmadd_pd(a, b, c); }
FASTRNN_INLINE vfloat fnma(vfloat a, vfloat b, vfloat c) { return _mm256_fnmadd_ps(a, b, c); }
FASTRNN_INLINE vdouble fnma(vdouble a, vdouble b, vdouble c) { return _mm256_fnmadd_pd(a, b, c); }
FASTRNN_INLINE vfloat min(vfloat a, vfloat b) { return _mm256_min_ps(a, b); }
FASTRNN_INLINE vdouble min(vdouble a, vdouble b) { return _mm256_min_pd(a, b); }
FASTRNN_INLINE vfloat max(vfloat a, vfloat b) { return _mm256_max_ps(a, b); }
FASTRNN_INLINE vdouble max(vdouble a, vdouble b) { return _mm256_max_pd(a, b); }
FASTRNN_INLINE vfloat square_root(vfloat a) { return _mm256_sqrt_ps(a); }
FASTRNN_INLINE vdouble square_root(vdouble a) { return _mm256_sqrt_pd(a); }

#else // 16-byte registers: sse2 and neon

template <class T> FASTRNN_INLINE vec<T> load_any(const T *p) {
  vec<T> a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
FASTRNN_INLINE vfloat load(const float *p) { return load_any(p); }
FASTRNN_INLINE vdouble load(const double *p) { return load_any(p); }
FASTRNN_INLINE void store(float *p, vfloat a) { __builtin_memcpy(p, &a, sizeof a); }
FASTRNN_INLINE void store(double *p, vdouble a) { __builtin_memcpy(p, &a, sizeof a); }
FASTRNN_INLINE vfloat load_first(const float *p, size_t n) {
  if (n >= 4) return load(p);
  vfloat a = {n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, 0.0f};
  return a;
}
FASTRNN_INLINE vdouble load_first(const double *p, size_t n) {
  if (n >= 2) return load(p);
  vdouble a = {n > 0 ? p[0] : 0.0, 0.0};
  return a;
}
FASTRNN_INLINE void store_first(float *p, vfloat a, size_t n) {
  if (n >= 4) return store(p, a);
  for (size_t i = 0; i < n; ++i) p[i] = a[i];
}
FASTRNN_INLINE void store_first(double *p, vdouble a, size_t n) {
  if (n >= 2) return store(p, a);
  for (size_t i = 0; i < n; ++i) p[i] = a[i];
}
FASTRNN_INLINE vfloat broadcast(float a) { return vfloat{a, a, a, a}; }
FASTRNN_INLINE vdouble broadcast(double a) { return vdouble{a, a}; }
#if defined(FASTRNN_SET_NEON)
FASTRNN_INLINE vfloat fma(vfloat a, vfloat b, vfloat c) { return (vfloat)vfmaq_f32(c, a, b); }
FASTRNN_INLINE vdouble fma(vdouble a, vdouble b, vdouble c) { return (vdouble)vfmaq_f64(c, a, b); }
FASTRNN_INLINE vfloat fnma(vfloat a, vfloat b, vfloat c) { return (vfloat)vfmsq_f32(c, a, b); }
FASTRNN_INLINE vdouble fnma(vdouble a, vdouble b, vdouble c) { return (vdouble)vfmsq_f64(c, a, b); }
FASTRNN_INLINE vfloat min(vfloat a, vfloat b) { return a < b ? a : b; }
FASTRNN_INLINE vdouble min(vdouble a, vdouble b) { return a < b ? a : b; }
FASTRNN_INLINE vfloat max(vfloat a, vfloat b) { return a > b ? a : b; }
FASTRNN_INLINE vdouble max(vdouble a, vdouble b) { return a > b ? a : b; }
FASTRNN_INLINE vfloat square_root(vfloat a) { return (vfloat)vsqrtq_f32((float32x4_t)a); }
FASTRNN_INLINE vdouble square_root(vdouble a) { return (vdouble)vsqrtq_f64((float64x2_t)a); }
#else // sse2 has no fma and rounds twice: the only reason why its bits differ from those of the other sets
FASTRNN_INLINE vfloat fma(vfloat a, vfloat b, vfloat c) { return a * b + c; }
FASTRNN_INLINE vdouble fma(vdouble a, vdouble b, vdouble c) { return a * b + c; }
FASTRNN_INLINE vfloat fnma(vfloat a, vfloat b, vfloat c) { return c - a * b; }
FASTRNN_INLINE vdouble fnma(vdouble a, vdouble b, vdouble c) { return c - a * b; }
FASTRNN_INLINE vfloat min(vfloat a, vfloat b) { return _mm_min_ps(a, b); }
FASTRNN_INLINE vdouble min(vdouble a, vdouble b) { return _mm_min_pd(a, b); }
FASTRNN_INLINE vfloat max(vfloat a, vfloat b) { return _mm_max_ps(a, b); }
FASTRNN_INLINE vdouble max(vdouble a, vdouble b) { return _mm_max_pd(a, b); }
FASTRNN_INLINE vfloat square_root(vfloat a) { return _mm_sqrt_ps(a); }
FASTRNN_INLINE vdouble square_root(vdouble a) { return _mm_sqrt_pd(a); }
#endif
#endif

// c += a b, for the accumulators of a tile. Assembly, where the set has fma: GCC reorders the intrinsics of an unrolled
// loop until sixteen registers no longer hold them, and then reads a weight from memory once for every fma.
#if defined(FASTRNN_SET_AVX512) || defined(FASTRNN_SET_AVX2)
FASTRNN_INLINE void accumulate(vfloat &c, vfloat a, vfloat b) {
  asm volatile("vfmadd231ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
}
FASTRNN_INLINE void accumulate(vdouble &c, vdouble a, vdouble b) {
  asm volatile("vfmadd231pd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
}
#else
FASTRNN_INLINE void accumulate(vfloat &c, vfloat a, vfloat b) { c = fma(a, b, c); }
FASTRNN_INLINE void accumulate(vdouble &c, vdouble a, vdouble b) { c = fma(a, b, c); }
#endif

// Prefetches n numbers into the first-level cache. No address is an error, so p may point beyond an array.
template <class T> FASTRNN_INLINE void prefetch(const T *p, size_t n) {
  for (size_t i = 0; i < n; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

// 2^n for a number t = n + round_shift<T> whose low bits hold n (see math.hpp)
FASTRNN_INLINE vfloat exponent_bits(vfloat t) { return (vfloat)((vint32)t << 23); }
FASTRNN_INLINE vdouble exponent_bits(vdouble t) { return (vdouble)((vint64)t << 52); }

// The sign alone (+0 or -0), the magnitude, and a magnitude with a sign put on it.
FASTRNN_INLINE vfloat sign_bits(vfloat a) { return (vfloat)((vint32)a & (vint32)broadcast(-0.0f)); }
FASTRNN_INLINE vdouble sign_bits(vdouble a) { return (vdouble)((vint64)a & (vint64)broadcast(-0.0)); }
FASTRNN_INLINE vfloat without_sign(vfloat a) { return (vfloat)((vint32)a & ~(vint32)broadcast(-0.0f)); }
FASTRNN_INLINE vdouble without_sign(vdouble a) { return (vdouble)((vint64)a & ~(vint64)broadcast(-0.0)); }
FASTRNN_INLINE vfloat give_sign(vfloat a, vfloat sign) { return (vfloat)((vint32)a | (vint32)sign); }
FASTRNN_INLINE vdouble give_sign(vdouble a, vdouble sign) { return (vdouble)((vint64)a | (vint64)sign); }

// 0 where a <= 0, else b (NaN is not <= 0)
FASTRNN_INLINE vfloat zero_unless_positive(vfloat a, vfloat b) { return a <= 0 ? vfloat{} : b; }
FASTRNN_INLINE vdouble zero_unless_positive(vdouble a, vdouble b) { return a <= 0 ? vdouble{} : b; }

// N registers that are computed side by side. A cell is a long chain of operations, each of which waits for the one
// before. N such chains in one stretch of code fill each other's waiting times; those of separate stretches lie too far
// apart for the processor to find them. A vec converts to vecs with N copies of it.
template <class T, int N> struct vecs {
  vec<T> at[N];
  vecs() = default;
  FASTRNN_INLINE vecs(const vec<T> &a) {
    unroll<N>([&](auto i) __attribute__((always_inline)) { at[i] = a; });
  }
  // f(i) for every i
  template <class F> static FASTRNN_INLINE vecs each(F &&f) {
    vecs r;
    unroll<N>([&](auto i) __attribute__((always_inline)) { r.at[i] = f(i); });
    return r;
  }
#define FASTRNN_OF_TWO(name, expression)                                                                               \
  friend FASTRNN_INLINE vecs name(const vecs &a, const vecs &b) {                                                      \
    return each([&](auto i) __attribute__((always_inline)) { return expression; });                                    \
  }
#define FASTRNN_OF_THREE(name)                                                                                         \
  friend FASTRNN_INLINE vecs name(const vecs &a, const vecs &b, const vecs &c) {                                       \
    return each([&](auto i) __attribute__((always_inline)) { return FASTRNN_ISA::name(a.at[i], b.at[i], c.at[i]); });  \
  }
#define FASTRNN_OF_ONE(name)                                                                                           \
  friend FASTRNN_INLINE vecs name(const vecs &a) {                                                                     \
    return each([&](auto i) __attribute__((always_inline)) { return FASTRNN_ISA::name(a.at[i]); });                    \
  }
  FASTRNN_OF_TWO(operator+, a.at[i] + b.at[i])
  FASTRNN_OF_TWO(operator-, a.at[i] - b.at[i])
  FASTRNN_OF_TWO(operator*, a.at[i] * b.at[i])
  FASTRNN_OF_TWO(operator/, a.at[i] / b.at[i])
  FASTRNN_OF_TWO(min, FASTRNN_ISA::min(a.at[i], b.at[i]))
  FASTRNN_OF_TWO(max, FASTRNN_ISA::max(a.at[i], b.at[i]))
  FASTRNN_OF_TWO(give_sign, FASTRNN_ISA::give_sign(a.at[i], b.at[i]))
  FASTRNN_OF_TWO(zero_unless_positive, FASTRNN_ISA::zero_unless_positive(a.at[i], b.at[i]))
  FASTRNN_OF_THREE(fma)
  FASTRNN_OF_THREE(fnma)
  FASTRNN_OF_ONE(exponent_bits)
  FASTRNN_OF_ONE(sign_bits)
  FASTRNN_OF_ONE(without_sign)
#undef FASTRNN_OF_ONE
#undef FASTRNN_OF_TWO
#undef FASTRNN_OF_THREE
};

#if defined(__clang__)
#define FASTRNN_SHUFFLE2(a, b, m) shuffle_lanes(a, b, m)
template <class V, class M> FASTRNN_INLINE V shuffle_lanes(V a, V b, M m) {
  constexpr int n = int(sizeof(V) / sizeof(a[0]));
  V r = a;
  for (int i = 0; i < n; ++i) r[i] = m[i] < n ? a[m[i]] : b[m[i] - n];
  return r;
}
#else
#define FASTRNN_SHUFFLE2(a, b, m) __builtin_shuffle(a, b, m)
#endif

// Transposes the square of lanes<T> registers in place: log2(lanes) rounds, each swapping the off-diagonal
// blocks of one size (Eklundh 1972).
template <class T> FASTRNN_INLINE void transpose(vec<T> (&row)[lanes<T>]) {
  constexpr int n = lanes<T>;
  // Four floats fill 128 bits: squares of four are transposed by interleaving, one instruction for each register and
  // round.
  constexpr bool interleaves = sizeof(T) == 4;
  if constexpr (interleaves) {
    vmask<T> first, second, low, high; // halves interleaved, halves of two put together
    for (int lane = 0; lane < n; ++lane) {
      const int quad = lane / 4 * 4, i = lane % 4;
      first[lane] = quad + i / 2 + (i % 2) * n;
      second[lane] = first[lane] + 2;
      low[lane] = quad + i % 2 + (i / 2) * n;
      high[lane] = low[lane] + 2;
    }
    unroll<n / 4>([&](auto quad) __attribute__((always_inline)) {
      vec<T> *const r = row + quad * 4;
      const vec<T> a = FASTRNN_SHUFFLE2(r[0], r[1], first), b = FASTRNN_SHUFFLE2(r[2], r[3], first);
      const vec<T> c = FASTRNN_SHUFFLE2(r[0], r[1], second), d = FASTRNN_SHUFFLE2(r[2], r[3], second);
      r[0] = FASTRNN_SHUFFLE2(a, b, low);
      r[1] = FASTRNN_SHUFFLE2(a, b, high);
      r[2] = FASTRNN_SHUFFLE2(c, d, low);
      r[3] = FASTRNN_SHUFFLE2(c, d, high);
    });
  }
  unroll<4>([&](auto stage) __attribute__((always_inline)) {
    constexpr int block = 1 << decltype(stage)::value;
    if constexpr (block < n && block >= (interleaves ? 4 : 1)) {
      vmask<T> low, high;
      for (int lane = 0; lane < n; ++lane) {
        low[lane] = (lane & block) ? n + lane - block : lane;
        high[lane] = (lane & block) ? n + lane : lane + block;
      }
      unroll<n>([&](auto i) __attribute__((always_inline)) {
        constexpr int upper = decltype(i)::value;
        if constexpr ((upper & block) == 0) {
          const vec<T> a = row[upper], b = row[upper + block];
          row[upper] = FASTRNN_SHUFFLE2(a, b, low);
          row[upper + block] = FASTRNN_SHUFFLE2(a, b, high);
        }
      });
    }
  });
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
