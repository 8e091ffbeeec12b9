// BPTT through one direction of one layer: start, chunk by chunk back in time, finish.
#pragma once

#include <memory>

#include "engine/bptt_buffers.hpp"
#include "engine/chunk_gradients.hpp"
#include "engine/forward.hpp"

namespace fastrnn {

// How far back a direction is.
struct Position {
  bool started = false;
  size_t end = 0;       // steps still to go
  size_t kept_from = 0; // first step whose gates are at hand
  unsigned buffer = 0;  // which of the two the next chunk uses
  Chunk behind;         // where threads are pipelined: the chunk whose products are still to be computed
};

template <class T> class BackwardLoop {
public:
  BackwardLoop(Pass<T> &pass, Tape<T> &tape, const Gradients<T> &gradients)
      : p(pass), tape_(tape), g_(gradients), buffers_(pass, tape, gradients),
        products_(p, g_, buffers_.ld_d, buffers_.held) {
    if (tape.segment) loop_ = std::make_unique<ForwardLoop<T>>(p, true, true);
  }

  bool start(const Worker &w, const Direction<T> &dir, Position &at) {
    load_state(w, dir);
    buffers_.prepare_dy(w, dir);
    at = {true, p.batch.steps, tape_.segment ? p.batch.steps : 0, 0, {}};
    return w.wait_and_share();
  }

  // The first step of the next chunk, where there are any steps to go.
  size_t chunk_begin(const Position &at) const {
    const size_t end = at.end, kept_from = segment_of(at);
    if (p.batch.uniform && p.batch.rows)
      return end - std::min(end - kept_from, std::max<size_t>(buffers_.chunk_rows / p.batch.rows, 1));
    size_t begin = end - 1, rows = p.batch.active(begin);
    while (begin > kept_from && rows + p.batch.active(begin - 1) <= buffers_.chunk_rows)
      rows += p.batch.active(--begin);
    return begin;
  }

  bool chunk(const Worker &w, const Direction<T> &dir, Position &at) {
    const Chunk chunk{chunk_begin(at), at.end, segment_of(at), at.buffer};
    const bool pipelined = p.pipelined(w);
    if (p.takes_steps(w) && !steps(p.stepping(w), dir, at, chunk)) return false;
    if (pipelined) products_behind(w, dir, at);
    // The products need every row and unit of the chunk. Gradient rows alternate between two buffers, so that
    // no second barrier is needed before the next chunk overwrites them.
    if (!w.wait_and_share()) return false;
    if (!pipelined) products_.add(w, dir, workspace(dir), chunk, buffers_.tracks(dir).dx, buffers_.adds_to_dx(dir));
    w.poll((p.batch.first(chunk.end) - p.batch.first(chunk.begin)) * p.shape.gates() * p.H * (p.R + dir.input) * 2);
    at.behind = chunk;
    at.kept_from = chunk.kept_from;
    at.end = chunk.begin;
    at.buffer ^= 1;
    return !w.stopped();
  }

  bool finish(const Worker &w, const Direction<T> &dir, const Position &at) {
    if (p.takes_steps(w)) initial_state(p.stepping(w), dir, workspace(dir).d[at.buffer ^ 1].get());
    if (p.pipelined(w)) products_behind(w, dir, at);
    if (!w.wait_and_share()) return false;
    store_initial_state(w, dir);
    products_.finish(w, dir);
    return w.wait_and_share();
  }

  // What goes on to the layer below, when a direction or a layer is done.
  BackwardBuffers<T> &buffers() { return buffers_; }

private:
  void products_behind(const Worker &w, const Direction<T> &dir, const Position &at) {
    products_.add_in_pieces(w, dir, workspace(dir), at.behind, buffers_.tracks(dir).dx, buffers_.adds_to_dx(dir));
  }
  size_t segment_of(const Position &at) const {
    if (!tape_.segment || at.end > at.kept_from) return at.kept_from;
    return (at.end - 1) / tape_.segment * tape_.segment;
  }
  Workspace<T> &workspace(const Direction<T> &dir) { return buffers_.workspace(dir); }

  // Carries start from dL/dh_n and dL/dc_n
  void load_state(const Worker &w, const Direction<T> &dir) {
    const Batch &batch = p.batch;
    Workspace<T> &own = workspace(dir);
    const Range rows = share(batch.rows, w);
    const size_t width = p.shape.width();
    for (size_t r = rows.begin; r < rows.end; ++r) {
      const size_t b = dir.index * batch.rows + batch.order[r];
      T *h = own.carry_h.get() + r * buffers_.ld_carry;
      std::memset(h, 0, buffers_.ld_carry * sizeof(T));
      if (g_.dh_n) std::memcpy(h, g_.dh_n + b * p.R, p.R * sizeof(T));
      if (buffers_.last_only(dir) && dir.way == 0 && batch.length[r]) {
        const T *last = g_.dy_last + batch.order[r] * width;
        for (size_t i = 0; i < p.R; ++i) h[i] += last[i];
      }
      if (!p.shape.has_c()) continue;
      T *c = own.carry_c.get() + r * buffers_.ld_carry;
      std::memset(c, 0, buffers_.ld_carry * sizeof(T));
      if (g_.dc_n) std::memcpy(c, g_.dc_n + b * p.H, p.H * sizeof(T));
    }
  }
  // Computes the gates (and cell states) of a checkpointed segment again.
  bool recompute(const Worker &w, const Direction<T> &dir, size_t begin, size_t end) {
    if (!p.k.saved_slots(p.shape.cell)) return true; // an Elman cell needs y alone
    if (!w.wait()) return false;                     // no thread reads the segment before this one any more
    Workspace<T> &own = workspace(dir);
    Storage<T> store;
    store.begin = begin;
    store.gates = own.segment_gates.get();
    store.write_h = false;
    if (p.shape.has_c()) {
      store.c = own.segment_c.get();
      store.keep_c = true;
      const Range rows = p.rows_of(w, begin, end), blocks = p.panels_of(p.Hp / p.k.lanes, w);
      const T *from = tape_.directions[dir.index].c_checkpoint.get() + begin / tape_.segment * p.batch.rows * p.Hp;
      const size_t first = blocks.begin * p.k.lanes, bytes = blocks.size() * p.k.lanes * sizeof(T);
      for (size_t r = rows.begin; r < std::min(rows.end, p.batch.active(begin)); ++r)
        std::memcpy(store.c + r * p.Hp + first, from + r * p.Hp + first, bytes);
    }
    if (!loop_->run(w, dir, store, begin, end)) return false;
    return w.wait(); // backward gives threads other units than forward did
  }

  // All steps of the chunk, one after the other.
  bool steps(const Worker &w, const Direction<T> &dir, const Position &at, const Chunk &chunk) {
    if (tape_.segment && chunk.kept_from != at.kept_from && !recompute(w, dir, chunk.kept_from, at.end)) return false;
    const Range rows = p.rows_of(w, chunk.begin, chunk.end);
    for (size_t end = chunk.end, taken = 0; end > chunk.begin; end -= taken) {
      taken = steps_at_once(w, dir, end - 1, chunk);
      if (!step(w, dir, end - 1, chunk, taken, rows)) return false;
    }
    return true;
  }

  // How many steps from s back one call of the kernel may take: those between which nothing else is to be done, and
  // whose neighbours in time are like them.
  size_t steps_at_once(const Worker &w, const Direction<T> &dir, size_t s, const Chunk &chunk) const {
    if (p.in_step(w) || p.shape.proj || p.shape.cell == Cell::gru_before || s + 1 == chunk.end) return 1;
    const size_t first = std::max(std::max(chunk.begin, chunk.kept_from + 1), size_t(1)); // c_0 and h_0 lie elsewhere
    const size_t work = p.shape.gates() * p.H * p.R * p.batch.active(s);
    if (s <= first || !work) return 1;
    const size_t steps = std::min(s + 1 - first, w.steps_between_polls(work));
    const size_t alike = p.batch.alike(dir.way, s + 1, steps + 2, -1);
    return alike > 3 ? alike - 2 : 1;
  }

  // One step of one thread, with the barriers that a split by units needs; or several steps, without any.
  bool step(const Worker &w, const Direction<T> &dir, size_t s, const Chunk &chunk, size_t steps, const Range &rows) {
    const Batch &batch = p.batch;
    Workspace<T> &own = workspace(dir);
    const Shape &shape = p.shape;
    const PackedDirection<T> &weights = p.weights(dir.layer, dir.direction);
    const TapeDirection<T> &kept = tape_.directions[dir.index];
    const bool before = shape.cell == Cell::gru_before;
    auto mine = [&](size_t n) { return n > rows.begin ? std::min(n, rows.end) - rows.begin : 0; };
    const size_t n = mine(batch.active(s));
    const size_t continuing = s + 1 < batch.steps ? mine(batch.active(s + 1)) : 0;
    const size_t all_panels = p.k.plain_panels(p.H);
    const Range panels = p.panels_of(all_panels, w);
    const Range output_panels = p.panels_of(p.k.plain_panels(p.R), w);
    const uint8_t *cut = batch.reset_at(dir.way, s + 1);
    const uint8_t *reset = batch.reset_at(dir.way, s);
    const size_t base = tape_.segment ? batch.first(chunk.kept_from) : 0;
    const T *gates = tape_.segment ? own.segment_gates.get() : kept.gates.get();
    const T *c = tape_.segment ? own.segment_c.get() : kept.c.get();
    const size_t row = batch.first(s) + rows.begin - base;                       // on the tape
    const size_t row_d = batch.first(s) + rows.begin - batch.first(chunk.begin); // in the chunk

    BackwardStep<T> q;
    q.steps = steps;
    q.rows = n;
    q.continuing = continuing;
    q.first_panel = panels.begin;
    q.last_panel = panels.end;
    q.hidden = p.H;
    q.descending = s % 2 == 1;
    q.dy = buffers_.dy(dir, s, rows.begin);
    q.cut = cut ? cut + rows.begin : nullptr;
    q.carry_h = own.carry_h.get() + rows.begin * buffers_.ld_carry;
    q.ld_carry = buffers_.ld_carry;
    q.gates = gates + row * p.row;
    q.ld_gates = p.row;
    if (shape.has_c()) {
      q.carry_c = own.carry_c.get() + rows.begin * buffers_.ld_carry;
      q.c = c + (batch.rows + row) * p.Hp;
      const size_t row_prev = s == chunk.kept_from ? rows.begin : batch.rows + batch.first(s - 1) + rows.begin - base;
      q.c_prev = c + row_prev * p.Hp;
      q.ld_c = p.Hp;
    }
    q.h = dir.y.read(s, rows.begin);
    q.h_prev = dir.h_prev(s, rows.begin);
    q.reset = reset ? reset + rows.begin : nullptr;
    q.zeros = dir.zeros;
    q.r = weights.r_back.get();
    q.r_rows = weights.r_back_rows;
    q.depth = shape.step_gates() * p.H;
    q.ld_later = buffers_.ld_d;
    // the later step lies in this chunk or, for its last step, at the start of the chunk before
    const bool crosses = s + 1 == chunk.end;
    const size_t later_row = crosses ? rows.begin : batch.first(s + 1) + rows.begin - batch.first(chunk.begin);
    q.d_later = own.d[crosses ? chunk.buffer ^ 1 : chunk.buffer].get() + later_row * buffers_.ld_d + recurrent_part();
    q.d = own.d[chunk.buffer].get() + row_d * buffers_.ld_d;
    q.ld_d = buffers_.ld_d;
    if (steps > 1) {
      const ptrdiff_t active = ptrdiff_t(batch.active(s));
      q.dy_step = q.dy.base ? -buffers_.tracks(dir).dy.step : 0;
      q.h_step = -dir.y.step;
      q.gates_step = q.gates ? -active * ptrdiff_t(p.row) : 0;
      q.c_step = q.c ? -active * ptrdiff_t(p.Hp) : 0;
      q.d_step = -active * ptrdiff_t(buffers_.ld_d);
    }
    if (shape.proj) {
      // dh_t = dy + dG R, then dm = dh_t W_hr and through the cell
      BackwardStep<T> dh = q;
      dh.hidden = p.R;
      dh.first_panel = output_panels.begin;
      dh.last_panel = output_panels.end;
      dh.d = own.dh[chunk.buffer].get() + row_d * p.R;
      dh.ld_d = p.R;
      if (n) p.k.backward_store(dh);
      if (p.in_step(w) && !w.wait()) return false;
      q.dy = {};
      q.dh_already_cut = true;
      q.continuing = n;
      q.carry_h = nullptr;
      q.d_later = dh.d;
      q.ld_later = p.R;
      q.depth = p.R;
      q.r = weights.project_back.get();
      q.m = own.m[chunk.buffer].get() + row_d * p.H;
      q.ld_m = p.H;
    }
    if (before) {
      q.m = own.m[chunk.buffer].get() + row_d * p.H;
      q.ld_m = p.H;
    }
    if (n) p.k.backward[int(shape.cell)](q);
    if (before) {
      if (p.in_step(w) && !w.wait()) return false;
      q.dy = {};
      q.cut = nullptr;
      q.continuing = n;
      q.d_later = q.d;
      q.depth = p.H;
      q.r = weights.r_n_back.get();
      if (n) p.k.backward_gates(q);
    }
    const size_t work = shape.gates() * p.H * p.R * steps;
    w.poll(work * std::max<size_t>(n, 1));
    w.did(double(work * n) * double(panels.size()) / double(all_panels));
    return p.in_step(w) ? w.wait_and_share() : !w.stopped();
  }

  // where, in a row of gradients, the numbers begin that the recurrent product reads
  size_t recurrent_part() const { return candidate_first(p.shape.cell) ? p.H : 0; }

  // dL/dh_0: one more product, back across the first step
  void initial_state(const Worker &w, const Direction<T> &dir, const T *d_first) {
    const Batch &batch = p.batch;
    Workspace<T> &own = workspace(dir);
    const Range rows = p.rows_of(w, 0, batch.steps);
    const Range panels = p.panels_of(p.k.plain_panels(p.R), w);
    const uint8_t *cut = batch.reset_at(dir.way, 0);
    const size_t running = batch.steps ? batch.active(0) : 0;
    BackwardStep<T> q;
    q.rows = rows.size();
    q.continuing = running > rows.begin ? std::min(running, rows.end) - rows.begin : 0;
    q.first_panel = panels.begin;
    q.last_panel = panels.end;
    q.hidden = p.R;
    q.cut = cut ? cut + rows.begin : nullptr;
    q.carry_h = own.carry_h.get() + rows.begin * buffers_.ld_carry;
    q.ld_carry = buffers_.ld_carry;
    q.r = p.weights(dir.layer, dir.direction).r_back.get();
    q.r_rows = p.weights(dir.layer, dir.direction).r_back_rows;
    q.depth = p.shape.step_gates() * p.H;
    q.d_later = d_first + rows.begin * buffers_.ld_d + recurrent_part();
    q.ld_later = buffers_.ld_d;
    q.d = own.dh0.get() + rows.begin * p.R;
    q.ld_d = p.R;
    (carries_h(p.shape.cell) ? p.k.backward_store_carried : p.k.backward_store)(q);
  }
  void store_initial_state(const Worker &w, const Direction<T> &dir) {
    const Batch &batch = p.batch;
    const Workspace<T> &own = workspace(dir);
    const uint8_t *cut = batch.reset_at(dir.way, 0);
    const Range out = share(batch.rows, w);
    for (size_t r = out.begin; r < out.end; ++r) {
      const size_t b = dir.index * batch.rows + batch.order[r];
      std::memcpy(g_.dh0 + b * p.R, own.dh0.get() + r * p.R, p.R * sizeof(T));
      if (!p.shape.has_c()) continue;
      T *dc0 = g_.dc0 + b * p.H;
      if (cut && cut[r])
        std::memset(dc0, 0, p.H * sizeof(T));
      else
        std::memcpy(dc0, own.carry_c.get() + r * buffers_.ld_carry, p.H * sizeof(T));
    }
  }

  Pass<T> &p;
  Tape<T> &tape_;
  const Gradients<T> &g_;
  BackwardBuffers<T> buffers_;
  ChunkGradients<T> products_;
  std::unique_ptr<ForwardLoop<T>> loop_; // computes segments again
};

} // namespace fastrnn
