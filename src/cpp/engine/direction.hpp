// One direction of one layer as the time loops see it, and what both passes share.
#pragma once

#include "engine/layer.hpp"
#include "kernels/dispatch.hpp"

namespace fastrnn {

template <class T> struct Direction {
  size_t layer = 0, direction = 0, index = 0; // index = layer * D + direction
  int way = 0;                                // 0: forward in time; 1: from each sequence's end
  size_t input = 0;                           // numbers of one x; 0: no input product
  Track<const T> x;
  Track<T> y;                   // h_t of every step
  SmallVector<ptrdiff_t> h0_at; // [B] sorted row -> its place in h0
  const T *h0 = nullptr;        // or a row of zeros
  bool starts_at_zero = false;  // there is no h_0: the first step has no recurrent product
  const T *zeros = nullptr;

  // h of the step before s
  Rows<const T> h_prev(size_t s, size_t r0) const {
    if (s > 0) return y.read(s - 1, r0);
    return {h0, h0_at.data() + r0};
  }
};

// The layout of the hidden layers' outputs: the caller's, so that x and y are addressed alike everywhere.
template <class T> View<T> hidden_view(T *base, const Batch &batch, const size_t *starts, size_t width) {
  View<T> view;
  view.base = base;
  view.time = ptrdiff_t(starts ? width : batch.rows * width);
  view.row.assign(batch.rows, 0);
  for (size_t b = 0; b < batch.rows; ++b) view.row[b] = ptrdiff_t((starts ? starts[b] : b) * width);
  return view;
}

// Lists n rows at a constant distance: the steps of a batch of one sequence.
template <class T> void evenly(T **to, T *from, ptrdiff_t step, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] = from + ptrdiff_t(i) * step;
}

