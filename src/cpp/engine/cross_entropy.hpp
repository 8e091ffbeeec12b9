// cross_entropy: the softmax cross-entropy of a linear layer's outputs, fused with that layer, forward and back.
//
//   z = W x + b    p = softmax(z)    lse = log sum exp z    t: the right class of C    s: label smoothing    q: z-loss
//   loss = w (lse - (1 - s) z_t - s mean(z) + q lse^2)
//   dz   = w ((1 + 2 q lse) p - (1 - s) onehot(t) - s / C)        dx = dz W    dW = dz^T x    db = sum dz
//
// A chunk of rows goes through all of that before the next one, so the logits are never held as a whole.
#pragma once

#include "engine/dense.hpp"

namespace fastrnn {

template <class T> struct CrossEntropy {
  Dense<T> layer;                   // x, weight and bias; outputs are the classes
  const int64_t *targets = nullptr; // [rows], each below `outputs` where the weight is not 0
  const double *weights = nullptr;  // [rows] what each row counts, the reduction included; null: `weight` for all
  double weight = 1;
  double label_smoothing = 0, z_loss = 0;
};

// The sum of the rows' losses. A row of weight 0 counts as 0, whatever stands in it, and so does its gradient.
// gradients: null for the loss alone. False: interrupted.
template <class T>
bool cross_entropy(const Kernels<T> &, const CrossEntropy<T> &, double *loss, const DenseGradients<T> *gradients,
                   PieceWork &);

// The same of logits [rows, classes] that are there already. gradient: dz [rows, classes], or null.
template <class T> struct LogitsCrossEntropy {
  CrossEntropy<T> loss; // of its layer, rows and outputs count
  Matrix<const T> logits;
};
template <class T>
bool cross_entropy(const Kernels<T> &, const LogitsCrossEntropy<T> &, double *loss, T *gradient, PieceWork &);

// One row of logits, which becomes its gradient dz where `wants_gradient`, and its loss. The row's memory reaches to a
// multiple of sum_ways.
template <class T>
double row_cross_entropy(const Kernels<T> &, const CrossEntropy<T> &, size_t row, T *logits, bool wants_gradient);

} // namespace fastrnn
