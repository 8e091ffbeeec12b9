// The time loop forward: inference, training, and the recomputation of a checkpointed segment.
#pragma once

#include "direction.hpp"

namespace fastrnn {

// Where a forward pass over steps [begin, end) keeps its gates and cell states.
template <class T> struct Storage {
  size_t begin = 0, end = 0;
  T *gates = nullptr; // first row: first(begin); null: not kept
  T *c = nullptr;     // LSTM. kept: [B + rows][H], the state before `begin` first; else [B][H] in place
  bool keep_c = false;
  T *c_checkpoint = nullptr; // [segments][B][H]: copies of the state before every segment
  size_t segment = 0;
  bool write_h = true; // a recomputation leaves y alone
};

template <class T> class ForwardLoop {
public:
  ForwardLoop(Pass<T> &pass, bool recomputes) : p(pass) {
    // A chunk of pre-activations is to stay in the second-level cache next to the weights; but where W does not
    // fit in there either, half of that cache goes to them, since W is read once for all rows of a chunk.
    const size_t bytes = p.row * sizeof(T), budget = size_t(192) << 10, l2 = caches().l2;
    size_t widest = 0;
    for (const auto &dir : p.directions) widest = std::max(widest, dir.input);
    const bool large = widest * bytes > l2 / 2;
    chunk_rows_ =
        large ? std::min<size_t>(std::max<size_t>(l2 / 2 / bytes, 64), 256) : std::max<size_t>(budget / bytes, 1);
    const size_t total = std::max<size_t>(p.batch.total(), 1);
    chunk_rows_ = p.plan.w_in_pieces ? total : std::min(chunk_rows_, total); // every chunk would pack W anew
    const size_t rows = std::max(chunk_rows_, p.batch.rows), width = std::max(p.H, p.R);
    const bool shared = p.plan.split == Split::units;
    at_.resize(p.batch.rows);
    for (size_t r = 0; r < p.batch.rows; ++r) at_[r] = ptrdiff_t(r * width);
    // a single step, say, needs none of these
    const bool before = p.shape.cell == Cell::gru_before, two_products = p.shape.proj || before;
    const bool lists = !p.plan.fuse_input || two_products;
    for (int i = 0; i < p.plan.threads; ++i) {
      x_.emplace_back(lists ? rows : 0);
      to_.emplace_back(lists ? rows : 0);
      if (shared && i > 0) continue;
      chunk_.emplace_back(lists ? product(rows, p.row) : 0);
      nowhere_.emplace_back(recomputes ? product(p.batch.rows, width) : 0);
      m_.emplace_back(two_products ? product(p.batch.rows, width) : 0);
    }
  }

  // One thread's part of steps [from, to). False: interrupted.
  bool run(const Worker &w, const Direction<T> &dir, const Storage<T> &store, size_t from, size_t to_step) {
    const Shape &shape = p.shape;
    const PackedDirection<T> &weights = p.weights(dir.layer, dir.direction);
    const bool before = shape.cell == Cell::gru_before, saves = p.k.saved_slots(shape.cell) > 0;
    const Range rows = p.rows_of(w);
    const Range panels = p.panels_of(p.k.gate_panels(shape.step_gates(), p.H), w);
    const Range input_panels = p.panels_of(p.k.gate_panels(shape.gates(), p.H), w);
    const Range candidate_panels = p.panels_of(p.k.gate_panels(1, p.H), w);
    const Range output_panels = p.panels_of(p.k.plain_panels(p.R), w);
    const bool product_first = dir.input && !p.plan.fuse_input, keep = store.gates && saves;
    const size_t own = p.plan.split == Split::units ? 0 : size_t(w.thread);
    T *const chunk = chunk_[own].get();
    const T **x = x_[size_t(w.thread)].get();
    T **to = to_[size_t(w.thread)].get();
    const size_t step_work = shape.gates() * p.H * (p.R + dir.input);

    auto active = [&](size_t s) {
      const size_t n = p.batch.active(s);
      return n > rows.begin ? std::min(n, rows.end) - rows.begin : 0;
    };
    ForwardStep<T> step; // what does not change from step to step
    step.hidden = p.H;
    step.first_panel = panels.begin;
    step.last_panel = panels.end;
    step.init = weights.bias.get();
    step.ld_init = product_first ? p.row : 0;
    step.h_prev_step = dir.y.step;
    step.h_step = store.write_h ? dir.y.step : 0;
    if (dir.input && !product_first) {
      step.x_step = dir.x.step;
      step.input = dir.input;
      step.w = weights.w.get();
      step.w_rows = weights.w_rows;
    }
    step.recurrent = p.R;
    step.r = weights.r.get();
    step.r_rows = weights.r_rows;
    step.bias_n = weights.bias_n.get();
    step.zeros = dir.zeros;
    step.ld_gates = p.row;
    step.ld_c = p.Hp;
    if (shape.has_c()) step.c_prev = step.c = store.c + rows.begin * p.Hp;
    if (shape.proj) step.h = Rows<T>{m_[own].get(), at_.data() + rows.begin};
    if (before) {
      step.ld_rh = std::max(p.H, p.R);
      step.rh = m_[own].get() + rows.begin * step.ld_rh;
    }
    for (size_t s0 = from; s0 < to_step;) {
      const size_t widest = active(s0);
      if (!widest && !p.in_step(w)) break;
      const size_t s1 = widest ? std::min(to_step, s0 + std::max<size_t>(chunk_rows_ / widest, 1)) : to_step;
      // row 0 of step s
      auto pre = [&](size_t s) {
        return keep ? store.gates + (p.batch.first(s) - p.batch.first(store.begin) + rows.begin) * p.row
                    : chunk + (s - s0) * widest * p.row;
      };
      if (product_first) {
        size_t n = 0;
        for (size_t s = s0; s < s1; ++s) {
          T *row = pre(s);
          const Rows<const T> from = dir.x.read(s, rows.begin);
          for (size_t r = 0, m = active(s); r < m; ++r, ++n, row += p.row) {
            x[n] = from[r];
            to[n] = row;
          }
        }
        Product<T> q;
        q.rows = n;
        q.depth = dir.input;
        q.first_panel = input_panels.begin;
        q.last_panel = input_panels.end;
        q.a = x;
        q.out = to;
        q.b = weights.w.get();
        q.b_rows = weights.w_rows;
        q.init = weights.bias.get();
        q.columns = p.H;
        p.k.gate_product(q, shape.cell);
      }
      for (size_t s = s0; s < s1; s += step.steps) {
        const size_t n = active(s);
        step.rows = n;
        step.steps = steps_at_once(w, dir, store, s, s1, step_work * n);
        step.descending = s % 2 == 1;
        const size_t all = p.batch.active(s); // of all threads
        if (product_first) {
          step.init = pre(s);
          step.init_step = ptrdiff_t((keep ? all : widest) * p.row);
        }
        if (dir.input && !product_first) step.x = dir.x.read(s, rows.begin);
        step.h_prev = dir.h_prev(s, rows.begin);
        const uint8_t *reset = p.batch.reset_at(int(dir.direction), s);
        step.reset = reset ? reset + rows.begin : nullptr;
        if (keep || before) step.gates = pre(s);
        if (keep) step.gates_step = ptrdiff_t(all * p.row);
        if (shape.has_c()) {
          if (store.keep_c) {
            const size_t at = p.batch.rows + p.batch.first(s) - p.batch.first(store.begin);
            const size_t at_prev =
                s == store.begin ? 0 : p.batch.rows + p.batch.first(s - 1) - p.batch.first(store.begin);
            step.c = store.c + (at + rows.begin) * p.Hp;
            step.c_prev = store.c + (at_prev + rows.begin) * p.Hp;
            step.c_step = ptrdiff_t(all * p.Hp);
          } else if (store.segment && s % store.segment == 0) {
            copy_c(store, s, rows.begin, n, panels);
          }
        }
        const Rows<T> h =
            store.write_h ? dir.y.rows(s, rows.begin) : Rows<T>{nowhere_[own].get(), at_.data() + rows.begin};
        if (!shape.proj) step.h = h;
        if (n) p.k.forward[int(shape.cell)](step);
        if (before) {
          if (p.in_step(w) && !w.meet()) return false;
          ForwardStep<T> second = step;
          second.first_panel = candidate_panels.begin;
          second.last_panel = candidate_panels.end;
          second.recurrent = p.H;
          second.r = weights.r_n.get();
          if (n) p.k.forward_candidate(second);
        }
        if (shape.proj && store.write_h) {
          if (p.in_step(w) && !w.meet()) return false;
          for (size_t r = 0; r < n; ++r) {
            x[r] = step.h[r];
            to[r] = h[r];
          }
          Product<T> q;
          q.rows = n;
          q.depth = p.H;
          q.first_panel = output_panels.begin;
          q.last_panel = output_panels.end;
          q.a = x;
          q.out = to;
          q.b = weights.project.get();
          q.columns = p.R;
          p.k.plain_product(q);
        }
        w.poll(step_work * std::max<size_t>(n, 1) * step.steps);
        if (p.in_step(w) ? !w.meet() : w.stopped()) return false;
      }
      s0 = s1;
    }
    return true;
  }

private:
  // How many steps from s on one call of the kernel may take: those between which nothing else is to be done.
  size_t steps_at_once(const Worker &w, const Direction<T> &dir, const Storage<T> &store, size_t s, size_t end,
                       size_t work) const {
    if (s == 0 || !work || p.in_step(w) || p.shape.proj || p.shape.cell == Cell::gru_before) return 1; // step 0: h_0
    size_t most = std::min(end - s, w.steps_between_polls(work));
    if (store.segment) most = std::min(most, store.segment - s % store.segment);
    return std::max<size_t>(p.batch.alike(int(dir.direction), s, most, 1), 1);
  }

  void copy_c(const Storage<T> &store, size_t s, size_t r0, size_t n, Range panels) {
    const size_t first = panels.begin * p.k.lanes, last = panels.end * p.k.lanes;
    T *to = store.c_checkpoint + s / store.segment * p.batch.rows * p.Hp;
    for (size_t r = r0; r < r0 + n; ++r)
      std::memcpy(to + r * p.Hp + first, store.c + r * p.Hp + first, (last - first) * sizeof(T));
  }

  Pass<T> &p;
  size_t chunk_rows_;
  std::vector<Buffer<T>> chunk_; // one a thread; one for all where they share units
  std::vector<Buffer<const T *>> x_;
  std::vector<Buffer<T *>> to_;
  std::vector<Buffer<T>> m_, nowhere_; // [B][max(H, output)]
  std::vector<ptrdiff_t> at_;
};

} // namespace fastrnn
