// activations: what the gates, candidates and outputs of general cells may apply, with their slopes (derivatives).
//
//   sigmoid      1 / (1 + e^-a)                     y (1 - y)
//   tanh         tanh a                             1 - y^2
//   relu         max(0, a)                          1 where a > 0
//   linear       a                                  1
//   affine       alpha a + beta                     alpha
//   leaky_relu   a, or alpha a where a < 0          1 or alpha
//   thresholded_relu  a where a >= alpha, else 0    1 or 0
//   scaled_tanh  alpha tanh(beta a)                 alpha beta (1 - tanh(beta a)^2)
//   hard_sigmoid alpha a + beta, from 0 to 1        alpha inside
//   elu          a, or alpha (e^a - 1) where a < 0  1 or alpha e^a
//   softsign     a / (1 + |a|)                      1 / (1 + |a|)^2
//   softplus     log(1 + e^a)                       1 / (1 + e^-a)
//
// NaN stays NaN. reference/activations.py has the same in NumPy.
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/math.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// log(1 + u) for u from 0 to 1: 2 atanh(w) with w = u / (2 + u), at most 1/3, as a series in w^2.
template <class T> FASTRNN_INLINE vec<T> log_of_one_plus(vec<T> u) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 18;
  const vec<T> w = u / (constant<T>(2) + u), square = w * w;
  vec<T> sum = constant<T>(1.0 / (2 * terms - 1));
  for (int i = terms - 2; i >= 0; --i) sum = fma(sum, square, constant<T>(1.0 / (2 * i + 1)));
  return (w + w) * sum;
}

// All but the two that the plain cells have too. It is not inlined, since it is long and the same for all cells.
template <class T>
__attribute__((noinline)) void rare_activation(const CellActivation<T> &f, const vec<T> &a, vec<T> &value,
                                               vec<T> &slope) {
  const vec<T> alpha = broadcast(f.alpha), beta = broadcast(f.beta), zero = {}, one = constant<T>(1);
  switch (f.kind) {
  case CellFunction::relu:
    value = max(zero, a);
    slope = a <= zero ? zero : one;
    return;
  case CellFunction::affine:
    value = fma(alpha, a, beta);
    slope = alpha;
    return;
  case CellFunction::leaky_relu:
    value = a < zero ? alpha * a : a;
    slope = a < zero ? alpha : one;
    return;
  case CellFunction::thresholded_relu:
    value = a < alpha ? zero : a;
    slope = a < alpha ? zero : one;
    return;
  case CellFunction::scaled_tanh: {
    const vec<T> t = tanh<T>(vecs<T, 1>(beta * a)).at[0];
    value = alpha * t;
    slope = alpha * beta * fnma(t, t, one);
    return;
  }
  case CellFunction::hard_sigmoid: {
    const vec<T> line = fma(alpha, a, beta);
    value = min(one, max(zero, line));
    slope = line <= zero ? zero : line >= one ? zero : alpha;
    return;
  }
  case CellFunction::elu: { // e^a - 1 = 2 t / (1 - t) with t = tanh(a / 2), which loses nothing where a is small
    const vec<T> t = tanh<T>(vecs<T, 1>(constant<T>(0.5) * min(zero, a))).at[0];
    const vec<T> less_one = (t + t) / (one - t);
    value = a < zero ? alpha * less_one : a;
    slope = a < zero ? fma(alpha, less_one, alpha) : one;
    return;
  }
  case CellFunction::softsign: {
    const vec<T> below = one + without_sign(a);
    value = a / below;
    slope = one / (below * below);
    return;
  }
  case CellFunction::softplus: { // max(0, a) + log(1 + e^-|a|)
    const vec<T> s = sigmoid<T>(vecs<T, 1>(-without_sign(a))).at[0];
    value = max(zero, a) + log_of_one_plus<T>(s / (one - s));
    slope = a < zero ? s : one - s;
    return;
  }
  default: // linear
    value = a;
    slope = one;
  }
}

// f(a); slope, where it is not null, gets f'(a).
template <class T, int N>
FASTRNN_INLINE vecs<T, N> activate(const CellActivation<T> &f, const vecs<T, N> &a, vecs<T, N> *slope) {
  typedef vecs<T, N> V;
  const V one = constant<T>(1);
  V value, own;
  if (f.kind == CellFunction::sigmoid) {
    value = sigmoid<T>(a);
    if (slope) *slope = value * (one - value);
  } else if (f.kind == CellFunction::tanh) {
    value = tanh<T>(a);
    if (slope) *slope = fnma(value, value, one);
  } else {
    unroll<N>([&](auto i) __attribute__((always_inline)) { rare_activation<T>(f, a.at[i], value.at[i], own.at[i]); });
    if (slope) *slope = own;
  }
  return value;
}

// The same of a pre-activation, which is clipped first: beyond the bound the slope is zero.
template <class T, int N>
FASTRNN_INLINE vecs<T, N> activate_clipped(const CellActivation<T> &f, T clip, const vecs<T, N> &a, vecs<T, N> *slope) {
  typedef vecs<T, N> V;
  if (!(clip > T(0))) return activate<T, N>(f, a, slope);
  const vec<T> high = broadcast(clip), low = broadcast(-clip);
  const V value = activate<T, N>(f, max(V(low), min(V(high), a)), slope);
  if (slope)
    *slope = V::each([&](auto i) __attribute__((always_inline)) {
      const vec<T> zero = {};
      return a.at[i] < low ? zero : a.at[i] > high ? zero : slope->at[i];
    });
  return value;
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
