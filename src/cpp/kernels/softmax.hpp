// softmax: one row of logits at a time, for the cross-entropy and its gradient (engine/cross_entropy.hpp).
//
// A row is read in blocks of `sum_ways` numbers. A sum over it consists of as many partial sums, one for each place in
// a block, which are added in a fixed order. So every kernel set gets the same bits, however wide its registers are.
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/math.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// e^x for x <= 0, within 2 ULP. Far below zero the result stays at the smallest normal number instead of 0.
//
// With x = n ln2 + 2 v and A = v coth v (math.hpp): e^x = 2^n (A + v) / (A - v).
template <class T, class V> FASTRNN_INLINE V exp_of_negative(const V &x) {
  typedef math_table<T> table;
  const V shift = broadcast(table::round_shift), limited = max(broadcast(table::lowest), x);
  const V t = fma(limited, broadcast(table::log2e), shift), n = t - shift;
  const V near = fma(n, broadcast(-table::ln2_high), limited), v2 = fma(n, broadcast(-table::ln2_low), near); // 2 v
  const V square = v2 * v2, A2 = fma(square, even_part<T, true>(square), constant<T>(2));
  return exponent_bits(t) * ((A2 + v2) / (A2 - v2));
}

// The registers of one block.
template <class T> constexpr int block_registers = int(sum_ways) / lanes<T>;
template <class T> using block_vecs = vecs<T, block_registers<T>>;

template <class T> FASTRNN_INLINE block_vecs<T> load_block(const T *from) {
  return block_vecs<T>::each([&](auto i) __attribute__((always_inline)) { return load(from + i * lanes<T>); });
}
template <class T> FASTRNN_INLINE void store_block(T *to, const block_vecs<T> &block) {
  unroll<block_registers<T>>([&](auto i) __attribute__((always_inline)) { store(to + i * lanes<T>, block.at[i]); });
}
// Joins the numbers of a block: the lower half with the upper half, until one number is left.
template <class T, class Join, size_t N = sum_ways> FASTRNN_INLINE T join(T *a, Join two) {
  if constexpr (N == 1) {
    return a[0];
  } else if constexpr (N / 2 >= size_t(lanes<T>)) {
    for (size_t i = 0; i < N / 2; i += lanes<T>) store(a + i, two(load(a + i), load(a + i + N / 2)));
    return join<T, Join, N / 2>(a, two);
  } else {
    for (size_t i = 0; i < N / 2; ++i) a[i] = two(a[i], a[i + N / 2]);
    return join<T, Join, N / 2>(a, two);
  }
}
template <class T> FASTRNN_INLINE T add_up(const block_vecs<T> &block) {
  alignas(64) T a[sum_ways];
  store_block(a, block);
  return join<T>(a, [](auto x, auto y) __attribute__((always_inline)) { return x + y; });
}

// z becomes exp(z - max z), whose sum is returned with the maximum. The row's memory reaches to a whole number of
// blocks; what lies beyond its end is overwritten.
template <class T> void softmax_exponentials(T *z, size_t classes, T *greatest, T *sum) {
  const size_t end = (classes + sum_ways - 1) / sum_ways * sum_ways;
  const T lowest = sizeof(T) == 4 ? T(-__FLT_MAX__) : T(-__DBL_MAX__);
  for (size_t i = classes; i < end; ++i) z[i] = lowest;
  block_vecs<T> most = broadcast(lowest);
  for (size_t i = 0; i < end; i += sum_ways) most = max(load_block(z + i), most);
  vec<T> top_of_lanes = most.at[0];
  unroll<block_registers<T>>([&](auto i)
                                 __attribute__((always_inline)) { top_of_lanes = max(most.at[i], top_of_lanes); });
  T top = top_of_lanes[0];
  for (int i = 1; i < lanes<T>; ++i) top = top_of_lanes[i] > top ? top_of_lanes[i] : top;
  block_vecs<T> all = vec<T>{};
  const block_vecs<T> offset = broadcast(top);
  for (size_t i = 0; i < end; i += sum_ways) {
    const block_vecs<T> e = exp_of_negative<T>(load_block(z + i) - offset);
    store_block(z + i, e);
    all = all + e;
  }
  *greatest = top;
  *sum = add_up<T>(all);
}

// The sum of a row.
template <class T> T row_sum(const T *z, size_t n) {
  block_vecs<T> sum = vec<T>{};
  size_t i = 0;
  for (; i + sum_ways <= n; i += sum_ways) sum = sum + load_block(z + i);
  if (i < n) {
    alignas(64) T rest[sum_ways] = {};
    for (size_t j = 0; i + j < n; ++j) rest[j] = z[i + j];
    sum = sum + load_block<T>(rest);
  }
  return add_up<T>(sum);
}

// z = z * scale - offset
template <class T> void scale_row(T *z, size_t n, T scale, T offset) {
  const vec<T> by = broadcast(scale), less = broadcast(offset);
  size_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store(z + i, load(z + i) * by - less);
  if (i < n) store_first(z + i, load_first(z + i, n - i) * by - less, n - i);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