// Everything a pass needs that does not change while it runs: sizes, directions, scratch rows.
template <class T> class Pass {
public:
  Pass(const Kernels<T> &kernels, const Shape &shape, const Packed<T> &weights, const Batch &batch,
       const Arrays<T> &arrays, std::vector<Buffer<T>> *outputs, std::vector<Buffer<T>> *inputs, const Plan &plan,
       bool training)
      : k(kernels), shape(shape), weights(weights), batch(batch), arrays(arrays), plan(plan), H(shape.hidden),
        Hp(round_up(shape.hidden, kernels.lanes)), R(shape.output()), Rp(round_up(R, kernels.lanes)),
        slots(kernels.gate_slots(shape.cell)), row(row_numbers(kernels, shape, training)) {
    size_t widest = std::max(Hp, Rp);
    for (size_t l = 0; l < shape.layers; ++l) widest = std::max(widest, shape.layer_input(l));
    zeros_ = Buffer<T>::zeroed(widest + kernels.lanes);
    directions.reserve(shape.count());
    for (size_t l = 0; l < shape.layers; ++l)
      for (size_t d = 0; d < shape.directions; ++d) directions.push_back(make(l, d, outputs, inputs));
    for (size_t i = 0; i < shape.count() && shape.settings; ++i) {
      options.push_back(*weights(i / shape.directions, i % shape.directions).options);
      if (training && keeps_slopes(shape.cell)) options.back().slopes = ptrdiff_t(slots * Hp);
      if (arrays.draws()) drawn_.push_back(drawn_for(i));
    }
  }

  // The leading dimension of packed rows. It is a cache line longer where all rows would fall into the same cache sets.
  static size_t round_up_row(size_t n) {
    const size_t line = 64 / sizeof(T);
    return n * sizeof(T) % 1024 == 0 ? n + line : n;
  }

  // The same for packed rows of a cell. In training its slopes lie behind its gates, where it has any.
  static size_t row_numbers(const Kernels<T> &k, const Shape &shape, bool training) {
    const size_t gates = k.gate_slots(shape.cell) * round_up(shape.hidden, k.lanes);
    return round_up_row(training && keeps_slopes(shape.cell) ? 2 * gates : gates);
  }

  const Kernels<T> &k;
  const Shape &shape;
  const Packed<T> &weights;
  const Batch &batch;
  const Arrays<T> &arrays;
  const Plan &plan;
  const size_t H, Hp, R, Rp, slots, row;
  std::vector<Direction<T>> directions;
  std::vector<CellOptions<T>> options; // by direction, of general cells

  // Whether options differ from step to step, because something is drawn for every step or sequence.
  bool draws() const { return !drawn_.empty(); }
  // The options of step s, for the sequences from r0 on.
  CellOptions<T> options_at(const Direction<T> &dir, size_t s, size_t r0) const {
    CellOptions<T> o = options[dir.index];
    const Drawn &drawn = drawn_[dir.index];
    if (drawn.zoned_h.base) o.zoned_h = drawn.zoned_h.read(s, r0);
    if (drawn.zoned_c.base) o.zoned_c = drawn.zoned_c.read(s, r0);
    if (drawn.noise.base) o.noise = drawn.noise.read(s, r0);
    if (arrays.dropped) o.dropped = {arrays.dropped + dir.index * batch.rows * R, drawn.dropped_at.data() + r0};
    return o;
  }

  // Whether the threads share the units of a step, and so need barriers within it.
  bool in_step(const Worker &w) const { return plan.split == Split::units && w.n_threads > 1; }
  // Whether one thread takes the steps and the others the products of other chunks, with a barrier after each chunk.
  bool pipelined(const Worker &w) const { return plan.split == Split::pipelined && w.n_threads > 1; }
  // Whether this thread takes steps; and the thread as it does, alone where the others compute products.
  bool takes_steps(const Worker &w) const { return !pipelined(w) || w.index == 0; }
  Worker stepping(const Worker &w) const { return pipelined(w) ? w.alone() : w; }
  // In how many pieces pipelined threads take a product: pieces of some microseconds, but few, since some of them pack
  // what they read.
  static size_t pieces(const Worker &w, size_t rows, size_t columns, size_t depth) {
    return std::min(size_t(2.0 * double(rows) * double(columns) * double(depth) / 5e5) + 1, 4 * size_t(w.n_threads));
  }
  // Part of a product: some panels, which no other thread reads then, or, where they are few, some rows.
  struct Piece {
    Range rows, panels;
  };
  static Piece piece(size_t index, size_t count, size_t rows, size_t panels) {
    const Part part = Part::even(index, count);
    if (panels >= count) return {{0, rows}, part(panels)};
    return {part(rows), {0, panels}};
  }
  // The rows a thread works on in steps [from, to): contiguous in sorted order, so that the order of every sum over
  // rows is the same for any number of threads; balanced by their numbers of these steps.
  Range rows_of(const Worker &w, size_t from, size_t to) const {
    if (plan.split == Split::units || w.n_threads == 1) return {0, batch.rows};
    const Part part = share_of(w);
    if (part.empty()) return {0, 0};
    // uneven shares are whole tiles, since a tile of fewer rows takes as long
    const size_t grain = w.team->shares_are_even() ? 1 : k.tile_rows(shape.cell);
    if (batch.uniform) return part(batch.rows, grain);
    const Range sums = part(batch.first(to) - batch.first(from));
    Range rows{0, batch.rows};
    size_t r = 0, sum = 0;
    const auto pass = [&](size_t until) {
      for (; r < batch.rows && sum < until; ++r)
        sum += batch.length[r] > from ? std::min(batch.length[r], to) - from : 0;
      return r;
    };
    rows.begin = pass(sums.begin);
    if (part.end < 1) rows.end = pass(sums.end);
    return rows;
  }
  Range panels_of(size_t panels, const Worker &w) const { return in_step(w) ? share(panels, w) : Range{0, panels}; }

private:
  struct Drawn {
    Track<const T> zoned_h, zoned_c, noise;
    SmallVector<ptrdiff_t> dropped_at; // [B] sorted row -> its factors
  };
  Drawn drawn_for(size_t index) const {
    Drawn drawn;
    const auto track = [&](const T *base) {
      if (!base) return Track<const T>();
      const View<const T> view = hidden_view<const T>(base + index * arrays.positions * H, batch, arrays.starts, H);
      return Track<const T>(view, batch, int(shape.runs_back(index % shape.directions)));
    };
    drawn.zoned_h = track(arrays.zoned_h);
    drawn.zoned_c = track(arrays.zoned_c);
    drawn.noise = track(arrays.noise);
    drawn.dropped_at.assign(batch.rows, 0);
    for (size_t r = 0; r < batch.rows; ++r) drawn.dropped_at[r] = ptrdiff_t(batch.order[r] * R);
    return drawn;
  }

  Direction<T> make(size_t l, size_t d, std::vector<Buffer<T>> *outputs, std::vector<Buffer<T>> *inputs) {
    Direction<T> dir;
    dir.layer = l;
    dir.direction = d;
    dir.index = l * shape.directions + d;
    dir.way = shape.runs_back(d);
    dir.input = l == 0 && !arrays.x ? 0 : shape.layer_input(l);
    if (l == 0) {
      if (arrays.x) dir.x = Track<const T>(arrays.x, batch, dir.way);
    } else {
      const T *from = inputs->empty() ? (*outputs)[l - 1].get() : (*inputs)[l - 1].get();
      dir.x = Track<const T>(hidden_view<const T>(from, batch, arrays.starts, dir.input), batch, dir.way);
    }
    if (l + 1 == shape.layers && !shape.merges())
      dir.y = Track<T>(arrays.y, batch, dir.way, d * R);
    else
      dir.y = Track<T>(hidden_view<T>((*outputs)[l].get(), batch, arrays.starts, shape.both()), batch, dir.way, d * R);
    dir.zeros = zeros_.get();
    dir.starts_at_zero = !arrays.h0;
    dir.h0 = arrays.h0 ? arrays.h0 + dir.index * (arrays.one_h0 ? 1 : batch.rows) * R : zeros_.get();
    dir.h0_at.assign(batch.rows, 0);
    if (arrays.h0 && !arrays.one_h0)
      for (size_t r = 0; r < batch.rows; ++r) dir.h0_at[r] = ptrdiff_t(batch.order[r] * R);
    return dir;
  }

  Buffer<T> zeros_;
  std::vector<Drawn> drawn_; // by direction
};

} // namespace fastrnn
