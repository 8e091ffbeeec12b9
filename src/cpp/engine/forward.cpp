#include "engine/forward.hpp"
#include "engine/call_threads.hpp"

namespace fastrnn {

namespace {

template <class T> class ForwardPass {
public:
  ForwardPass(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, const Batch &batch,
              const Arrays<T> &arrays, Tape<T> *tape, Execution &how)
      : tape_(tape), outputs_(make_outputs(shape, batch, arrays, tape)),
        inputs_(make_inputs(shape, batch, arrays, tape)),
        pass_(k, shape, weights, batch, arrays, tape ? &tape->outputs : &outputs_, tape ? &tape->inputs : &inputs_,
              how.plan),
        loop_(pass_, tape && !tape->segment, false), threads_(how, shape, weights, pack) {
    if (shape.merges() || arrays.layers) complete_.assign(shape.layers, 0);
    if (shape.has_c() && (!tape || tape->segment))
      for (size_t i = 0; i < shape.count(); ++i) c_.emplace_back(product(batch.rows, pass_.Hp));
  }

  bool run() {
    return threads_.run([&](const Worker &w) { run_together(w); }, [&](const Worker &w) { run_wavefront(w); });
  }

private:
  // outputs of the hidden layers of an inference call; a training call keeps them on the tape
  static std::vector<Buffer<T>> make_outputs(const Shape &shape, const Batch &batch, const Arrays<T> &arrays,
                                             const Tape<T> *tape) {
    std::vector<Buffer<T>> outputs;
    if (tape) return outputs;
    for (size_t l = 0; l + 1 < shape.layers + shape.merges(); ++l)
      outputs.emplace_back(product(positions(batch, arrays), shape.both()));
    return outputs;
  }
  // merged outputs of the hidden layers, likewise
  static std::vector<Buffer<T>> make_inputs(const Shape &shape, const Batch &batch, const Arrays<T> &arrays,
                                            const Tape<T> *tape) {
    std::vector<Buffer<T>> inputs;
    for (size_t l = 0; l + 1 < shape.layers && shape.merges() && !tape; ++l)
      inputs.emplace_back(product(positions(batch, arrays), shape.width()));
    return inputs;
  }
  static size_t positions(const Batch &batch, const Arrays<T> &arrays) {
    return arrays.starts ? batch.total() : product(batch.steps, batch.rows);
  }

  // All threads on one direction of one layer after the other.
  void run_together(const Worker &w) {
    for (const Direction<T> &dir : pass_.directions) {
      const Storage<T> store = storage(dir);
      const size_t steps = pass_.batch.steps;
      if (pass_.shape.has_c() && pass_.takes_steps(w)) load_c0(pass_.stepping(w), dir, store, interval_end(w, 0));
      for (size_t begin = 0, end = 0; begin < steps; begin = end) {
        end = interval_end(w, begin);
        if (!loop_.run(w, dir, store, begin, end)) return;
        if (!pass_.in_step(w) && !w.wait_and_share()) return; // else the last step ended with a barrier
      }
      finish(w, dir, store);
      const bool last_direction = dir.direction + 1 == pass_.shape.directions;
      if (last_direction && passes_on(dir.layer)) {
        pass_on(w, dir.layer);
        if (!w.wait_and_share()) return;
      }
    }
  }

  // Threads that share sequences need no barrier once all are there. Until then they go through the steps in intervals,
  // so that helpers that have woken up meanwhile can join. The first interval is worth many times what a barrier costs,
  // and each further one is half of what lies behind it.
  size_t interval_end(const Worker &w, size_t begin) const {
    const Batch &batch = pass_.batch;
    if (w.n_threads == 1 || pass_.plan.split != Split::rows || w.team_is_complete()) return batch.steps;
    const size_t row_work = pass_.shape.gates() * pass_.H * (pass_.R + pass_.directions.front().input);
    const size_t least = (size_t(1) << 23) * size_t(w.n_threads) / std::max<size_t>(row_work, 1) + 1;
    const size_t rows = std::max(least, batch.first(begin) / 2);
    size_t end = begin + 1;
    if (batch.uniform) end = begin + rows / std::max<size_t>(batch.rows, 1) + 1;
    while (end < batch.steps && batch.first(end) - batch.first(begin) < rows) ++end;
    return std::min(end, batch.steps);
  }

  // Each thread on chunks of steps of its own: of a layer once the layer below has got that far, and where
  // there is a reverse direction, once both directions below are through.
  void run_wavefront(const Worker &w) {
    const Shape &shape = pass_.shape;
    const size_t steps = pass_.batch.steps, D = shape.directions;
    const size_t chunk = chunk_steps();
    auto end_of = [&](size_t i) { return std::min(steps, threads_.board.done(i) + chunk); };
    auto ready = [&](size_t i) {
      if (i < D) return true;
      const size_t below = (i / D - 1) * D;
      if (D == 1) return threads_.board.done(below) >= end_of(i);
      return threads_.board.complete(below) && threads_.board.complete(below + 1);
    };
    for (size_t i = threads_.board.first(w); (i = threads_.board.claim(w, i, ready)) != TaskBoard::none;) {
      const Direction<T> &dir = pass_.directions[i];
      const Storage<T> store = storage(dir);
      const size_t begin = threads_.board.done(i), end = end_of(i);
      if (begin == 0 && shape.has_c()) load_c0(w, dir, store, steps);
      if (!loop_.run(w, dir, store, begin, end)) return;
      if (end == steps) {
        finish(w, dir, store);
        if (passes_on(dir.layer) && threads_.board.count_in(complete_[dir.layer]) == int(D)) pass_on(w, dir.layer);
      }
      threads_.board.release(i, end, end == steps);
    }
  }

  // long enough that claiming it costs nothing, short enough that a wavefront of layers fills and drains fast
  size_t chunk_steps() const {
    const size_t steps = pass_.batch.steps,
                 work = pass_.shape.gates() * pass_.H * (pass_.R + pass_.H) * pass_.batch.rows;
    const size_t least = (size_t(1) << 20) / std::max<size_t>(work, 1) + 1;
    return std::max(least, steps / (8 * pass_.shape.layers) + 1);
  }

  Storage<T> storage(const Direction<T> &dir) {
    Storage<T> store;
    if (!tape_) {
      if (!c_.empty()) store.c = c_[dir.index].get();
      return store;
    }
    TapeDirection<T> &kept = tape_->directions[dir.index];
    if (tape_->segment) {
      if (!c_.empty()) store.c = c_[dir.index].get();
      store.c_checkpoint = kept.c_checkpoint.get();
      store.segment = pass_.shape.has_c() ? tape_->segment : 0;
    } else {
      store.gates = kept.gates.get();
      store.c = kept.c.get();
      store.keep_c = true;
    }
    return store;
  }

  // until: the end of the first interval, which says which rows this thread takes
  void load_c0(const Worker &w, const Direction<T> &dir, const Storage<T> &store, size_t until) {
    // where threads share units, the first barrier comes after step 0: each thread loads the units that it will read
    const Range rows = pass_.rows_of(w, 0, until);
    const Range panels = pass_.panels_of(pass_.Hp / pass_.k.lanes, w);
    const size_t first = panels.begin * pass_.k.lanes, last = std::min(panels.end * pass_.k.lanes, pass_.H);
    for (size_t r = rows.begin; r < rows.end; ++r) {
      T *to = store.c + r * pass_.Hp;
      std::memset(to + first, 0, (panels.end * pass_.k.lanes - first) * sizeof(T));
      if (pass_.arrays.c0 && last > first)
        std::memcpy(to + first,
                    pass_.arrays.c0 + first +
                        (pass_.arrays.one_c0 ? dir.index : dir.index * pass_.batch.rows + pass_.batch.order[r]) *
                            pass_.H,
                    (last - first) * sizeof(T));
    }
  }

  // h_n, c_n: the state after each row's last step
  void finish(const Worker &w, const Direction<T> &dir, const Storage<T> &store) {
    const Batch &batch = pass_.batch;
    const Range rows = share(batch.rows, w);
    for (size_t r = rows.begin; r < rows.end; ++r) {
      const size_t length = batch.length[r], b = dir.index * batch.rows + batch.order[r];
      const T *h = length ? dir.y(length - 1, r) : dir.h0 + dir.h0_at[r];
      std::memcpy(pass_.arrays.h_n + b * pass_.R, h, pass_.R * sizeof(T));
      if (!pass_.shape.has_c()) continue;
      const size_t at = store.keep_c && length ? batch.rows + batch.first(length - 1) + r : r;
      std::memcpy(pass_.arrays.c_n + b * pass_.H, store.c + at * pass_.Hp, pass_.H * sizeof(T));
    }
  }

  // Whether something is to be done with the outputs of a whole layer: they are merged, handed to the caller, or some
  // of them dropped.
  bool passes_on(size_t layer) const {
    if (layer + 1 == pass_.shape.layers) return pass_.shape.merges();
    return pass_.shape.merges() || pass_.arrays.layers || pass_.arrays.dropout;
  }
  void pass_on(const Worker &w, size_t layer) {
    const Batch &batch = pass_.batch;
    const Arrays<T> &arrays = pass_.arrays;
    const bool last_layer = layer + 1 == pass_.shape.layers, merges = pass_.shape.merges();
    const size_t width = pass_.shape.width(), both = pass_.shape.both();
    const T *outputs = (tape_ ? tape_->outputs : outputs_)[layer].get();
    std::vector<Buffer<T>> &inputs = tape_ ? tape_->inputs : inputs_;
    const Range rows = share(batch.rows, w);
    for (size_t r = rows.begin; r < rows.end; ++r) {
      const size_t b = batch.order[r];
      const auto place = [&](const View<T> &view, size_t t) {
        return view.base + view.row[b] + ptrdiff_t(t) * view.time;
      };
      for (size_t t = 0; t < batch.length[r]; ++t) {
        const size_t position = arrays.starts ? arrays.starts[b] + t : t * batch.rows + b;
        const T *out = outputs + position * both;
        T *const in = last_layer || inputs.empty() ? nullptr : inputs[layer].get() + position * width;
        if (merges) {
          T *const merged = last_layer ? place(arrays.y, t) : in;
          merge(merged, out, out + width);
          out = merged;
        }
        if (last_layer) continue;
        if (arrays.layers) std::memcpy(place(arrays.layers[layer], t), out, width * sizeof(T));
        if (arrays.dropout)
          pass_.k.scale_mask(in, out, arrays.dropout[layer] + position * width, arrays.dropout_scale, width);
      }
    }
  }
  void merge(T *to, const T *a, const T *b) const {
    const size_t n = pass_.R;
    switch (pass_.shape.merge) {
    case Merge::concat:
      break; // both lie side by side already
    case Merge::sum:
      for (size_t i = 0; i < n; ++i) to[i] = a[i] + b[i];
      break;
    case Merge::mul:
      for (size_t i = 0; i < n; ++i) to[i] = a[i] * b[i];
      break;
    case Merge::ave:
      for (size_t i = 0; i < n; ++i) to[i] = T(0.5) * (a[i] + b[i]);
      break;
    }
  }

  Tape<T> *tape_;
  std::vector<Buffer<T>> outputs_, inputs_, c_;
  std::vector<int> complete_; // [layers] how many directions are, where something is to be done with whole layers
  Pass<T> pass_;
  ForwardLoop<T> loop_;
  CallThreads<T> threads_;
};

} // namespace

template <class T>
void allocate(Tape<T> &tape, const Kernels<T> &k, const Shape &shape, size_t positions, bool dropout) {
  const Batch &batch = tape.batch;
  const size_t Hp = round_up(shape.hidden, k.lanes), row = Pass<T>::round_up_row(k.gate_slots(shape.cell) * Hp);
  tape.directions.resize(shape.count());
  for (TapeDirection<T> &d : tape.directions) {
    if (tape.segment) {
      const size_t segments = (batch.steps + tape.segment - 1) / tape.segment;
      if (shape.has_c()) d.c_checkpoint = Buffer<T>(product(segments, batch.rows, Hp));
      continue;
    }
    if (k.saved_slots(shape.cell)) d.gates = Buffer<T>(product(batch.total(), row));
    if (shape.has_c()) d.c = Buffer<T>(product(batch.rows + batch.total(), Hp));
  }
  for (size_t l = 0; l + 1 < shape.layers + shape.merges(); ++l)
    tape.outputs.emplace_back(product(positions, shape.both()));
  for (size_t l = 0; l + 1 < shape.layers && (dropout || shape.merges()); ++l)
    tape.inputs.emplace_back(product(positions, shape.width()));
}

template <class T>
bool forward(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, const Batch &batch,
             const Arrays<T> &arrays, Tape<T> *tape, Execution &how) {
  return ForwardPass<T>(k, shape, weights, pack, batch, arrays, tape, how).run();
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template void allocate(Tape<T> &, const Kernels<T> &, const Shape &, size_t, bool);                                  \
  template bool forward(const Kernels<T> &, const Shape &, Packed<T> &, bool, const Batch &, const Arrays<T> &,        \
                        Tape<T> *, Execution &);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
