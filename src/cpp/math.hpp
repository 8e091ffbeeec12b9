// math: exp, tanh and sigmoid on vecs.
//
// All rest on one decomposition, x = n ln2 + r with |r| <= ln2 / 2: e^x = 2^n (1 + p), p = e^r - 1 from a
// polynomial (coefficients.py prints it and its error). From it expm1 keeps full relative accuracy near 0.
// NaN passes through (min and max give back their second operand when unordered). Results below the
// smallest normal number count as zero: calls run with flush-to-zero.
#pragma once

#include "simd.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

template <class T> struct exp_table;
template <> struct exp_table<float> {
  static constexpr float log2e = 1.44269504088896341f;
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860677e-06f; // high part: 15 bits
  // 1.5 * 2^23 rounds to an integer; + 127 leaves n in the low bits with the bias of the exponent
  static constexpr float round_shift = 12582912.0f + 127.0f;
  static constexpr int terms = 6;
  static constexpr float q[terms] = {0.500000001347f,   0.166666667565f,   0.0416664648988f,
                                     0.00833328600346f, 0.00139336522017f, 0.000199075869426f};
  // arguments of exp: 2^n stays a normal number
  static constexpr float lowest = -87.0f, highest = 88.0f;
  // sigmoid whose denominator is multiplied by that of a tanh, which is at most 2 (cells.hpp): one over the
  // product must be a normal number, or the flush to zero would take the tanh along
  static constexpr float gate_limit = 86.5f;
};
template <> struct exp_table<double> {
  static constexpr double log2e = 1.4426950408889634074;
  static constexpr double ln2_high = 0x1.62e42fefa3800p-1, ln2_low = 0x1.ef35793c76730p-45;
  static constexpr double round_shift = 6755399441055744.0 + 1023.0;
  static constexpr int terms = 11;
  static constexpr double q[terms] = {0x1.0000000000000p-1,  0x1.5555555555557p-3,  0x1.5555555555558p-5,
                                      0x1.11111111100dbp-7,  0x1.6c16c16c151fep-10, 0x1.a01a01abe81f3p-13,
                                      0x1.a01a01acfa331p-16, 0x1.71de02313a8fbp-19, 0x1.27e4cccf934c5p-22,
                                      0x1.af4dea252ec7ep-26, 0x1.1f8b495863f16p-29};
  static constexpr double lowest = -708.0, highest = 709.0;
  static constexpr double gate_limit = 707.5;
};

template <class T> FASTRNN_INLINE vec<T> constant(double a) { return broadcast(T(a)); }

// e^x = scale (1 + p), for x in [lowest, highest]. near_zero: for functions that need no accuracy where n is
// large (tanh is 1 there), in float: one term of n ln2 is enough.
template <class T, bool near_zero = false> struct exp_parts {
  vec<T> scale, p;
  FASTRNN_INLINE explicit exp_parts(vec<T> x) {
    using table = exp_table<T>;
    const vec<T> shift = broadcast(table::round_shift);
    const vec<T> t = fma(x, broadcast(table::log2e), shift);
    const vec<T> n = t - shift;
    vec<T> r;
    if constexpr (near_zero && sizeof(T) == 4) {
      r = fnma(n, constant<T>(0.69314718055994531), x);
    } else {
      r = fnma(n, broadcast(table::ln2_high), x);
      r = fnma(n, broadcast(table::ln2_low), r);
    }
    // neighbouring terms in pairs, then Horner in r^2: as many operations as Horner in r, half the latency
    const vec<T> square = r * r;
    constexpr int pairs = (table::terms + 1) / 2;
    vec<T> q = pair<pairs - 1>(r);
    unroll<pairs - 1>(
        [&](auto i) __attribute__((always_inline)) { q = fma(q, square, pair<pairs - 2 - decltype(i)::value>(r)); });
    p = fma(square, q, r);
    scale = exponent_bits(t);
  }
  FASTRNN_INLINE vec<T> expm1() const { return fma(scale, p, scale - constant<T>(1)); }
  FASTRNN_INLINE vec<T> one_plus_exp() const { return fma(scale, p, scale + constant<T>(1)); }

private:
  template <int I> static FASTRNN_INLINE vec<T> pair(vec<T> r) {
    const vec<T> low = broadcast(exp_table<T>::q[2 * I]);
    if constexpr (2 * I + 1 < exp_table<T>::terms)
      return fma(broadcast(exp_table<T>::q[2 * I + 1]), r, low);
    else
      return low;
  }
};

template <class T> FASTRNN_INLINE vec<T> clamp(vec<T> x, T low, T high) {
  return max(broadcast(low), min(broadcast(high), x));
}

// tanh(x) = numerator / denominator = sign(x) (1 - e^(-2|x|)) / (1 + e^(-2|x|)): exactly odd, and as the
// exponential is at most 1 nothing can overflow or pass 1. tanh: at most 2 ULP.
template <class T> struct tanh_parts {
  vec<T> numerator, denominator;
  FASTRNN_INLINE explicit tanh_parts(vec<T> x) {
    const vec<T> sign = sign_bits(x), magnitude = without_sign(x);
    const exp_parts<T, true> e(max(broadcast(exp_table<T>::lowest), constant<T>(-2) * magnitude));
    numerator = with_sign(e.expm1(), sign);
    denominator = e.one_plus_exp(); // not expm1 + 2: that would amplify the rounding of the numerator
  }
};
template <class T> FASTRNN_INLINE vec<T> tanh(vec<T> x) {
  const tanh_parts<T> parts(x);
  return parts.numerator / parts.denominator;
}

// sigmoid(x) = 1 / (1 + e^-x); the denominator, with the argument limited so that it (and, for gates, its
// product with another denominator) stays finite. sigmoid: at most 2 ULP.
template <class T> FASTRNN_INLINE vec<T> sigmoid_denominator(vec<T> x, T limit) {
  return exp_parts<T>(clamp<T>(-x, exp_table<T>::lowest, limit)).one_plus_exp();
}
template <class T> FASTRNN_INLINE vec<T> gate_denominator(vec<T> x) {
  return sigmoid_denominator<T>(x, exp_table<T>::gate_limit);
}
template <class T> FASTRNN_INLINE vec<T> sigmoid(vec<T> x) {
  return constant<T>(1) / sigmoid_denominator<T>(x, exp_table<T>::highest);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
