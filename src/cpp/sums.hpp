// Weight gradients: sums over all steps and rows, taken chunk by chunk as BPTT goes back in time.
//
// The order of every sum is that of BPTT (steps descending, rows of a step ascending), so it does not depend
// on threads, chunks or checkpoints. A sum of millions of terms one after the other would lose them to rounding:
// after every `block` terms, counted from the start of BPTT, it begins anew, and the blocks are added up.
#pragma once

#include <algorithm>

#include "direction.hpp"

namespace fastrnn {

// Pointers to the rows of one chunk, in the order of the sums.
template <class T> struct ChunkRows {
  std::vector<const T *> d, x, h, m, dh; // gradients, inputs, h_prev, LSTM m / GRU r o h, projected dh
};

template <class T> class WeightSums {
public:
  WeightSums(const Pass<T> &pass, const Direction<T> &dir) : p(pass), input_(dir.input) {
    const size_t G = p.shape.gates();
    const bool gru = p.shape.cell == Cell::gru, before = p.shape.cell == Cell::gru_before;
    const size_t terms = p.batch.total();
    auto sum = [&](size_t gates, size_t columns) {
      const size_t n = product(gates, p.Hp, columns);
      // the first chunk writes them; without steps there is none
      return Sum{columns, terms ? Buffer<T>(n) : Buffer<T>::zeroed(n), Buffer<T>(terms > block ? n : 0)};
    };
    input_sum_ = sum(G, input_ + 1); // and the bias, as a column of ones
    recurrent_sum_ = sum(before ? 2 : G, p.R + (gru ? 1 : 0));
    if (before) candidate_sum_ = sum(1, p.R);
    if (p.shape.proj) project_sum_ = sum(1, p.R);
  }

  static size_t scratch(const Pass<T> &p, const Direction<T> &dir) {
    return p.k.outer_scratch(std::max(dir.input + 1 + p.R, p.H + 1));
  }

  // Adds a chunk that `before` terms precede; each thread its share of the columns.
  void add(const ChunkRows<T> &rows, size_t before, const Worker &w, T *scratch) {
    for (size_t i = 0, n = 0; i < rows.d.size(); i += n) {
      n = std::min(rows.d.size() - i, block - (before + i) % block);
      add_terms(rows, i, n, before + i, w, scratch);
    }
  }

  // Writes the gradients; each thread some columns.
  void write(const Parameters<T> &to, const Worker &w) {
    static const int natural[4] = {0, 1, 2, 3}, candidate_first[3] = {2, 0, 1}, candidate[1] = {2};
    const size_t G = p.shape.gates();
    const bool gru = p.shape.cell == Cell::gru, before = p.shape.cell == Cell::gru_before;
    const int *order = gru || before ? candidate_first : natural;
    const Range in = share(input_, w), re = share(p.R, w);
    if (to.w_ih && in.size())
      p.k.unpack_gates(to.w_ih + in.begin, input_, input_sum_.c.get(), input_sum_.columns, in.begin, in.size(), G,
                       order, p.H);
    if (before) {
      p.k.unpack_gates(to.w_hh + re.begin, p.R, recurrent_sum_.c.get(), recurrent_sum_.columns, re.begin, re.size(), 2,
                       natural, p.H);
      p.k.unpack_gates(to.w_hh + re.begin, p.R, candidate_sum_.c.get(), candidate_sum_.columns, re.begin, re.size(), 1,
                       candidate, p.H);
    } else {
      p.k.unpack_gates(to.w_hh + re.begin, p.R, recurrent_sum_.c.get(), recurrent_sum_.columns, re.begin, re.size(), G,
                       natural, p.H);
    }
    if (w.rank != 0) return;
    if (to.b_ih) p.k.unpack_gates(to.b_ih, 1, input_sum_.c.get(), input_sum_.columns, input_, 1, G, order, p.H);
    if (to.b_hh) {
      if (gru)
        p.k.unpack_gates(to.b_hh, 1, recurrent_sum_.c.get(), recurrent_sum_.columns, p.R, 1, G, natural, p.H);
      else
        p.k.unpack_gates(to.b_hh, 1, input_sum_.c.get(), input_sum_.columns, input_, 1, G, order, p.H);
    }
    if (to.w_hr) p.k.unpack_plain(to.w_hr, p.H, project_sum_.c.get(), p.R, p.H);
  }

private:
  struct Sum {
    size_t columns = 0;
    Buffer<T> c, total; // [panel][column][vec]: of the block at hand; of those before it, where there are several
  };
  static constexpr size_t block = 4096; // its roundings and those of a thousand times as many terms weigh the same

  // Terms [from, from + n_terms) of a chunk, all of one block; `done` terms precede them.
  void add_terms(const ChunkRows<T> &rows, size_t from, size_t n_terms, size_t done, const Worker &w, T *scratch) {
    const size_t G = p.shape.gates();
    const bool gru = p.shape.cell == Cell::gru, before = p.shape.cell == Cell::gru_before;
    OuterProduct<T> products[3];
    size_t n = 0;
    auto product = [&](const std::vector<const T *> &d, size_t first_slot, size_t slots) {
      OuterProduct<T> &q = products[n++];
      q.depth = n_terms;
      q.d = d.data() + from;
      q.first_slot = first_slot;
      q.slots = slots;
      q.hidden = p.H;
      q.fresh = done % block == 0;
      q.scratch = scratch;
    };
    auto part = [&](const T *const *a, size_t columns, Sum &sum, size_t c_first) {
      OuterProduct<T> &q = products[n - 1];
      q.parts[q.count++] = {a ? a + from : a, columns, 0, 0, c_first, sum.columns, sum.c.get(), sum.total.get()};
    };
    product(rows.d, 0, G);
    if (input_) part(rows.x.data(), input_, input_sum_, 0);
    part(nullptr, 1, input_sum_, input_);
    if (before) {
      product(rows.d, 1, 2);
      part(rows.h.data(), p.R, recurrent_sum_, 0);
      product(rows.d, 0, 1);
      part(rows.m.data(), p.R, candidate_sum_, 0);
    } else {
      if (gru) product(rows.d, 1, G); // elsewhere the same gradients meet h as well
      part(rows.h.data(), p.R, recurrent_sum_, 0);
      if (gru) part(nullptr, 1, recurrent_sum_, p.R);
    }
    if (p.shape.proj) {
      product(rows.m, 0, 1);
      part(rows.dh.data(), p.R, project_sum_, 0);
    }
    size_t tiles = 0, at = 0;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < products[i].count; ++j) tiles += tiles_of(products[i], j);
    const Range mine = share(tiles, w);
    const size_t terms = p.batch.total();
    for (size_t i = 0; i < n; ++i) {
      OuterProduct<T> &q = products[i];
      bool any = false;
      for (size_t j = 0; j < q.count; ++j) {
        OuterPart<T> &piece = q.parts[j];
        const size_t of_piece = tiles_of(q, j), width = width_of(q, j);
        const size_t begin = std::max(mine.begin, at), end = std::min(mine.end, at + of_piece);
        if (begin < end) {
          piece.first = (begin - at) * width;
          piece.last = std::min((end - at) * width, piece.columns);
          any = true;
        }
        at += of_piece;
      }
      if (!any) continue;
      if (done >= block && q.fresh) p.k.outer_fold(q, done == block ? Fold::start : Fold::add);
      p.k.outer(q);
      if (terms > block && done + n_terms == terms) p.k.outer_fold(q, Fold::finish);
    }
  }

  size_t width_of(const OuterProduct<T> &q, size_t j) const { return q.parts[j].a ? p.k.outer_tile(q.slots) : 1; }
  size_t tiles_of(const OuterProduct<T> &q, size_t j) const {
    return (q.parts[j].columns + width_of(q, j) - 1) / width_of(q, j);
  }

  const Pass<T> &p;
  size_t input_;
  Sum input_sum_, recurrent_sum_, candidate_sum_, project_sum_;
};

} // namespace fastrnn
