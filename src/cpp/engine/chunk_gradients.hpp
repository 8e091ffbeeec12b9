// The products of BPTT over a chunk of steps at once: dL/dx, and the terms of the weight gradients.
#pragma once

#include "engine/bptt_buffers.hpp"
#include "engine/sums.hpp"

namespace fastrnn {

// Steps [begin, end). Gates are kept from step kept_from on; `buffer`: which of the two has the gradients.
struct Chunk {
  size_t begin = 0, end = 0, kept_from = 0;
  unsigned buffer = 0;
};

template <class T> class ChunkGradients {
public:
  // ld_d: of a row of gradients; rows: the most that a chunk has
  ChunkGradients(const Pass<T> &pass, const Gradients<T> &gradients, size_t ld_d, size_t rows)
      : p(pass), g_(gradients), ld_d_(ld_d) {
    size_t scratch = 0;
    sums_.reserve(p.directions.size());
    for (const auto &dir : p.directions) {
      sums_.emplace_back(p, dir, g_.parameters[dir.index]);
      scratch = std::max(scratch, sums_.back().scratch(rows));
    }
    own_ = std::vector<Own>(size_t(p.plan.threads));
    for (Own &own : own_) {
      own.scratch = Buffer<T>(scratch);
      for (auto *v : {&own.rows.d, &own.rows.x, &own.rows.h}) v->reserve(rows);
      if (p.shape.proj || p.shape.cell == Cell::gru_before)
        for (auto *v : {&own.rows.m, &own.rows.dh}) v->reserve(rows);
      own.a = Buffer<const T *>(rows);
      own.out = Buffer<T *>(rows);
    }
  }

  // One thread's part of a chunk. dx: where dL/dx goes; add: to what is there.
  void add(const Worker &w, const Direction<T> &dir, const Workspace<T> &own, const Chunk &chunk, const Track<T> &dx,
           bool add) {
    if (w.idle()) return;
    if (wants_dx(dir)) {
      const Range rows = p.rows_of(w, chunk.begin, chunk.end), listed = {0, list_dx(w, own, chunk, dx, rows)};
      input_gradient(w, dir, {listed, p.panels_of(p.k.plain_panels(dir.input), w)}, add);
    }
    list_rows(w, dir, own, chunk);
    const Part part = share_of(w);
    for (size_t i = 0; i < sums_[dir.index].count(); ++i) add_sum(w, dir, chunk, i, part);
    const double terms = double(p.batch.first(chunk.end) - p.batch.first(chunk.begin));
    const size_t columns = p.R + dir.input * (wants_dx(dir) ? 2 : 1);
    w.did((part.end - part.begin) * terms * double(p.shape.gates() * p.H) * double(columns));
  }

  // The same cut into pieces, which pipelined threads take one by one: each product by itself, in a few pieces.
  void add_in_pieces(const Worker &w, const Direction<T> &dir, const Workspace<T> &own, const Chunk &chunk,
                     const Track<T> &dx, bool add) {
    const size_t rows = p.batch.first(chunk.end) - p.batch.first(chunk.begin);
    if (!rows) return;
    const WeightSums<T> &sums = sums_[dir.index];
    const size_t dx_pieces = wants_dx(dir) ? p.pieces(w, rows, p.shape.gates() * p.H, dir.input) : 0;
    bool dx_listed = false, rows_listed = false;
    size_t i = w.take();
    for (; i < dx_pieces; i = w.take(), dx_listed = true) {
      if (!dx_listed) list_dx(w, own, chunk, dx, {0, p.batch.rows});
      input_gradient(w, dir, p.piece(i, dx_pieces, rows, p.k.plain_panels(dir.input)), add);
    }
    size_t before = dx_pieces;
    for (size_t sum = 0; sum < sums.count(); ++sum) {
      const size_t pieces = p.pieces(w, rows, sums.rows(sum), sums.columns(sum));
      for (; i < before + pieces; i = w.take(), rows_listed = true) {
        if (!rows_listed) list_rows(w, dir, own, chunk);
        add_sum(w, dir, chunk, sum, Part::even(i - before, pieces));
      }
      before += pieces;
    }
  }

  // When all terms have been added, after a barrier.
  void finish(const Worker &w, const Direction<T> &dir) { sums_[dir.index].finish(w); }

private:
  bool wants_dx(const Direction<T> &dir) const { return dir.input && (dir.layer > 0 || g_.dx); }

  // Lists the rows of the chunk's gradients and of dL/dx, those of some sequences. Returns how many there are.
  size_t list_dx(const Worker &w, const Workspace<T> &own, const Chunk &chunk, const Track<T> &dx, const Range &rows) {
    const Batch &batch = p.batch;
    const T **a = own_[size_t(w.thread)].a.get();
    T **out = own_[size_t(w.thread)].out.get();
    size_t n = 0;
    if (batch.rows == 1 && rows.size() == 1) {
      n = chunk.end - chunk.begin;
      evenly(a, static_cast<const T *>(own.d[chunk.buffer].get()), ptrdiff_t(ld_d_), n);
      evenly(out, dx(chunk.begin, 0), dx.step, n);
      return n;
    }
    for (size_t s = chunk.begin; s < chunk.end; ++s) {
      const size_t last = std::min(rows.end, batch.active(s));
      const T *d = own.d[chunk.buffer].get() + (batch.first(s) - batch.first(chunk.begin)) * ld_d_;
      const Rows<T> to = dx.rows(s, 0);
      for (size_t r = rows.begin; r < last; ++r, ++n) {
        a[n] = d + r * ld_d_;
        out[n] = to[r];
      }
    }
    return n;
  }

  // dL/dx of some of the listed rows
  void input_gradient(const Worker &w, const Direction<T> &dir, const typename Pass<T>::Piece &piece, bool add) {
    const PackedDirection<T> &weights = p.weights(dir.layer, dir.direction);
    Product<T> q;
    q.rows = piece.rows.size();
    q.depth = p.shape.gates() * p.H;
    q.first_panel = piece.panels.begin;
    q.last_panel = piece.panels.end;
    q.a = own_[size_t(w.thread)].a.get() + piece.rows.begin;
    q.out = own_[size_t(w.thread)].out.get() + piece.rows.begin;
    q.b = weights.w_back.get();
    q.b_rows = weights.w_back_rows;
    q.columns = dir.input;
    q.add = add;
    p.k.plain_product(q);
  }

  // rows_of(s)(r): row r of step s
  template <class F> void list(std::vector<const T *> &to, const Chunk &chunk, F &&rows_of) {
    to.resize(p.batch.first(chunk.end) - p.batch.first(chunk.begin));
    const T **next = to.data();
    for (size_t s = chunk.end; s-- > chunk.begin;) {
      const auto row = rows_of(s);
      for (size_t r = 0, n = p.batch.active(s); r < n; ++r) *next++ = row(r);
    }
  }
  // the same of an array [rows of the chunk][ld]
  void list(std::vector<const T *> &to, const Chunk &chunk, const T *from, size_t ld) {
    if (p.batch.rows == 1) {
      const size_t n = chunk.end - chunk.begin;
      to.resize(n);
      return evenly(to.data(), from + (n - 1) * ld, -ptrdiff_t(ld), n);
    }
    list(to, chunk, [&](size_t s) {
      const T *first = from + (p.batch.first(s) - p.batch.first(chunk.begin)) * ld;
      return [=](size_t r) { return first + r * ld; };
    });
  }

  // Lists the rows that the sums take, in their order.
  void list_rows(const Worker &w, const Direction<T> &dir, const Workspace<T> &own, const Chunk &chunk) {
    ChunkRows<T> &rows = own_[size_t(w.thread)].rows;
    list(rows.d, chunk, own.d[chunk.buffer].get(), ld_d_);
    if (p.batch.rows == 1 && p.batch.any_reset[dir.way].empty()) {
      const size_t n = chunk.end - chunk.begin, last = chunk.end - 1;
      rows.h.resize(n);
      evenly(rows.h.data(), dir.h_prev(last, 0)[0], -dir.y.step, n - (chunk.begin == 0));
      if (chunk.begin == 0) rows.h[n - 1] = dir.h_prev(0, 0)[0]; // h_0 lies elsewhere
      if (dir.input) {
        rows.x.resize(n);
        evenly(rows.x.data(), dir.x(last, 0), -dir.x.step, n);
      }
    } else {
      list(rows.h, chunk, [&](size_t s) {
        const uint8_t *reset = p.batch.reset_at(dir.way, s);
        const Rows<const T> h = dir.h_prev(s, 0);
        return [=, zeros = dir.zeros](size_t r) { return reset && reset[r] ? zeros : h[r]; };
      });
      if (dir.input) list(rows.x, chunk, [&](size_t s) { return [x = dir.x.read(s, 0)](size_t r) { return x[r]; }; });
    }
    if (own.m[0].size()) list(rows.m, chunk, own.m[chunk.buffer].get(), p.H);
    if (p.shape.proj) list(rows.dh, chunk, own.dh[chunk.buffer].get(), p.R);
  }

  void add_sum(const Worker &w, const Direction<T> &dir, const Chunk &chunk, size_t sum, const Part &part) {
    const size_t before = p.batch.total() - p.batch.first(chunk.end);
    sums_[dir.index].add(sum, own_[size_t(w.thread)].rows, before, part, own_[size_t(w.thread)].scratch.get());
  }

  const Pass<T> &p;
  const Gradients<T> &g_;
  const size_t ld_d_;
  std::vector<WeightSums<T>> sums_;
  struct Own {
    Buffer<T> scratch;
    ChunkRows<T> rows;
    Buffer<const T *> a;
    Buffer<T *> out;
  };
  std::vector<Own> own_; // by thread
};

} // namespace fastrnn
