// update: what an optimiser does to a stretch of parameters, in one pass over memory.
//
// Only additions, multiplications, divisions and square roots, each rounded once: every kernel set gets the same bits.
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Calls f(i, count) for every register of n numbers: it begins at number i, and the last one may not be full.
template <class T, class F> FASTRNN_INLINE void each_register(size_t n, F &&f) {
  size_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) f(i, size_t(lanes<T>));
  if (i < n) f(i, n - i);
}

// The gradient of register i, scaled (by clipping), with L2 weight decay added.
template <class T> FASTRNN_INLINE vec<T> gradient_of(const Update<T> &u, size_t i, size_t n, const vec<T> &p) {
  const vec<T> g = load_first(u.g + i, n) * broadcast(u.scale);
  return u.decay != T(0) ? p * broadcast(u.decay) + g : g;
}

// m = b1 m + (1 - b1) g    v = b2 v + (1 - b2) g^2    p -= rate m / (sqrt(v) + eps)
template <class T> void adam(const Update<T> &u) {
  const vec<T> keep = broadcast(u.keep), one_m = broadcast(u.first), one_v = broadcast(u.second),
               eps = broadcast(u.eps), rate = broadcast(u.rate);
  each_register<T>(u.n, [&](size_t i, size_t n) __attribute__((always_inline)) {
    vec<T> p = load_first(u.p + i, n);
    const vec<T> g = gradient_of(u, i, n, p);
    vec<T> m = load_first(u.a + i, n), v = load_first(u.b + i, n);
    m = m + (g - m) * one_m;
    v = v + (g * g - v) * one_v;
    store_first(u.a + i, m, n);
    store_first(u.b + i, v, n);
    p = p * keep - m / (square_root(v) + eps) * rate;
    store_first(u.p + i, p, n);
  });
}

// v = alpha v + (1 - alpha) g^2    b = momentum b + g / (sqrt(v) + eps)    p -= rate b
template <class T> void rmsprop(const Update<T> &u) {
  const vec<T> one_v = broadcast(u.second), eps = broadcast(u.eps), rate = broadcast(u.rate),
               momentum = broadcast(u.first);
  each_register<T>(u.n, [&](size_t i, size_t n) __attribute__((always_inline)) {
    const vec<T> p = load_first(u.p + i, n), g = gradient_of(u, i, n, p);
    vec<T> v = load_first(u.a + i, n);
    v = v + (g * g - v) * one_v;
    store_first(u.a + i, v, n);
    vec<T> step = g / (square_root(v) + eps);
    if (u.b) {
      step = load_first(u.b + i, n) * momentum + step;
      store_first(u.b + i, step, n);
    }
    store_first(u.p + i, p - step * rate, n);
  });
}

// b = momentum b + g    p -= rate b, or with Nesterov's momentum p -= rate (g + momentum b)
template <class T> void sgd(const Update<T> &u) {
  const vec<T> rate = broadcast(u.rate), momentum = broadcast(u.first);
  each_register<T>(u.n, [&](size_t i, size_t n) __attribute__((always_inline)) {
    const vec<T> p = load_first(u.p + i, n), g = gradient_of(u, i, n, p);
    vec<T> step = g;
    if (u.a) {
      step = load_first(u.a + i, n) * momentum + g;
      store_first(u.a + i, step, n);
      if (u.nesterov) step = step * momentum + g;
    }
    store_first(u.p + i, p - step * rate, n);
  });
}

// The sum of the squares of n numbers in float64, where the square of a float is exact: `sum_ways` partial sums, added
// in a fixed order.
template <class T> double sum_of_squares(const T *a, size_t n) {
  double sums[sum_ways] = {};
  size_t i = 0;
  for (; i + sum_ways <= n; i += sum_ways)
    for (size_t j = 0; j < sum_ways; ++j) {
      const double v = double(a[i + j]);
      sums[j] += v * v;
    }
  for (size_t j = 0; i + j < n; ++j) {
    const double v = double(a[i + j]);
    sums[j] += v * v;
  }
  for (size_t half = sum_ways / 2; half > 0; half /= 2)
    for (size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
