// simd_int8: sums of products of bytes in registers. With simd.hpp the only file that depends on an instruction set.
//
// A word is four bytes, and a register has as many words as it has floats. A dot product adds to each word of a sum the
// four products of the bytes of one word of weights and of one word of the left vector, which all lanes share. Bytes
// lie in [-127, 127], so no product of any of the sets can overflow. Each way of doing this has
//   sum            one or two registers of 32-bit sums
//   left           a word of the left vector, ready to be multiplied
//   unsigned_left  the left vector's bytes have 128 added, which `total` takes back by the rows' offsets
//   registers      how many sums a tile may hold in registers
#pragma once

#include "kernels/simd.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

FASTRNN_INLINE vint32 load_words(const uint32_t *p) {
  vint32 a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
FASTRNN_INLINE int32_t word_at(const uint8_t *p) {
  int32_t a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
FASTRNN_INLINE vint32 all_words(int32_t a) { return vint32{} + a; }
// a + b modulo 2^32
typedef uint32_t vuint32 __attribute__((vector_size(FASTRNN_VECTOR_BYTES), may_alias));
FASTRNN_INLINE vint32 add_words(vint32 a, vint32 b) { return (vint32)((vuint32)a + (vuint32)b); }

#if defined(FASTRNN_SET_AVX512)

// vpdpbusd. It stands as assembly so that this file needs no flags of an extension that not every CPU of the set has:
// dispatch.cpp asks the CPU.
#define FASTRNN_HAS_DOT_INSTRUCTION
struct DotInstruction {
  typedef vint32 sum;
  typedef vint32 left;
  static constexpr bool unsigned_left = true;
  static constexpr int registers = 24, chains = 8;
  static FASTRNN_INLINE left broadcast(const uint8_t *p) { return all_words(word_at(p)); }
  static FASTRNN_INLINE void add(sum &s, const left &x, vint32 w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(x), "v"(w));
  }
  static FASTRNN_INLINE vint32 total(sum s) { return s; }
};

// Products of 16 bits, added in twos: |x| times w with the sign of x.
struct DotProducts {
  typedef vint32 sum;
  struct left {
    __m512i magnitude;
    __mmask64 negative;
  };
  static constexpr bool unsigned_left = false;
  static constexpr int registers = 16, chains = 4;
  static FASTRNN_INLINE left broadcast(const uint8_t *p) {
    const __m512i x = _mm512_set1_epi32(word_at(p));
    return {_mm512_abs_epi8(x), _mm512_movepi8_mask(x)};
  }
  static FASTRNN_INLINE void add(sum &s, const left &x, vint32 w) {
    const __m512i v = (__m512i)w;
    const __m512i pairs =
        _mm512_maddubs_epi16(x.magnitude, _mm512_mask_sub_epi8(v, x.negative, _mm512_setzero_si512(), v));
    s = s + (vint32)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  }
  static FASTRNN_INLINE vint32 total(sum s) { return s; }
};

#elif defined(FASTRNN_SET_AVX2)

struct DotProducts {
  typedef vint32 sum;
  typedef __m256i left;
  static constexpr bool unsigned_left = false;
  static constexpr int registers = 8, chains = 4;
  static FASTRNN_INLINE left broadcast(const uint8_t *p) { return _mm256_set1_epi32(word_at(p)); }
  static FASTRNN_INLINE void add(sum &s, const left &x, vint32 w) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8((__m256i)w, x));
    s = s + (vint32)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  static FASTRNN_INLINE vint32 total(sum s) { return s; }
};

#elif defined(FASTRNN_SET_SSE2)

// Bytes are widened to 16 bits. Each word then has two partial sums side by side, which `total` adds.
struct DotProducts {
  struct sum {
    __m128i low, high;
  };
  typedef __m128i left; // the word's four bytes as 16 bits, twice
  static constexpr bool unsigned_left = false;
  static constexpr int registers = 4, chains = 2;
  static FASTRNN_INLINE left broadcast(const uint8_t *p) {
    const __m128i x = _mm_set1_epi32(word_at(p));
    return _mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8);
  }
  static FASTRNN_INLINE void add(sum &s, left x, vint32 w) {
    const __m128i v = (__m128i)w;
    s.low = _mm_add_epi32(s.low, _mm_madd_epi16(_mm_srai_epi16(_mm_unpacklo_epi8(v, v), 8), x));
    s.high = _mm_add_epi32(s.high, _mm_madd_epi16(_mm_srai_epi16(_mm_unpackhi_epi8(v, v), 8), x));
  }
  static FASTRNN_INLINE vint32 total(const sum &s) {
    const __m128 low = _mm_castsi128_ps(s.low), high = _mm_castsi128_ps(s.high);
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0)));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1)));
    return (vint32)_mm_add_epi32(even, odd);
  }
};

#else // NEON

struct DotProducts {
  struct sum {
    int32x4_t low, high;
  };
  typedef int8x8_t left; // the word, twice
  static constexpr bool unsigned_left = false;
  static constexpr int registers = 8, chains = 2;
  static FASTRNN_INLINE left broadcast(const uint8_t *p) { return vreinterpret_s8_s32(vdup_n_s32(word_at(p))); }
  static FASTRNN_INLINE void add(sum &s, left x, vint32 w) {
    const int8x16_t v = (int8x16_t)w;
    s.low = vpadalq_s16(s.low, vmull_s8(vget_low_s8(v), x));
    s.high = vpadalq_s16(s.high, vmull_s8(vget_high_s8(v), x));
  }
  static FASTRNN_INLINE vint32 total(const sum &s) { return (vint32)vpaddq_s32(s.low, s.high); }
};

#endif

} // namespace FASTRNN_ISA
} // namespace fastrnn
