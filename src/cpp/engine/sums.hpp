// sums: the weight gradients. Each is a sum over all steps and sequences. Terms are added chunk by chunk while BPTT
// goes back in time, in the arrays that the caller gets.
//
// Terms are added in the order of BPTT (steps descending, sequences of a step ascending), so the order does not depend
// on threads, chunks or checkpoints. In one sum of millions of terms the last ones would be lost to rounding. So after
// every `block` terms, counted from the start of BPTT, a new sum begins, and the blocks are added up.
#pragma once

#include <algorithm>

#include "engine/direction.hpp"

namespace fastrnn {

// Pointers to the rows of one chunk, in the order of the sums.
template <class T> struct ChunkRows {
  std::vector<const T *> d, x, h, m, dh; // gradients, inputs, h_prev, LSTM m / GRU r o h, projected dh
};

template <class T> class WeightSums {
public:
  WeightSums(const Pass<T> &pass, const Direction<T> &dir, const Parameters<T> &gradients)
      : p(pass), g_(gradients), input_(dir.input) {
    typedef ChunkRows<T> Rows;
    const size_t H = p.H, GH = product(p.shape.gates(), H), lanes = p.k.lanes;
    const bool gru = resets_after(p.shape.cell), before = resets_before(p.shape.cell);
    const int *order = order_of(p.shape.cell);
    // The sum for w_ih is computed as it is or transposed, whichever leaves fewer lanes of the registers idle. A
    // transposed sum is transposed back at the end: for a number, that takes about as many instructions as 30 lanes of
    // a term.
    const size_t transposed = input_ * round_up(GH, lanes) + GH, straight = GH * round_up(input_, lanes);
    transposed_ = transposed < straight && p.batch.total() * (straight - transposed) > 30 * GH * input_;
    const size_t all = p.batch.total(), after_first = all - (dir.starts_at_zero && all ? p.batch.active(0) : 0);
    sums_.reserve(7); // the most that a cell has
    if (transposed_)
      add_sum({&Rows::x, 0, input_, input_, natural}, {&Rows::d, 0, GH}, all, nullptr);
    else if (input_)
      add_sum({&Rows::d, 0, GH, H, order}, {&Rows::x, 0, input_}, all, g_.w_ih);
    if (before) {
      add_sum({&Rows::d, H, 2 * H, H, natural}, {&Rows::h, 0, p.R}, after_first, g_.w_hh);
      add_sum({&Rows::d, 0, H, H, natural}, {&Rows::m, 0, p.R}, after_first, g_.w_hh + 2 * H * p.R);
    } else {
      add_sum({&Rows::d, gru ? H : 0, GH, H, natural}, {&Rows::h, 0, p.R}, after_first, g_.w_hh);
    }
    if (g_.b_ih) add_sum({&Rows::d, 0, GH, H, order}, {nullptr, 0, 1}, all, g_.b_ih);
    if (g_.b_hh && gru) add_sum({&Rows::d, H, GH, H, natural}, {nullptr, 0, 1}, all, g_.b_hh);
    size_t behind = p.k.gate_slots(p.shape.cell) * H; // where the terms of peepholes begin
    for (T *to : {g_.w_ci, g_.w_cf, g_.w_co}) {
      if (to) add_sum({&Rows::d, behind, H, H, natural}, {nullptr, 0, 1}, all, to);
      behind += H;
    }
    if (p.shape.proj) add_sum({&Rows::dh, 0, p.R, p.R, natural}, {&Rows::m, 0, H}, all, g_.w_hr);
  }

  // how many numbers of scratch memory are needed to add a chunk of so many terms
  size_t scratch(size_t terms) const {
    size_t n = 0;
    for (const Sum &sum : sums_) n = std::max(n, p.k.outer_scratch(sum.right.columns, terms));
    return n;
  }

  // How many sums there are, and how large each is: [rows][columns].
  size_t count() const { return sums_.size(); }
  size_t rows(size_t sum) const { return sums_[sum].left.rows; }
  size_t columns(size_t sum) const { return sums_[sum].right.columns; }

  // Adds a chunk, which `before` terms precede, to a part of the rows of one sum. Between two chunks a barrier is
  // needed unless a thread keeps its part.
  void add(size_t sum, const ChunkRows<T> &rows, size_t before, const Part &part, T *scratch) {
    for (size_t i = 0, n = 0; i < rows.d.size(); i += n) {
      n = std::min(rows.d.size() - i, block - (before + i) % block);
      add_terms(sums_[sum], rows, i, n, before + i, part, scratch);
    }
  }

  // What is left to do when all terms have been added, after a barrier.
  void finish(const Worker &w) {
    const size_t H = p.H, GH = p.shape.gates() * H;
    if (transposed_) {
      const int *order = order_of(p.shape.cell);
      const T *from = sums_.front().result;
      const Range rows = share(GH, w);
      for (size_t r = rows.begin; r < rows.end; ++r) {
        T *to = g_.w_ih + (size_t(order[r / H]) * H + r % H) * input_;
        for (size_t i = 0; i < input_; ++i) to[i] = from[i * GH + r];
      }
    }
    if (w.index != 0) return;
    if (!p.batch.total()) {
      for (Sum &sum : sums_) std::memset(sum.result, 0, sum.left.rows * sum.right.columns * sizeof(T));
    }
    if (g_.b_hh && !resets_after(p.shape.cell)) std::memcpy(g_.b_hh, g_.b_ih, GH * sizeof(T));
  }

private:
  // A term is the outer product of two vectors. Left: `rows` numbers, each of which is broadcast; those of a gate
  // (`hidden` each) belong to gate order[] of the result. Right: the numbers that fill registers.
  struct Left {
    std::vector<const T *> ChunkRows<T>::*terms;
    size_t first, rows, hidden;
    const int *order;
  };
  struct Right {
    std::vector<const T *> ChunkRows<T>::*terms; // null: ones
    size_t first, columns;
  };
  struct Sum {
    Left left;
    Right right;
    size_t terms;        // later ones are zero: those of the first step, where there is no h_0
    T *result;           // [rows][columns]
    T *current;          // of the current block; the result itself where there is only one block
    Buffer<T> own, part; // memory for the two where it is not the caller's
  };
  // In its block a term is rounded at most so often, and once more for every block after it.
  static constexpr size_t block = 4096;
  static constexpr int natural[4] = {0, 1, 2, 3}, last_first[3] = {2, 0, 1};
  static const int *order_of(Cell cell) { return candidate_first(cell) ? last_first : natural; }

  void add_sum(const Left &left, const Right &right, size_t terms, T *result) {
    const size_t n = product(left.rows, right.columns);
    Sum &sum = sums_.emplace_back();
    sum.left = left;
    sum.right = right;
    sum.terms = terms;
    if (!result) sum.own = Buffer<T>(n);
    if (p.batch.total() > block) sum.part = Buffer<T>(n);
    sum.result = result ? result : sum.own.get();
    sum.current = sum.part.size() ? sum.part.get() : sum.result;
  }

  // Terms [from, from + n) of a chunk, all of one block; `done` terms precede them.
  void add_terms(Sum &sum, const ChunkRows<T> &rows, size_t from, size_t n, size_t done, const Part &part, T *scratch) {
    const size_t tile = p.k.outer_rows, count = sum.left.rows;
    const Range tiles = part((count + tile - 1) / tile);
    OuterProduct<T> q;
    q.depth = std::min(n, sum.terms - std::min(sum.terms, done));
    q.a = (rows.*sum.left.terms).data() + from;
    q.a_first = sum.left.first;
    if (sum.right.terms) q.b = (rows.*sum.right.terms).data() + from;
    q.b_first = sum.right.first;
    q.columns = q.ld = sum.right.columns;
    q.first = tiles.begin * tile;
    q.last = std::min(tiles.end * tile, count);
    q.c = sum.current;
    q.hidden = sum.left.hidden;
    q.order = sum.left.order;
    q.overwrite = done % block == 0;
    q.scratch = scratch;
    if (q.first >= q.last) return;
    if (q.depth)
      p.k.outer(q);
    else if (q.overwrite && q.order == natural) // rows in the order of the result: one stretch
      std::memset(q.c + q.first * q.ld, 0, (q.last - q.first) * q.columns * sizeof(T));
    else if (q.overwrite)
      for (size_t r = q.first; r < q.last; ++r) std::memset(q.c + q.row(r) * q.ld, 0, q.columns * sizeof(T));
    const bool block_ends = (done + n) % block == 0 || done + n == p.batch.total();
    if (sum.part.size() && block_ends) p.k.outer_fold(sum.result, q, done < block);
  }

  const Pass<T> &p;
  const Parameters<T> &g_;
  size_t input_;
  bool transposed_ = false; // the first sum is that of w_ih, transposed
  std::vector<Sum> sums_;
};

} // namespace fastrnn
