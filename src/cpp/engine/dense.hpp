// dense: the affine map y = f(x W^T + b) and its gradients.
//
// Products are cut into pieces that threads take one by one. Which piece a number falls into changes nothing: every
// output has one order of accumulation.
#pragma once

#include "kernels/kernels.hpp"
#include "runtime/memory.hpp"
#include "runtime/pieces.hpp"

namespace fastrnn {

enum class Activation { none, tanh, relu, sigmoid };

// Rows of numbers, `ld` apart; the numbers of a row are contiguous.
template <class T> struct Matrix {
  T *at = nullptr;
  ptrdiff_t ld = 0;
  T *row(size_t r) const { return at + ptrdiff_t(r) * ld; }
};

template <class T> struct Dense {
  size_t rows = 0, inputs = 0, outputs = 0;
  Matrix<const T> x;         // [rows, inputs]
  const T *weight = nullptr; // [outputs, inputs]
  const T *bias = nullptr;   // [outputs] or null
  Activation activation = Activation::none;
};

template <class T> struct DenseGradients {
  T *dx = nullptr;      // [rows, inputs]; null: not wanted
  T *dweight = nullptr; // [outputs, inputs]
  T *dbias = nullptr;   // [outputs] or null
};

// y [rows, outputs], contiguous. False: interrupted, as of all functions here.
template <class T> bool dense_forward(const Kernels<T> &, const Dense<T> &, T *y, PieceWork &);

// From dy [rows, outputs] and, where there is an activation, y.
template <class T>
bool dense_backward(const Kernels<T> &, const Dense<T> &, Matrix<const T> dy, Matrix<const T> y,
                    const DenseGradients<T> &, PieceWork &);

// ---- parts that the cross-entropy uses too ------------------------------------------------------------

// Pointers to rows [first, first + count) of a matrix.
template <class T> void list_rows(Buffer<T *> &to, const Matrix<T> &matrix, size_t first, size_t count) {
  for (size_t r = 0; r < count; ++r) to[r] = matrix.row(first + r);
}

// out[r] = a[r] B, for `rows` rows, where B is [depth, columns] or, transposed, [columns, depth].
template <class T> struct RowsTimesMatrix {
  size_t rows = 0, depth = 0, columns = 0;
  const T *const *a = nullptr;
  T *const *out = nullptr;
  RowMajor<T> b;
  const T *init = nullptr; // what every row starts from, padded to whole panels; null: 0
};
template <class T> bool multiply(const Kernels<T> &, const RowsTimesMatrix<T> &, PieceWork &);
// The same for rows [from, to), on this thread alone.
template <class T> void multiply_rows(const Kernels<T> &, const RowsTimesMatrix<T> &, size_t from, size_t to);

// The gradient of a weight and a bias: sums over rows of dy^T x and of dy. Rows come in any number of calls, in order,
// each with `done` of the `total` rows before it.
template <class T> class DenseSums {
public:
  DenseSums(const Kernels<T> &, size_t outputs, size_t inputs, T *dweight, T *dbias, size_t total);
  // dy: [rows] -> [outputs], x: [rows] -> [inputs]
  bool add(const T *const *dy, const T *const *x, size_t rows, size_t done, PieceWork &);

private:
  // After so many terms a sum begins anew, and the parts are added up: one sum of millions would lose them to rounding.
  static constexpr size_t block = 4096;
  const Kernels<T> &k_;
  const size_t outputs_, inputs_, total_;
  T *const dweight_, *const dbias_;
  Buffer<T> part_, bias_part_, scratch_;
  size_t scratch_each_ = 0;
};

} // namespace fastrnn
