// The time loop forward: inference, training, and the recomputation of a checkpointed segment.
#pragma once

#include "engine/direction.hpp"
#include "engine/step_kernels.hpp"

namespace fastrnn {

// Where a forward pass over the steps from `begin` on keeps its gates and cell states.
template <class T> struct Storage {
  size_t begin = 0;
  T *gates = nullptr; // first row: first(begin); null: not kept
  T *c = nullptr;     // LSTM. kept: [B + rows][H], the state before `begin` first; else [B][H] in place
  bool keep_c = false;
  T *c_checkpoint = nullptr; // [segments][B][H]: copies of the state before every segment
  size_t segment = 0;
  bool write_h = true; // a recomputation leaves y alone
};

template <class T> class ForwardLoop {
  // How much a process can expect to keep in a last-level cache that it shares with others (docs/performance-log.md).
  static constexpr size_t last_level = size_t(14) << 20;

public:
  // keeps_gates: gates go where Storage says, of cells that have any to keep. recomputes: y has been computed already.
  ForwardLoop(Pass<T> &pass, bool keeps_gates, bool recomputes) : p(pass), kernels_(pass.k, pass.weights) {
    // A chunk of pre-activations should stay in the second-level cache, next to the weights. Where W does not fit in
    // there, the chunk gets half of that cache, since W is read once for all rows of a chunk. Where W and R do not fit
    // in the last-level cache together, every chunk reads both from memory, so a chunk has more rows that share them.
    const size_t bytes = p.row * sizeof(T), budget = size_t(192) << 10, l2 = caches().l2;
    size_t widest = 0;
    for (const auto &dir : p.directions) widest = std::max(widest, dir.input);
    const size_t w = widest * bytes, r = p.R * bytes;
    if (w <= l2 / 2)
      chunk_rows_ = std::max<size_t>(budget / bytes, 1);
    else if (w + r <= last_level || w <= last_level / 8)
      chunk_rows_ = std::min<size_t>(std::max<size_t>(l2 / 2 / bytes, 64), 256);
    else
      chunk_rows_ = 384;
    const size_t total = std::max<size_t>(p.batch.total(), 1);
    chunk_rows_ = p.plan.w_in_pieces ? total : std::min(chunk_rows_, total); // every chunk would pack W anew
    const bool pipelined = p.plan.split == Split::pipelined;
    // the first product and the last steps run with nothing beside them: short chunks keep both short
    if (pipelined) chunk_rows_ = std::min(chunk_rows_, std::max<size_t>(total / 8, 24));
    const size_t rows = std::max(chunk_rows_, p.batch.rows), width = std::max(p.H, p.R);
    at_.assign(p.batch.rows, 0);
    for (size_t r = 0; r < p.batch.rows; ++r) at_[r] = ptrdiff_t(r * width);
    // a call of a single step, for instance, needs none of these
    const bool two_products = p.shape.proj || resets_before(p.shape.cell);
    const bool lists = !p.plan.fuse_input || two_products;
    const bool kept = keeps_gates && p.k.saved_slots(p.shape.cell) > 0;
    scratch_ = std::vector<Scratch>(size_t(p.plan.threads));
    for (Scratch &scratch : scratch_) {
      scratch.x = Buffer<const T *>(lists ? rows : 0);
      scratch.to = Buffer<T *>(lists ? rows : 0);
      const bool own = &scratch == &scratch_[0] || !(pipelined || p.plan.split == Split::units);
      for (int i = 0; i < (pipelined ? 2 : 1); ++i)
        scratch.chunk[i] = Buffer<T>(own && lists && !kept ? product(rows, p.row) : 0);
      scratch.nowhere = Buffer<T>(own && recomputes ? product(p.batch.rows, width) : 0);
      scratch.dropped = Buffer<T>(p.arrays.dropped ? product(p.batch.rows, width) : 0);
      scratch.m = Buffer<T>(own && two_products ? product(p.batch.rows, width) : 0);
      if (p.draws()) scratch.options = std::make_unique<CellOptions<T>>();
      scratch.low = Buffer<uint8_t>(kernels_.scratch_bytes());
    }
  }

  // One thread's part of steps [from, to). Returns false when interrupted. Where they are pipelined, the first thread
  // takes the steps of a span, and all of them, as they come, the input product of the next span.
  bool run(const Worker &w, const Direction<T> &dir, const Storage<T> &store, size_t from, size_t to) {
    const bool product_first = dir.input && !p.plan.fuse_input, pipelined = p.pipelined(w);
    if (pipelined && !product_first) return w.index ? true : run(w.alone(), dir, store, from, to);
    Task task(p, p.stepping(w), dir, store, product_first, {from, to});
    ForwardStep<T> step = constant_part(task);
    Span next = span(task, from, to, 0);
    if (pipelined) {
      product_in_pieces(w, task, next);
      if (!w.wait_and_share()) return false;
    }
    while (next.begin < to) {
      const Span now = next;
      if (!now.widest && !p.in_step(w)) break;
      if (product_first && !pipelined) input_product(task, {{0, list_rows(task, now)}, task.input_panels});
      if (p.takes_steps(w) && !steps(task, now, step)) return false;
      next = span(task, now.end, to, pipelined ? now.buffer ^ 1 : 0);
      if (!pipelined) continue;
      product_in_pieces(w, task, next);
      if (!w.wait_and_share()) return false;
    }
    return true;
  }

private:
  // What one run is about. w: the thread as it takes steps.
  struct Task {
    const Worker w;
    const Direction<T> &dir;
    const Storage<T> &store;
    const PackedDirection<T> &weights;
    const bool product_first, keep;
    const Range rows;
    const size_t own; // whose buffers the rows of this thread lie in
    // What this thread computes, until work shares change; `part`: its panels as a part of all.
    Range panels, input_panels, candidate_panels, output_panels;
    double part = 1;
    unsigned changes = 0;

    Task(const Pass<T> &p, const Worker &w, const Direction<T> &dir, const Storage<T> &store, bool product_first,
         const Range &steps)
        : w(w), dir(dir), store(store), weights(p.weights(dir.layer, dir.direction)), product_first(product_first),
          keep(store.gates && p.k.saved_slots(p.shape.cell) > 0), rows(p.rows_of(w, steps.begin, steps.end)),
          own(p.plan.split == Split::units || p.plan.split == Split::pipelined ? 0 : size_t(w.thread)) {
      take_share(p);
    }
    void take_share(const Pass<T> &p) {
      const size_t all = p.k.gate_panels(p.shape.step_gates(), p.H);
      panels = p.panels_of(all, w);
      input_panels = p.panels_of(p.k.gate_panels(p.shape.gates(), p.H), w);
      candidate_panels = p.panels_of(p.k.gate_panels(1, p.H), w);
      output_panels = p.panels_of(p.k.plain_panels(p.R), w);
      part = double(panels.size()) / double(all);
    }
  };

  // Steps whose pre-activations are computed together. Each has `widest` rows in the buffer, as many as the first.
  struct Span {
    size_t begin, end, widest;
    unsigned buffer; // which of the two, where threads are pipelined
  };

  size_t active(const Task &task, size_t s) const {
    const size_t n = p.batch.active(s);
    return n > task.rows.begin ? std::min(n, task.rows.end) - task.rows.begin : 0;
  }
  Span span(const Task &task, size_t begin, size_t to, unsigned buffer) const {
    if (begin >= to) return {begin, begin, 0, buffer};
    const size_t widest = active(task, begin);
    const size_t end = widest ? std::min(to, begin + std::max<size_t>(chunk_rows_ / widest, 1)) : to;
    return {begin, end, widest, buffer};
  }
  // the first row of the pre-activations of step s
  T *pre(const Task &task, const Span &span, size_t s) {
    const Batch &batch = p.batch;
    if (task.keep) return task.store.gates + (batch.first(s) - batch.first(task.store.begin) + task.rows.begin) * p.row;
    return scratch_[task.own].chunk[span.buffer].get() + (s - span.begin) * span.widest * p.row;
  }

  // Lists the rows of x and of the pre-activations. Returns how many there are.
  size_t list_rows(const Task &task, const Span &span) {
    const T **x = scratch_[size_t(task.w.thread)].x.get();
    T **to = scratch_[size_t(task.w.thread)].to.get();
    size_t n = 0;
    if (p.batch.rows == 1) {
      n = span.end - span.begin;
      evenly(x, task.dir.x(span.begin, 0), task.dir.x.step, n);
      evenly(to, pre(task, span, span.begin), ptrdiff_t(p.row), n);
      return n;
    }
    for (size_t s = span.begin; s < span.end; ++s) {
      T *row = pre(task, span, s);
      const Rows<const T> from = task.dir.x.read(s, task.rows.begin);
      for (size_t r = 0, m = active(task, s); r < m; ++r, ++n, row += p.row) {
        x[n] = from[r];
        to[n] = row;
      }
    }
    return n;
  }

  // W x + b of some of the listed rows
  void input_product(const Task &task, const typename Pass<T>::Piece &piece) {
    Product<T> q;
    q.rows = piece.rows.size();
    q.depth = task.dir.input;
    q.first_panel = piece.panels.begin;
    q.last_panel = piece.panels.end;
    q.a = scratch_[size_t(task.w.thread)].x.get() + piece.rows.begin;
    q.out = scratch_[size_t(task.w.thread)].to.get() + piece.rows.begin;
    q.init = task.weights.bias.get();
    q.columns = p.H;
    kernels_.input_product(q, task.weights, low_scratch(task));
  }

  // The same for a whole span, cut into pieces that threads take one by one.
  void product_in_pieces(const Worker &w, const Task &task, const Span &span) {
    const size_t rows = p.batch.first(span.end) - p.batch.first(span.begin);
    if (!rows) return;
    const size_t pieces = p.pieces(w, rows, p.shape.gates() * p.H, task.dir.input);
    bool listed = false;
    for (size_t i; (i = w.take()) < pieces; listed = true) {
      if (!listed) list_rows(task, span);
      input_product(task, p.piece(i, pieces, rows, task.input_panels.size()));
    }
  }

  // The part of a step's arguments that is the same in all steps.
  ForwardStep<T> constant_part(const Task &task) {
    const Direction<T> &dir = task.dir;
    const PackedDirection<T> &weights = task.weights;
    ForwardStep<T> step;
    step.hidden = p.H;
    step.init = weights.bias.get();
    step.ld_init = task.product_first ? p.row : 0;
    step.h_prev_step = dir.y.step;
    step.h_step = task.store.write_h ? dir.y.step : 0;
    if (dir.input && !task.product_first) {
      step.x_step = dir.x.step;
      step.input = dir.input;
      step.w = weights.w.get();
      step.w_rows = weights.w_rows;
    }
    step.r = weights.r.get();
    step.r_rows = weights.r_rows;
    if (p.shape.settings)
      step.options = &p.options[dir.index];
    else
      step.bias_n = weights.bias_n.get();
    step.zeros = dir.zeros;
    step.ld_gates = p.row;
    step.ld_c = p.Hp;
    if (p.shape.has_c()) step.c_prev = step.c = task.store.c + task.rows.begin * p.Hp;
    if (p.shape.proj) step.h = Rows<T>{scratch_[task.own].m.get(), at_.data() + task.rows.begin};
    if (resets_before(p.shape.cell)) {
      step.ld_rh = std::max(p.H, p.R);
      step.rh = scratch_[task.own].m.get() + task.rows.begin * step.ld_rh;
    }
    return step;
  }

  bool steps(Task &task, const Span &span, ForwardStep<T> &step) {
    const Worker &w = task.w;
    const Direction<T> &dir = task.dir;
    const Storage<T> &store = task.store;
    const Shape &shape = p.shape;
    const bool before = resets_before(shape.cell);
    const size_t r0 = task.rows.begin, work = shape.gates() * p.H * (p.R + dir.input);
    for (size_t s = span.begin; s < span.end; s += step.steps) {
      const size_t n = active(task, s);
      const bool from_zero = s == 0 && dir.starts_at_zero; // R h_0 is zero
      step.recurrent = from_zero ? 0 : p.R;
      step.rows = n;
      step.steps = steps_at_once(w, dir, store, s, span.end, work * n);
      step.descending = s % 2 == 1;
      step.first_panel = task.panels.begin;
      step.last_panel = task.panels.end;
      const size_t all = p.batch.active(s); // sequences at this step, those of other threads too
      if (task.product_first) {
        step.init = pre(task, span, s);
        step.init_step = ptrdiff_t((task.keep ? all : span.widest) * p.row);
      }
      if (dir.input && !task.product_first) step.x = dir.x.read(s, r0);
      step.h_prev = dir.h_prev(s, r0);
      if (p.draws()) take_drawn(task, s, n, step);
      const uint8_t *reset = p.batch.reset_at(dir.way, s);
      step.reset = reset ? reset + r0 : nullptr;
      if (task.keep || before) step.gates = pre(task, span, s);
      if (task.keep) step.gates_step = ptrdiff_t(all * p.row);
      if (shape.has_c()) {
        if (store.keep_c) {
          const size_t at = p.batch.rows + p.batch.first(s) - p.batch.first(store.begin);
          const size_t at_prev =
              s == store.begin ? 0 : p.batch.rows + p.batch.first(s - 1) - p.batch.first(store.begin);
          step.c = store.c + (at + r0) * p.Hp;
          step.c_prev = store.c + (at_prev + r0) * p.Hp;
          step.c_step = ptrdiff_t(all * p.Hp);
        } else if (store.segment && s % store.segment == 0) {
          copy_c(store, s, r0, n, task.panels);
        }
      }
      const Rows<T> h = store.write_h ? dir.y.rows(s, r0) : Rows<T>{scratch_[task.own].nowhere.get(), at_.data() + r0};
      if (!shape.proj) step.h = h;
      if (n) kernels_.forward(step, task.weights, low_scratch(task));
      if (before) {
        if (p.in_step(w) && !w.wait()) return false;
        ForwardStep<T> second = step;
        second.first_panel = task.candidate_panels.begin;
        second.last_panel = task.candidate_panels.end;
        second.recurrent = from_zero ? 0 : p.H;
        if (n) kernels_.forward_candidate(second, task.weights, low_scratch(task));
      }
      if (shape.proj && store.write_h) {
        if (p.in_step(w) && !w.wait()) return false;
        project(task, step.h, h, n);
      }
      w.poll(work * std::max<size_t>(n, 1) * step.steps);
      w.did(task.part * double(work * n * step.steps));
      if (p.in_step(w) ? !w.wait_and_share() : w.stopped()) return false;
      if (w.share_changed(task.changes)) task.take_share(p);
    }
    return true;
  }

  // The options of a step for which something is drawn. With recurrent dropout the product reads m h_{t-1}; threads
  // that share units compute all of it, each for itself, since a barrier would cost more.
  void take_drawn(const Task &task, size_t s, size_t n, ForwardStep<T> &step) {
    Scratch &own = scratch_[size_t(task.w.thread)];
    *own.options = p.options_at(task.dir, s, task.rows.begin);
    step.options = own.options.get();
    if (!own.options->dropped.base) return;
    own.options->h_direct = step.h_prev;
    const Rows<T> to{own.dropped.get(), at_.data() + task.rows.begin};
    for (size_t r = 0; r < n; ++r) {
      const T *const h = own.options->h_direct[r], *const m = own.options->dropped[r];
      for (size_t i = 0; i < p.R; ++i) to[r][i] = h[i] * m[i];
    }
    step.h_prev = {to.base, to.at};
  }

  // h = W_hr m
  void project(const Task &task, const Rows<T> &m, const Rows<T> &h, size_t n) {
    const T **from = scratch_[size_t(task.w.thread)].x.get();
    T **to = scratch_[size_t(task.w.thread)].to.get();
    for (size_t r = 0; r < n; ++r) {
      from[r] = m[r];
      to[r] = h[r];
    }
    Product<T> q;
    q.rows = n;
    q.depth = p.H;
    q.first_panel = task.output_panels.begin;
    q.last_panel = task.output_panels.end;
    q.a = from;
    q.out = to;
    q.columns = p.R;
    kernels_.project(q, task.weights, low_scratch(task));
  }

  // How many steps, from s on, one call of the kernel may take: as long as nothing else is to be done in between.
  size_t steps_at_once(const Worker &w, const Direction<T> &dir, const Storage<T> &store, size_t s, size_t end,
                       size_t work) const {
    if (s == 0 || !work || p.in_step(w) || p.draws() || p.shape.proj || resets_before(p.shape.cell))
      return 1; // step 0: h_0
    size_t most = std::min(end - s, w.steps_between_polls(work));
    if (store.segment) most = std::min(most, store.segment - s % store.segment);
    return std::max<size_t>(p.batch.alike(dir.way, s, most, 1), 1);
  }

  void copy_c(const Storage<T> &store, size_t s, size_t r0, size_t n, Range panels) {
    const size_t first = panels.begin * p.k.lanes, last = panels.end * p.k.lanes;
    T *to = store.c_checkpoint + s / store.segment * p.batch.rows * p.Hp;
    for (size_t r = r0; r < r0 + n; ++r)
      std::memcpy(to + r * p.Hp + first, store.c + r * p.Hp + first, (last - first) * sizeof(T));
  }

  uint8_t *low_scratch(const Task &task) { return scratch_[size_t(task.w.thread)].low.get(); }

  Pass<T> &p;
  const StepKernels<T> kernels_;
  size_t chunk_rows_;
  struct Scratch {
    Buffer<const T *> x;
    Buffer<T *> to;
    Buffer<T> chunk[2];                      // the second one where threads are pipelined
    Buffer<T> m, nowhere;                    // [B][max(H, output)]
    Buffer<T> dropped;                       // the same, of the thread itself: m h_{t-1} of recurrent dropout
    std::unique_ptr<CellOptions<T>> options; // of the current step, where they differ from step to step
    Buffer<uint8_t> low;                     // for small weights
  };
  std::vector<Scratch> scratch_; // by thread; where threads share units or are pipelined, all use the rows of the first
  SmallVector<ptrdiff_t> at_;
};

} // namespace fastrnn
