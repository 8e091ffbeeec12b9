#include "engine/dense.hpp"

#include <algorithm>
#include <cstring>

namespace fastrnn {

namespace {

constexpr int natural_order[1] = {0};

// How many pieces keep some threads busy to the end without costing much themselves.
size_t pieces_for(double multiply_adds, const PieceWork &work) {
  if (work.n_threads() == 1) return 1;
  const double worth_a_piece = 5e5; // some ten microseconds
  return std::min(size_t(multiply_adds / worth_a_piece) + 1, 8 * size_t(work.n_threads()));
}

size_t split_point(size_t n, size_t index, size_t count) { return n * index / count; }

// The derivative of an activation, from its value, times dy.
template <class T> T times_derivative(Activation activation, T dy, T y) {
  switch (activation) {
  case Activation::none:
    return dy;
  case Activation::tanh:
    return dy * (T(1) - y * y);
  case Activation::relu:
    return y > T(0) ? dy : T(0);
  case Activation::sigmoid:
    return dy * (y * (T(1) - y));
  }
  return dy;
}

template <class T> void activate(const Kernels<T> &k, Activation activation, T *y, size_t n) {
  if (activation == Activation::tanh) k.tanh(y, y, n);
  if (activation == Activation::sigmoid) k.sigmoid(y, y, n);
  if (activation == Activation::relu)
    for (size_t i = 0; i < n; ++i) y[i] = y[i] <= T(0) ? T(0) : y[i]; // NaN stays
}

// Rows [first, last) and some panels of columns.
template <class T>
void multiply_block(const Kernels<T> &k, const RowsTimesMatrix<T> &m, size_t first, size_t last, size_t first_panel,
                    size_t last_panel) {
  Product<T> q;
  q.rows = last - first;
  q.depth = m.depth;
  q.first_panel = first_panel;
  q.last_panel = last_panel;
  q.a = m.a + first;
  q.out = m.out + first;
  q.b_rows = m.b;
  q.init = m.init;
  q.columns = m.columns;
  k.plain_product(q);
}

} // namespace

template <class T> bool multiply(const Kernels<T> &k, const RowsTimesMatrix<T> &m, PieceWork &work) {
  if (!m.rows || !m.columns) return true;
  // Rows are cut first, in groups that share what is packed of B, then columns: pieces of whole panels.
  const size_t panels = k.plain_panels(m.columns), groups = (m.rows + rows_in_pieces - 1) / rows_in_pieces;
  const size_t wanted = pieces_for(double(m.rows) * double(m.depth) * double(m.columns), work);
  const size_t across = std::min(std::max<size_t>((wanted + groups - 1) / groups, 1), panels);
  return work.run(groups * across, [&](size_t piece, int) {
    const size_t group = piece / across, part = piece % across;
    const size_t first = split_point(m.rows, group, groups), last = split_point(m.rows, group + 1, groups);
    multiply_block(k, m, first, last, split_point(panels, part, across), split_point(panels, part + 1, across));
  });
}

template <class T> void multiply_rows(const Kernels<T> &k, const RowsTimesMatrix<T> &m, size_t from, size_t to) {
  multiply_block(k, m, from, to, 0, k.plain_panels(m.columns));
}

template <class T> bool dense_forward(const Kernels<T> &k, const Dense<T> &d, T *y, PieceWork &work) {
  const Matrix<T> out{y, ptrdiff_t(d.outputs)};
  Buffer<const T *> a(d.rows);
  Buffer<T *> to(d.rows);
  list_rows(a, d.x, 0, d.rows);
  list_rows(to, out, 0, d.rows);
  Buffer<T> bias;
  if (d.bias) {
    bias = Buffer<T>(round_up(d.outputs, k.lanes));
    k.pack_unit_row(bias.get(), d.bias, d.outputs);
  }
  RowsTimesMatrix<T> m;
  m.rows = d.rows;
  m.depth = d.inputs;
  m.columns = d.outputs;
  m.a = a.get();
  m.out = to.get();
  m.b = {d.weight, d.inputs, 0, true};
  m.init = d.bias ? bias.get() : nullptr;
  if (!multiply(k, m, work)) return false;
  if (d.activation == Activation::none) return true;
  const size_t numbers = d.rows * d.outputs, pieces = pieces_for(double(numbers) * 16, work);
  return work.run(pieces, [&](size_t piece, int) {
    const size_t first = split_point(numbers, piece, pieces), last = split_point(numbers, piece + 1, pieces);
    activate(k, d.activation, y + first, last - first);
  });
}

template <class T>
bool dense_backward(const Kernels<T> &k, const Dense<T> &d, Matrix<const T> dy, Matrix<const T> y,
                    const DenseGradients<T> &g, PieceWork &work) {
  Buffer<T> through; // dy before the activation
  if (d.activation != Activation::none) {
    through = Buffer<T>(product(d.rows, d.outputs));
    const size_t pieces =
        std::min(pieces_for(double(d.rows) * double(d.outputs) * 4, work), std::max<size_t>(d.rows, 1));
    const bool done = work.run(pieces, [&](size_t piece, int) {
      for (size_t r = split_point(d.rows, piece, pieces); r < split_point(d.rows, piece + 1, pieces); ++r) {
        T *const to = through.get() + r * d.outputs;
        for (size_t i = 0; i < d.outputs; ++i) to[i] = times_derivative(d.activation, dy.row(r)[i], y.row(r)[i]);
      }
    });
    if (!done) return false;
    dy = {through.get(), ptrdiff_t(d.outputs)};
  }
  Buffer<const T *> dy_rows(d.rows), x_rows(d.rows);
  list_rows(dy_rows, dy, 0, d.rows);
  list_rows(x_rows, d.x, 0, d.rows);
  if (g.dx) {
    Buffer<T *> dx_rows(d.rows);
    list_rows(dx_rows, Matrix<T>{g.dx, ptrdiff_t(d.inputs)}, 0, d.rows);
    RowsTimesMatrix<T> m;
    m.rows = d.rows;
    m.depth = d.outputs;
    m.columns = d.inputs;
    m.a = dy_rows.get();
    m.out = dx_rows.get();
    m.b = {d.weight, d.inputs};
    if (!multiply(k, m, work)) return false;
  }
  DenseSums<T> sums(k, d.outputs, d.inputs, g.dweight, g.dbias, d.rows);
  return sums.add(dy_rows.get(), x_rows.get(), d.rows, 0, work);
}

// ---- sums over rows -----------------------------------------------------------------------------------

template <class T>
DenseSums<T>::DenseSums(const Kernels<T> &k, size_t outputs, size_t inputs, T *dweight, T *dbias, size_t total)
    : k_(k), outputs_(outputs), inputs_(inputs), total_(total), dweight_(dweight), dbias_(dbias) {
  if (total > block) {
    part_ = Buffer<T>(product(outputs, inputs));
    if (dbias) bias_part_ = Buffer<T>(outputs);
  }
  if (!total) {
    std::memset(dweight, 0, outputs * inputs * sizeof(T));
    if (dbias) std::memset(dbias, 0, outputs * sizeof(T));
  }
}

template <class T>
bool DenseSums<T>::add(const T *const *dy, const T *const *x, size_t rows, size_t done, PieceWork &work) {
  const size_t tile = k_.outer_rows, tiles = (outputs_ + tile - 1) / tile;
  for (size_t i = 0, n = 0; i < rows; i += n) {
    const size_t before = done + i;
    n = std::min(rows - i, block - before % block);
    const size_t each = k_.outer_scratch(inputs_, n);
    if (scratch_.size() < each * size_t(work.n_threads())) scratch_ = Buffer<T>(each * size_t(work.n_threads()));
    const bool starts = before % block == 0, ends = (before + n) % block == 0 || before + n == total_;
    // every piece packs x for itself: pieces of many tiles
    const size_t wanted = pieces_for(double(n) * double(outputs_) * double(inputs_), work);
    const size_t pieces =
        std::min(wanted, std::max<size_t>(tiles * tile / 96, std::min(tiles, size_t(work.n_threads()))));
    const bool finished = work.run(std::max<size_t>(pieces, 1), [&](size_t piece, int thread) {
      OuterProduct<T> q;
      q.depth = n;
      q.a = dy + i;
      q.b = x + i;
      q.columns = q.ld = inputs_;
      q.first = split_point(tiles, piece, std::max<size_t>(pieces, 1)) * tile;
      q.last = std::min(split_point(tiles, piece + 1, std::max<size_t>(pieces, 1)) * tile, outputs_);
      q.c = part_.size() ? part_.get() : dweight_;
      q.hidden = outputs_;
      q.order = natural_order;
      q.overwrite = starts;
      q.scratch = scratch_.get() + size_t(thread) * each;
      if (q.first >= q.last) return;
      if (inputs_) {
        k_.outer(q);
        if (part_.size() && ends) k_.outer_fold(dweight_, q, before < block);
      }
      if (!dbias_) return;
      q.b = nullptr;
      q.columns = q.ld = 1;
      q.c = bias_part_.size() ? bias_part_.get() : dbias_;
      k_.outer(q);
      if (bias_part_.size() && ends) k_.outer_fold(dbias_, q, before < block);
    });
    if (!finished) return false;
  }
  return true;
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template bool multiply(const Kernels<T> &, const RowsTimesMatrix<T> &, PieceWork &);                                 \
  template void multiply_rows(const Kernels<T> &, const RowsTimesMatrix<T> &, size_t, size_t);                         \
  template bool dense_forward(const Kernels<T> &, const Dense<T> &, T *, PieceWork &);                                 \
  template bool dense_backward(const Kernels<T> &, const Dense<T> &, Matrix<const T>, Matrix<const T>,                 \
                               const DenseGradients<T> &, PieceWork &);                                                \
  template class DenseSums<T>;
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
