// math: tanh and sigmoid of registers.
//
// Both rest on one decomposition, x = n ln2 / 2 + v with |v| <= ln2 / 4. With S = 2^-n, tanh(n ln2 / 2) is
// (1 - S) / (1 + S), and tanh v is v / A, where A = v coth v is even and next to 1: a polynomial in v^2
// (coefficients.py prints it and its error). The addition theorem makes of them
//   tanh x = ((1 - S) A + (1 + S) v) / ((1 + S) A + (1 - S) v),   e^(-2x) = S (A - v) / (A + v).
// They have one division, no cancellation near 0 (S is 1 there), and a shorter chain of dependent operations than an
// exponential followed by a division.
//
// NaN passes through, since min and max return their second operand where one is NaN. Results below the smallest normal
// number are zero, because calls run with flush-to-zero. V is one register or several (vec, vecs), T its number type.
#pragma once

#include "kernels/simd.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

template <class T> struct math_table;
template <> struct math_table<float> {
  static constexpr float log2e = 1.44269504088896341f;
  // ln2 in two parts. n times the first one must be exact. It is with fma; without, the first part has 15 bits only.
  static constexpr float ln2_high = has_fma ? 0.693147182464599609f : 0.693145751953125f;
  static constexpr float ln2_low = has_fma ? -1.90465429995776804e-9f : 1.42860681949540318e-6f;
  // 1.5 * 2^23 rounds to an integer; + 127 leaves n in the low bits with the bias of the exponent
  static constexpr float round_shift = 12582912.0f + 127.0f;
  static constexpr int terms = 2; // A = 1 + a[0] v^2 + a[1] v^4 ...
  static constexpr float a[terms] = {0.333332515188f, -0.0221340235038f};
  static constexpr float saturated = 9.02f; // tanh rounds to 1 from there on
  // the range of sigmoid's argument: 2^-n is a normal number, and three times it does not overflow
  static constexpr float lowest = -87.6f, highest = 87.0f;
};
template <> struct math_table<double> {
  static constexpr double log2e = 1.4426950408889634074;
  static constexpr double ln2_high = has_fma ? 0x1.62e42fefa39efp-1 : 0x1.62e42fefa3800p-1;
  static constexpr double ln2_low = has_fma ? 0x1.abc9e3b39803fp-56 : 0x1.ef35793c76730p-45;
  static constexpr double round_shift = 6755399441055744.0 + 1023.0;
  static constexpr int terms = 5;
  static constexpr double a[terms] = {0x1.555555555553ep-2, -0x1.6c16c16bebca6p-6, 0x1.1566aaf2286fbp-9,
                                      -0x1.bbd41bbb29034p-13, 0x1.637642fb45f6fp-16};
  static constexpr double saturated = 19.1;
  static constexpr double lowest = -708.7, highest = 708.0;
};

template <class T> FASTRNN_INLINE vec<T> constant(double a) { return broadcast(T(a)); }

// P = (A - 1) / v^2, a polynomial in `square` = v^2. doubled: square is (2 v)^2 and the result P / 2, so that
// 2 + square * result = 2 A; both factors are absorbed by the coefficients.
template <class T, bool doubled, int I = 0, class V> FASTRNN_INLINE V even_part(const V &square) {
  typedef math_table<T> table;
  constexpr T scale = doubled ? T(0.5) / T(1 << 2 * I) : T(1);
  const V term = broadcast(table::a[I] * scale);
  if constexpr (I + 1 == table::terms)
    return term;
  else
    return fma(square, even_part<T, doubled, I + 1>(square), term);
}

// At most 2 ULP, exactly odd, never above 1.
template <class T, class V> FASTRNN_INLINE V tanh(const V &x) {
  typedef math_table<T> table;
  const V one = constant<T>(1), shift = broadcast(table::round_shift);
  const V magnitude = min(broadcast(table::saturated), without_sign(x));
  const V t = fma(magnitude, broadcast(-2 * table::log2e), shift), n = t - shift;
  const V near = fma(n, broadcast(table::ln2_high / 2), magnitude);
  const V v = has_fma ? near : fma(n, broadcast(table::ln2_low / 2), near); // where n is large, tanh is almost 1
  const V S = exponent_bits(t), minus = one - S, plus = one + S;
  const V square = v * v, p = even_part<T, false>(square);
  if constexpr (has_fma) {
    const V A = fma(square, p, one);
    return give_sign(fma(minus, A, plus * v), sign_bits(x)) / fma(plus, A, minus * v);
  } else { // the same with the large terms added last, so that they are rounded once
    const V Sv = S * v, rest = square * p;
    const V numerator = minus + (v + (Sv + minus * rest)), denominator = plus + (v - (Sv - plus * rest));
    return give_sign(min(one, numerator / denominator), sign_bits(x));
  }
}

// 1 / (1 + e^-x), at most 2 ULP.
template <class T, class V> FASTRNN_INLINE V sigmoid(const V &x) {
  typedef math_table<T> table;
  const V shift = broadcast(table::round_shift);
  const V limited = max(broadcast(table::lowest), min(broadcast(table::highest), x));
  const V t = fma(limited, broadcast(-table::log2e), shift), n = t - shift;
  const V near = fma(n, broadcast(table::ln2_high), limited), v2 = fma(n, broadcast(table::ln2_low), near); // 2 v
  // In float with fma, the second part of ln2 is too small to change A, so A does not wait for it.
  const V square = has_fma && sizeof(T) == 4 ? near * near : v2 * v2;
  const V A2 = fma(square, even_part<T, true>(square), constant<T>(2)), numerator = A2 + v2;
  return numerator / fma(exponent_bits(t), A2 - v2, numerator);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
