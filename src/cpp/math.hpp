// math: exp, tanh and sigmoid on vecs.
//
// All rest on one decomposition, x = n ln2 + r with |r| <= ln2 / 2: e^x = 2^n (1 + p), p = e^r - 1 from a
// polynomial (coefficients.py prints it and its error). From it 1 - e^x keeps full relative accuracy near 0.
// NaN passes through (min and max give back their second operand when unordered). Results below the
// smallest normal number count as zero: calls run with flush-to-zero.
// V is one vec or several side by side (vecs of simd.hpp), T its number type.
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
  static constexpr int terms = 5;
  static constexpr float q[terms] = {0.500000002695f, 0.1666657697f, 0.0416663751327f, 0.00836318123465f,
                                     0.00139411241068f};
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
  static constexpr int terms = 10;
  static constexpr double q[terms] = {0x1.0000000000001p-1,  0x1.5555555555558p-3,  0x1.5555555553d62p-5,
                                      0x1.111111110f803p-7,  0x1.6c16c1788c0a5p-10, 0x1.a01a01b00c774p-13,
                                      0x1.a019b90c86cd7p-16, 0x1.71ddf6b3236dap-19, 0x1.2891860c00330p-22,
                                      0x1.af632c4f54319p-26};
  static constexpr double lowest = -708.0, highest = 709.0;
  static constexpr double gate_limit = 707.5;
};

template <class T> FASTRNN_INLINE vec<T> constant(double a) { return broadcast(T(a)); }

// e^-x = scale (1 + p), for -x in [lowest, highest]. The sign costs nothing: it goes into the constants, u = -r takes
// the place of r. near_zero: for functions that need no accuracy where n is large (tanh is 1 there), in float: one term
// of n ln2 is enough.
template <class T, class V, bool near_zero = false> struct exp_parts {
  V scale, p;
  FASTRNN_INLINE explicit exp_parts(const V &x) {
    using table = exp_table<T>;
    const vec<T> shift = broadcast(table::round_shift);
    const V t = fma(x, broadcast(-table::log2e), shift);
    const V n = t - shift;
    V u;
    if constexpr (near_zero && sizeof(T) == 4) {
      u = fma(n, constant<T>(0.69314718055994531), x);
    } else {
      u = fma(n, broadcast(table::ln2_high), x);
      u = fma(n, broadcast(table::ln2_low), u);
    }
    // neighbouring terms in pairs, then Horner in u^2: as many operations as Horner in u, half the latency
    const V square = u * u;
    constexpr int pairs = (table::terms + 1) / 2;
    V q = pair<pairs - 1>(u);
    unroll<pairs - 1>(
        [&](auto i) __attribute__((always_inline)) { q = fma(q, square, pair<pairs - 2 - decltype(i)::value>(u)); });
    p = fms(square, q, u);
    scale = exponent_bits(t);
  }
  FASTRNN_INLINE V one_plus_exp() const { return fma(scale, p, scale + constant<T>(1)); }
  FASTRNN_INLINE V one_minus_exp() const { return fnma(scale, p, constant<T>(1) - scale); }

private:
  template <int I> static FASTRNN_INLINE V pair(const V &u) {
    const vec<T> low = broadcast(exp_table<T>::q[2 * I]);
    if constexpr (2 * I + 1 < exp_table<T>::terms)
      return fnma(u, broadcast(exp_table<T>::q[2 * I + 1]), low);
    else
      return low;
  }
};

// tanh(x) = numerator / denominator = sign(x) (1 - e^(-2|x|)) / (1 + e^(-2|x|)): exactly odd, and as the
// exponential is at most 1 nothing can overflow or pass 1. tanh: at most 2 ULP.
template <class T, class V> struct tanh_parts {
  V numerator, denominator;
  FASTRNN_INLINE explicit tanh_parts(const V &x) {
    const V magnitude = without_sign(x);
    const exp_parts<T, V, true> e(min(broadcast(-exp_table<T>::lowest), magnitude + magnitude));
    numerator = give_sign(e.one_minus_exp(), sign_bits(x));
    denominator = e.one_plus_exp(); // not 2 - numerator: that would amplify its rounding
  }
};
template <class T, class V> FASTRNN_INLINE V tanh(const V &x) {
  const tanh_parts<T, V> parts(x);
  return parts.numerator / parts.denominator;
}

// sigmoid(x) = 1 / (1 + e^-x); the denominator, with the argument limited so that it (and, for gates, its
// product with another denominator) stays finite. sigmoid: at most 2 ULP.
template <class T, class V> FASTRNN_INLINE V sigmoid_denominator(const V &x, T limit) {
  const V limited = max(broadcast(-limit), min(broadcast(-exp_table<T>::lowest), x));
  return exp_parts<T, V>(limited).one_plus_exp();
}
template <class T, class V> FASTRNN_INLINE V gate_denominator(const V &x) {
  return sigmoid_denominator<T>(x, exp_table<T>::gate_limit);
}
template <class T, class V> FASTRNN_INLINE V sigmoid(const V &x) {
  return constant<T>(1) / sigmoid_denominator<T>(x, exp_table<T>::highest);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
