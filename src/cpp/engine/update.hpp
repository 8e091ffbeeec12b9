// update: one step of an optimiser over flat buffers, clipping included, and gathering rows of a table with its
// gradient.
#pragma once

#include <vector>

#include "kernels/kernels.hpp"
#include "runtime/pieces.hpp"

namespace fastrnn {

enum class Optimiser { sgd, adam, rmsprop };

// The Euclidean norm of all gradients together, summed in float64 in one order. False: interrupted.
template <class T> struct Stretch {
  const T *at;
  size_t n;
};
template <class T>
bool squared_norm(const Kernels<T> &, const std::vector<Stretch<T>> &gradients, double *sum, PieceWork &);

// Updates every parameter of the stretches, each `n` numbers long.
template <class T> bool update(const Kernels<T> &, Optimiser, const std::vector<Update<T>> &, PieceWork &);

// out[i] = table[ids[i]], rows of `width` numbers.
template <class T> bool gather(T *out, const T *table, const int64_t *ids, size_t count, size_t width, PieceWork &);

// dtable [rows, width] = for every row the sum of those dy [count, width] that looked it up, in their order; rows that
// nobody looked up are 0.
template <class T>
bool gather_gradient(T *dtable, size_t rows, const T *dy, const int64_t *ids, size_t count, size_t width, PieceWork &);

} // namespace fastrnn
