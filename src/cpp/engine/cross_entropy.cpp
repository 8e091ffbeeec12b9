#include "engine/cross_entropy.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

namespace fastrnn {

namespace {

// Rows whose logits are held at once. Every chunk passes over W and its gradient, which many rows are to share; and the
// logits are to be small beside the weights of a model that has gradients and an optimiser's buffers too, or at least
// in themselves.
template <class T> size_t chunk_rows(size_t inputs, size_t ld) {
  const size_t small = (size_t(1) << 20) / (ld * sizeof(T));
  return std::max(std::min<size_t>(std::max<size_t>(inputs * 3 / 4, 96), 512), std::min<size_t>(small, 4096));
}

// Weights so small that they stay in a near cache: a thread takes some rows through all products at once, instead of
// sharing each product with the others.
constexpr size_t small_weights = size_t(1) << 16;
size_t row_groups(size_t rows, const PieceWork &work) {
  const size_t wanted = work.n_threads() == 1 ? 1 : 4 * size_t(work.n_threads());
  return std::max<size_t>(std::max((rows + rows_in_pieces - 1) / rows_in_pieces, std::min(wanted, rows / 24)), 1);
}

double weight_of(double all, const double *each, size_t row) { return each ? each[row] : all; }

} // namespace

template <class T>
double row_cross_entropy(const Kernels<T> &k, const CrossEntropy<T> &c, size_t row, T *z, bool wants_gradient) {
  const size_t classes = c.layer.outputs;
  const double weight = weight_of(c.weight, c.weights, row);
  if (weight == 0) {
    if (wants_gradient) std::memset(z, 0, classes * sizeof(T));
    return 0;
  }
  const size_t target = size_t(c.targets[row]);
  const double s = c.label_smoothing, right = double(z[target]);
  const double mean = s != 0 ? double(k.row_sum(z, classes)) / double(classes) : 0;
  T greatest, sum;
  k.softmax_exponentials(z, classes, &greatest, &sum);
  const double lse = double(greatest) + std::log(double(sum));
  double loss = lse - (1 - s) * right;
  if (s != 0) loss -= s * mean;
  if (c.z_loss != 0) loss += c.z_loss * lse * lse;
  if (wants_gradient) {
    k.scale_row(z, classes, T(weight * (1 + 2 * c.z_loss * lse) / double(sum)), T(weight * s / double(classes)));
    z[target] -= T(weight * (1 - s));
  }
  return loss * weight;
}

template <class T>
bool cross_entropy(const Kernels<T> &k, const CrossEntropy<T> &c, double *loss, const DenseGradients<T> *g,
                   PieceWork &work) {
  const Dense<T> &d = c.layer;
  const size_t ld = round_up(d.outputs, sum_ways);
  const size_t chunk = std::min(chunk_rows<T>(d.inputs, ld), std::max<size_t>(d.rows, 1));
  Buffer<T> logits(product(chunk, ld)), bias;
  Buffer<double> losses(d.rows);
  Buffer<const T *> x(chunk), dz(chunk);
  const Buffer<T> zeros = Buffer<T>::zeroed(d.inputs);
  Buffer<T *> z(chunk), dx(chunk);
  list_rows(z, Matrix<T>{logits.get(), ptrdiff_t(ld)}, 0, chunk);
  list_rows(dz, Matrix<const T>{logits.get(), ptrdiff_t(ld)}, 0, chunk);
  if (d.bias) {
    bias = Buffer<T>(round_up(d.outputs, k.lanes));
    k.pack_unit_row(bias.get(), d.bias, d.outputs);
  }
  std::unique_ptr<DenseSums<T>> sums;
  if (g) sums = std::make_unique<DenseSums<T>>(k, d.outputs, d.inputs, g->dweight, g->dbias, d.rows);

  for (size_t first = 0; first < d.rows; first += chunk) {
    const size_t rows = std::min(chunk, d.rows - first);
    list_rows(x, d.x, first, rows);
    RowsTimesMatrix<T> ahead, back;
    ahead.rows = back.rows = rows;
    ahead.depth = back.columns = d.inputs;
    ahead.columns = back.depth = d.outputs;
    ahead.a = x.get();
    ahead.out = z.get();
    ahead.b = {d.weight, d.inputs, 0, true};
    ahead.init = d.bias ? bias.get() : nullptr;
    const bool wants_dx = g && g->dx;
    if (wants_dx) {
      list_rows(dx, Matrix<T>{g->dx, ptrdiff_t(d.inputs)}, first, rows);
      back.a = dz.get();
      back.out = dx.get();
      back.b = {d.weight, d.inputs};
    }
    const auto softmax = [&](size_t from, size_t to) {
      for (size_t r = from; r < to; ++r) losses[first + r] = row_cross_entropy(k, c, first + r, z[r], g != nullptr);
    };
    if (d.inputs * d.outputs <= small_weights) {
      const size_t groups = row_groups(rows, work);
      const bool done = work.run(groups, [&](size_t group, int) {
        const size_t from = rows * group / groups, to = rows * (group + 1) / groups;
        multiply_rows(k, ahead, from, to);
        softmax(from, to);
        if (wants_dx) multiply_rows(k, back, from, to);
      });
      if (!done) return false;
    } else {
      if (!multiply(k, ahead, work)) return false;
      const size_t pieces = std::min(rows, rows * d.outputs / 20'000 + 1);
      const bool done =
          work.run(pieces, [&](size_t piece, int) { softmax(rows * piece / pieces, rows * (piece + 1) / pieces); });
      if (!done || (wants_dx && !multiply(k, back, work))) return false;
    }
    if (!g) continue;
    for (size_t r = 0; r < rows; ++r) // what does not count may hold anything, and NaN times 0 is NaN
      if (weight_of(c.weight, c.weights, first + r) == 0) x[r] = zeros.get();
    if (!sums->add(dz.get(), x.get(), rows, first, work)) return false;
  }
  *loss = 0;
  for (size_t r = 0; r < d.rows; ++r) *loss += losses[r];
  return true;
}

template <class T>
bool cross_entropy(const Kernels<T> &k, const LogitsCrossEntropy<T> &c, double *loss, T *gradient, PieceWork &work) {
  const size_t rows = c.loss.layer.rows, classes = c.loss.layer.outputs, ld = round_up(classes, sum_ways);
  Buffer<double> losses(rows);
  Buffer<T> scratch(product(size_t(work.n_threads()), ld));
  const size_t pieces = std::min(rows, rows * classes / 20'000 + 1);
  const bool done = work.run(pieces, [&](size_t piece, int thread) {
    T *const z = scratch.get() + size_t(thread) * ld;
    for (size_t r = rows * piece / pieces; r < rows * (piece + 1) / pieces; ++r) {
      std::memcpy(z, c.logits.row(r), classes * sizeof(T));
      losses[r] = row_cross_entropy(k, c.loss, r, z, gradient != nullptr);
      if (gradient) std::memcpy(gradient + r * classes, z, classes * sizeof(T));
    }
  });
  *loss = 0;
  for (size_t r = 0; r < rows; ++r) *loss += losses[r];
  return done;
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template double row_cross_entropy(const Kernels<T> &, const CrossEntropy<T> &, size_t, T *, bool);                   \
  template bool cross_entropy(const Kernels<T> &, const CrossEntropy<T> &, double *, const DenseGradients<T> *,        \
                              PieceWork &);                                                                            \
  template bool cross_entropy(const Kernels<T> &, const LogitsCrossEntropy<T> &, double *, T *, PieceWork &);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
