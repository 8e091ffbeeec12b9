// BPTT: the time loop backward, and the products over each chunk of steps after it.
#include <memory>

#include "forward.hpp"
#include "sums.hpp"

namespace fastrnn {

namespace {

template <class T> class BackwardPass {
public:
  BackwardPass(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, Tape<T> &tape,
               const Arrays<T> &arrays, const Gradients<T> &gradients, const Execution &how)
      : tape_(tape), g_(gradients), p(k, shape, weights, tape.batch, arrays, &tape.outputs, &tape.dropped, how.plan),
        team_(how.plan.threads, how.interrupted), packed_(weights), pack_(pack) {
    const Batch &batch = tape.batch;
    ld_d_ = Pass<T>::round_up_row(k.grad_slots(shape.cell) * p.H);
    // a chunk of gradient rows: long enough for the products over it to run at full speed, short enough to
    // stay in the cache between the time loop and them
    const size_t wanted = std::min<size_t>(std::max<size_t>((size_t(1) << 20) / (ld_d_ * sizeof(T)), 96), 768);
    chunk_rows_ = wanted;
    const size_t held = std::max(wanted, batch.rows);
    for (auto &d : d_) d = Buffer<T>(product(held, ld_d_));
    if (shape.proj || shape.cell == Cell::gru_before) m_ = Buffer<T>(product(held, p.H));
    if (shape.proj) dh_ = Buffer<T>(product(held, p.R));
    ld_carry_ = std::max(p.Hp, p.Rp);
    carry_h_ = Buffer<T>(product(batch.rows, ld_carry_));
    if (shape.has_c()) carry_c_ = Buffer<T>(product(batch.rows, ld_carry_));
    dh0_ = Buffer<T>(product(batch.rows, p.R));
    size_t scratch = 0;
    for (const auto &dir : p.directions) {
      sums_.emplace_back(p, dir);
      scratch = std::max(scratch, WeightSums<T>::scratch(p, dir));
    }
    for (int i = 0; i < how.plan.threads; ++i) {
      scratch_.emplace_back(scratch);
      rows_.emplace_back();
      for (auto *v : {&rows_.back().d, &rows_.back().x, &rows_.back().h, &rows_.back().m, &rows_.back().dh})
        v->reserve(held);
      a_.emplace_back(held);
      out_.emplace_back(held);
    }
    const size_t positions = arrays.starts ? batch.total() : product(batch.steps, batch.rows);
    const size_t width = shape.directions * p.R;
    for (size_t l = 0; l + 1 < shape.layers; ++l) d_inner_.emplace_back(product(positions, width));
    for (const auto &dir : p.directions) tracks_.push_back(make_tracks(dir));
    if (tape.segment) {
      loop_ = std::make_unique<ForwardLoop<T>>(p);
      // segments hold different numbers of rows; the first is the largest
      const size_t rows = batch.first(std::min(tape.segment, batch.steps));
      if (k.saved_slots(shape.cell)) segment_gates_ = Buffer<T>(product(rows, p.row));
      if (shape.has_c()) segment_c_ = Buffer<T>(product(batch.rows + rows, p.Hp));
    }
  }

  bool run() {
    parallel(p.plan.threads, [&](int rank) { run_thread(rank); });
    return !team_.stopped();
  }

private:
  void run_thread(int rank) {
    if (pack_) {
      for (size_t i = size_t(rank); i < packed_.jobs(); i += size_t(p.plan.threads)) packed_.run_job(i);
      if (!team_.meet()) return;
    }
    for (size_t l = p.shape.layers; l-- > 0;) {
      for (size_t d = 0; d < p.shape.directions; ++d)
        if (!run_direction(rank, p.directions[l * p.shape.directions + d])) return;
      if (l > 0 && !tape_.dropped.empty()) {
        mask(rank, l - 1);
        if (!team_.meet()) return;
      }
    }
  }

  bool run_direction(int rank, const Direction<T> &dir) {
    const Batch &batch = p.batch;
    load_state(rank, dir);
    if (!team_.meet()) return false;
    size_t kept_from = 0; // first step whose gates are at hand
    unsigned turn = 0;
    if (tape_.segment) kept_from = batch.steps;
    for (size_t end = batch.steps; end > 0;) {
      if (tape_.segment && end <= kept_from) {
        kept_from = (end - 1) / tape_.segment * tape_.segment;
        if (!recompute(rank, dir, kept_from, end)) return false;
      }
      size_t begin = end - 1, rows = batch.active(begin);
      while (begin > kept_from && rows + batch.active(begin - 1) <= chunk_rows_) rows += batch.active(--begin);
      const Chunk chunk{begin, end, kept_from, turn};
      for (size_t s = end; s-- > begin;)
        if (!step(rank, dir, s, chunk)) return false;
      // the products need every row and unit of the chunk. Gradient rows alternate between two buffers, so
      // no second meeting is needed before the next chunk overwrites them.
      if (!team_.meet()) return false;
      input_gradient(rank, dir, chunk);
      list_rows(rank, dir, chunk);
      sums_[dir.index].add(rows_[size_t(rank)], rank, scratch_[size_t(rank)].get());
      if (m_.size() && !team_.meet()) return false; // m and dh have one buffer only
      if (rank == 0) team_.poll(rows * p.shape.gates() * p.H * (p.R + dir.input) * 2);
      end = begin;
      turn ^= 1;
    }
    if (!initial_state(rank, dir, d_[turn ^ 1].get())) return false;
    sums_[dir.index].write(g_.parameters[dir.index], rank);
    return team_.meet();
  }

  // Steps [begin, end), whose gates are at hand from kept_from on; `turn` of the two gradient buffers.
  struct Chunk {
    size_t begin, end, kept_from;
    unsigned turn;
  };

  Range units_range(size_t panels, size_t width, int rank, size_t n) const {
    const Range r = p.panels_of(panels, rank);
    return {std::min(r.begin * width, n), std::min(r.end * width, n)};
  }

  // carries start from dL/dh_n and dL/dc_n
  void load_state(int rank, const Direction<T> &dir) {
    const Batch &batch = p.batch;
    const Range rows = share(batch.rows, rank, p.plan.threads);
    const size_t width = p.shape.directions * p.R;
    for (size_t r = rows.begin; r < rows.end; ++r) {
      const size_t b = dir.index * batch.rows + batch.order[r];
      T *h = carry_h_.get() + r * ld_carry_;
      std::memset(h, 0, ld_carry_ * sizeof(T));
      if (g_.dh_n) std::memcpy(h, g_.dh_n + b * p.R, p.R * sizeof(T));
      if (last_only(dir) && dir.direction == 0 && batch.length[r]) {
        const T *last = g_.dy_last + batch.order[r] * width;
        for (size_t i = 0; i < p.R; ++i) h[i] += last[i];
      }
      if (!p.shape.has_c()) continue;
      T *c = carry_c_.get() + r * ld_carry_;
      std::memset(c, 0, ld_carry_ * sizeof(T));
      if (g_.dc_n) std::memcpy(c, g_.dc_n + b * p.H, p.H * sizeof(T));
    }
  }
  bool last_only(const Direction<T> &dir) const { return g_.dy_last && dir.layer + 1 == p.shape.layers; }

  // dL/dy of step s
  Rows<const T> dy(const Direction<T> &dir, size_t s, size_t r0) {
    Cache &c = tracks(dir);
    if (last_only(dir)) {
      // at the end of a row; the reverse direction has its first step there
      if (dir.direction == 1 && s == 0) return {g_.dy_last + p.R, c.last.data() + r0};
      return {};
    }
    return c.dy.base ? c.dy.read(s, r0) : Rows<const T>{};
  }

  bool recompute(int rank, const Direction<T> &dir, size_t begin, size_t end) {
    if (!team_.meet()) return false; // nobody reads the segment before any more
    Storage<T> store;
    store.begin = begin;
    store.end = end;
    store.gates = null_if_empty(segment_gates_);
    store.write_h = false;
    if (p.shape.has_c()) {
      store.c = segment_c_.get();
      store.keep_c = true;
      const Range rows = p.rows_of(rank);
      const size_t units = p.Hp / p.k.lanes;
      const Range u = units_range(units, p.k.lanes, rank, p.Hp);
      const T *from = tape_.directions[dir.index].c_checkpoint.get() + begin / tape_.segment * p.batch.rows * p.Hp;
      for (size_t r = rows.begin; r < std::min(rows.end, p.batch.active(begin)); ++r)
        std::memcpy(store.c + r * p.Hp + u.begin, from + r * p.Hp + u.begin, u.size() * sizeof(T));
    }
    if (!p.k.saved_slots(p.shape.cell)) return true; // Elman: y says it all
    if (!loop_->run(team_, rank, dir, store)) return false;
    return team_.meet(); // backward cuts the units another way than forward
  }

  // One step of one thread, with the meetings that a split by units needs.
  bool step(int rank, const Direction<T> &dir, size_t s, const Chunk &chunk) {
    const Batch &batch = p.batch;
    const Shape &shape = p.shape;
    const PackedDirection<T> &w = p.weights(dir.layer, dir.direction);
    const TapeDirection<T> &kept = tape_.directions[dir.index];
    const bool before = shape.cell == Cell::gru_before, carries_h = before || shape.cell == Cell::gru;
    const Range rows = p.rows_of(rank);
    auto mine = [&](size_t n) { return n > rows.begin ? std::min(n, rows.end) - rows.begin : 0; };
    const size_t n = mine(batch.active(s));
    const size_t continuing = s + 1 < batch.steps ? mine(batch.active(s + 1)) : 0;
    const Range panels = p.panels_of(p.k.plain_panels(p.H), rank);
    const Range output_panels = p.panels_of(p.k.plain_panels(p.R), rank);
    const uint8_t *cut = batch.reset_at(int(dir.direction), s + 1);
    const uint8_t *reset = batch.reset_at(int(dir.direction), s);
    const size_t base = tape_.segment ? batch.first(chunk.kept_from) : 0;
    const T *gates = tape_.segment ? segment_gates_.get() : kept.gates.get();
    const T *c = tape_.segment ? segment_c_.get() : kept.c.get();
    const size_t row = batch.first(s) + rows.begin - base;                       // on the tape
    const size_t row_d = batch.first(s) + rows.begin - batch.first(chunk.begin); // in the chunk

    BackwardStep<T> q;
    q.rows = n;
    q.continuing = continuing;
    q.first_panel = panels.begin;
    q.last_panel = panels.end;
    q.hidden = p.H;
    q.descending = s % 2 == 1;
    q.dy = dy(dir, s, rows.begin);
    q.cut = cut ? cut + rows.begin : nullptr;
    q.carry_h = carry_h_.get() + rows.begin * ld_carry_;
    q.ld_carry = ld_carry_;
    q.gates = gates + row * p.row;
    q.ld_gates = p.row;
    if (shape.has_c()) {
      q.carry_c = carry_c_.get() + rows.begin * ld_carry_;
      q.c = c + (batch.rows + row) * p.Hp;
      const size_t row_prev = s == chunk.kept_from ? rows.begin : batch.rows + batch.first(s - 1) + rows.begin - base;
      q.c_prev = c + row_prev * p.Hp;
      q.ld_c = p.Hp;
    }
    q.h = dir.y.read(s, rows.begin);
    q.h_prev = dir.h_prev(s, rows.begin);
    q.reset = reset ? reset + rows.begin : nullptr;
    q.zeros = dir.zeros;
    q.r = w.r_back.get();
    q.depth = (before ? 2 : shape.gates()) * p.H;
    q.ld_later = ld_d_;
    // the later step lies in this chunk or, for its last step, at the start of the chunk before
    const bool crosses = s + 1 == chunk.end;
    const size_t later_row = crosses ? rows.begin : batch.first(s + 1) + rows.begin - batch.first(chunk.begin);
    q.d_later = d_[crosses ? chunk.turn ^ 1 : chunk.turn].get() + later_row * ld_d_ + (carries_h ? p.H : 0);
    q.d = d_[chunk.turn].get() + row_d * ld_d_;
    q.ld_d = ld_d_;
    if (shape.proj) {
      // dh_t = dy + dG R, then dm = dh_t W_hr and through the cell
      BackwardStep<T> dh = q;
      dh.hidden = p.R;
      dh.first_panel = output_panels.begin;
      dh.last_panel = output_panels.end;
      dh.d = dh_.get() + row_d * p.R;
      dh.ld_d = p.R;
      if (n) p.k.backward_store(dh);
      if (!p.by_rows() && !team_.meet()) return false;
      q.dy = {};
      q.keep_dh = true;
      q.continuing = n;
      q.carry_h = nullptr;
      q.d_later = dh.d;
      q.ld_later = p.R;
      q.depth = p.R;
      q.r = w.project_back.get();
      q.m = m_.get() + row_d * p.H;
      q.ld_m = p.H;
    }
    if (before) {
      q.m = m_.get() + row_d * p.H;
      q.ld_m = p.H;
    }
    if (n) p.k.backward[int(shape.cell)](q);
    if (before) {
      if (!p.by_rows() && !team_.meet()) return false;
      q.dy = {};
      q.cut = nullptr;
      q.continuing = n;
      q.d_later = q.d;
      q.depth = p.H;
      q.r = w.r_n_back.get();
      if (n) p.k.backward_gates(q);
    }
    if (rank == 0) team_.poll(shape.gates() * p.H * p.R * std::max<size_t>(n, 1));
    return p.by_rows() ? !team_.stopped() : team_.meet();
  }

  // dL/dx of the chunk: whole rows, shared among the threads whatever the split
  void input_gradient(int rank, const Direction<T> &dir, const Chunk &chunk) {
    if (!dir.input || (dir.layer == 0 && !g_.dx)) return;
    const Batch &batch = p.batch;
    const Cache &tracks_of = tracks(dir);
    const T **a = a_[size_t(rank)].get();
    T **out = out_[size_t(rank)].get();
    const Range rows = p.rows_of(rank);
    const Range panels = p.panels_of(p.k.plain_panels(dir.input), rank);
    size_t n = 0;
    for (size_t s = chunk.begin; s < chunk.end; ++s) {
      const size_t last = std::min(rows.end, batch.active(s));
      const T *d = d_[chunk.turn].get() + (batch.first(s) - batch.first(chunk.begin)) * ld_d_;
      for (size_t r = rows.begin; r < last; ++r, ++n) {
        a[n] = d + r * ld_d_;
        out[n] = tracks_of.dx(s, r);
      }
    }
    Product<T> q;
    q.rows = n;
    q.depth = p.shape.gates() * p.H;
    q.first_panel = panels.begin;
    q.last_panel = panels.end;
    q.a = a;
    q.out = out;
    q.b = p.weights(dir.layer, dir.direction).w_back.get();
    q.columns = dir.input;
    q.add = dir.direction == 1;
    p.k.plain_product(q);
  }

  void list_rows(int rank, const Direction<T> &dir, const Chunk &chunk) {
    const Batch &batch = p.batch;
    ChunkRows<T> &rows = rows_[size_t(rank)];
    for (auto *v : {&rows.d, &rows.x, &rows.h, &rows.m, &rows.dh}) v->clear();
    for (size_t s = chunk.end; s-- > chunk.begin;) {
      const uint8_t *reset = batch.reset_at(int(dir.direction), s);
      const Rows<const T> h = dir.h_prev(s, 0);
      const size_t at = batch.first(s) - batch.first(chunk.begin);
      for (size_t r = 0, n = batch.active(s); r < n; ++r) {
        rows.d.push_back(d_[chunk.turn].get() + (at + r) * ld_d_);
        if (dir.input) rows.x.push_back(dir.x(s, r));
        rows.h.push_back(reset && reset[r] ? dir.zeros : h[r]);
        if (m_.size()) rows.m.push_back(m_.get() + (at + r) * p.H);
        if (p.shape.proj) rows.dh.push_back(dh_.get() + (at + r) * p.R);
      }
    }
  }

  // dL/dh_0, dL/dc_0: one more product, back across the first step
  bool initial_state(int rank, const Direction<T> &dir, const T *d_first) {
    const Batch &batch = p.batch;
    const bool before = p.shape.cell == Cell::gru_before, carries_h = before || p.shape.cell == Cell::gru;
    const Range rows = p.rows_of(rank);
    const Range panels = p.panels_of(p.k.plain_panels(p.R), rank);
    const uint8_t *cut = batch.reset_at(int(dir.direction), 0);
    const size_t running = batch.steps ? batch.active(0) : 0;
    BackwardStep<T> q;
    q.rows = rows.size();
    q.continuing = running > rows.begin ? std::min(running, rows.end) - rows.begin : 0;
    q.first_panel = panels.begin;
    q.last_panel = panels.end;
    q.hidden = p.R;
    q.cut = cut ? cut + rows.begin : nullptr;
    q.carry_h = carry_h_.get() + rows.begin * ld_carry_;
    q.ld_carry = ld_carry_;
    q.r = p.weights(dir.layer, dir.direction).r_back.get();
    q.depth = (before ? 2 : p.shape.gates()) * p.H;
    q.d_later = d_first + rows.begin * ld_d_ + (carries_h ? p.H : 0);
    q.ld_later = ld_d_;
    q.d = dh0_.get() + rows.begin * p.R;
    q.ld_d = p.R;
    (carries_h ? p.k.backward_store_carried : p.k.backward_store)(q);
    if (!team_.meet()) return false;
    const Range out = share(batch.rows, rank, p.plan.threads);
    for (size_t r = out.begin; r < out.end; ++r) {
      const size_t b = dir.index * batch.rows + batch.order[r];
      std::memcpy(g_.dh0 + b * p.R, dh0_.get() + r * p.R, p.R * sizeof(T));
      if (!p.shape.has_c()) continue;
      T *dc0 = g_.dc0 + b * p.H;
      if (cut && cut[r])
        std::memset(dc0, 0, p.H * sizeof(T));
      else
        std::memcpy(dc0, carry_c_.get() + r * ld_carry_, p.H * sizeof(T));
    }
    return true;
  }

  // dropout between layers: the gradient goes through the same mask
  void mask(int rank, size_t layer) {
    const size_t n = d_inner_[layer].size();
    const Range part = share(n, rank, p.plan.threads);
    T *d = d_inner_[layer].get() + part.begin;
    p.k.scale_mask(d, d, p.arrays.dropout[layer] + part.begin, p.arrays.dropout_scale, part.size());
  }

  // Addresses of dy and dx as a direction sees them.
  struct Cache {
    Track<const T> dy;
    Track<T> dx;
    std::vector<ptrdiff_t> last; // sorted row -> its place in dy_last
  };
  Cache make_tracks(const Direction<T> &dir) {
    Cache c;
    const size_t width = p.shape.directions * p.R;
    auto inner = [&](size_t layer) { return hidden_view<T>(d_inner_[layer].get(), p.batch, p.arrays.starts, width); };
    if (dir.layer + 1 == p.shape.layers) {
      if (g_.dy) c.dy = Track<const T>(g_.dy, p.batch, int(dir.direction), dir.direction * p.R);
    } else {
      const View<T> view = inner(dir.layer);
      View<const T> read;
      read.base = view.base;
      read.time = view.time;
      read.row = view.row;
      c.dy = Track<const T>(read, p.batch, int(dir.direction), dir.direction * p.R);
    }
    if (dir.layer > 0)
      c.dx = Track<T>(inner(dir.layer - 1), p.batch, int(dir.direction));
    else if (g_.dx)
      c.dx = Track<T>(g_.dx, p.batch, int(dir.direction));
    c.last.resize(p.batch.rows);
    for (size_t r = 0; r < p.batch.rows; ++r) c.last[r] = ptrdiff_t(p.batch.order[r] * width);
    return c;
  }
  Cache &tracks(const Direction<T> &dir) { return tracks_[dir.index]; }

  Tape<T> &tape_;
  const Gradients<T> &g_;
  Pass<T> p;
  Team team_;
  Packed<T> &packed_;
  bool pack_;
  size_t ld_d_, ld_carry_, chunk_rows_;
  Buffer<T> d_[2]; // [rows of a chunk][slot][H]
  Buffer<T> m_, dh_, carry_h_, carry_c_, dh0_, segment_gates_, segment_c_;
  std::vector<WeightSums<T>> sums_;
  std::vector<Buffer<T>> scratch_, d_inner_;
  std::vector<ChunkRows<T>> rows_;
  std::vector<Buffer<const T *>> a_;
  std::vector<Buffer<T *>> out_;
  std::vector<Cache> tracks_;
  std::unique_ptr<ForwardLoop<T>> loop_;
};

} // namespace

template <class T>
bool backward(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, Tape<T> &tape,
              const Arrays<T> &arrays, const Gradients<T> &gradients, const Execution &how) {
  return BackwardPass<T>(k, shape, weights, pack, tape, arrays, gradients, how).run();
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template bool backward(const Kernels<T> &, const Shape &, Packed<T> &, bool, Tape<T> &, const Arrays<T> &,           \
                         const Gradients<T> &, const Execution &);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
