#include "engine/bptt.hpp"
#include "engine/call_threads.hpp"

namespace fastrnn {

namespace {

template <class T> class BackwardPass {
public:
  BackwardPass(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, Tape<T> &tape,
               const Arrays<T> &arrays, const Gradients<T> &gradients, Execution &how)
      : tape_(tape), pass_(k, shape, weights, tape.batch, arrays, &tape.outputs, &tape.inputs, how.plan),
        loop_(pass_, tape, gradients), threads_(how, shape, weights, pack), positions_(shape.count()) {
    joined_.assign(shape.layers, 0);
  }

  bool run() {
    return threads_.run([&](const Worker &w) { run_together(w); }, [&](const Worker &w) { run_wavefront(w); });
  }

private:
  // All threads on one direction of one layer after the other.
  void run_together(const Worker &w) {
    const size_t D = pass_.shape.directions;
    for (size_t l = pass_.shape.layers; l-- > 0;) {
      for (size_t d = 0; d < D; ++d) {
        const Direction<T> &dir = pass_.directions[l * D + d];
        Position at; // each thread keeps its own count
        if (!loop_.start(w, dir, at)) return;
        while (at.end > 0)
          if (!loop_.chunk(w, dir, at)) return;
        if (!loop_.finish(w, dir, at)) return;
      }
      if (l > 0 && pass_.arrays.dropout) {
        loop_.buffers().mask(w, l - 1);
        if (!w.wait_and_share()) return;
      }
    }
  }

  // Each thread on chunks of its own; a layer follows the one above it, and where there is a reverse direction
  // waits until both above are through. Tasks count from the top layer down.
  void run_wavefront(const Worker &w) {
    const size_t D = pass_.shape.directions, top = pass_.shape.layers - 1, steps = pass_.batch.steps;
    auto index_of = [&](size_t task) { return (top - task / D) * D + task % D; };
    auto ready = [&](size_t task) {
      if (task < D) return true;
      const size_t above = (task / D - 1) * D;
      if (D == 2) return threads_.board.complete(above) && threads_.board.complete(above + 1);
      Position at = positions_[index_of(task)];
      if (!at.started) at = {true, steps, tape_.segment ? steps : 0, 0, {}};
      return threads_.board.complete(above) ||
             threads_.board.done(above) >= steps - (at.end ? loop_.chunk_begin(at) : 0);
    };
    for (size_t task = threads_.board.first(w); (task = threads_.board.claim(w, task, ready)) != TaskBoard::none;) {
      const Direction<T> &dir = pass_.directions[index_of(task)];
      Position &at = positions_[dir.index];
      if (!at.started && !loop_.start(w, dir, at)) return;
      if (at.end > 0 && !loop_.chunk(w, dir, at)) return;
      const bool complete = at.end == 0;
      if (complete) {
        if (!loop_.finish(w, dir, at)) return;
        if (D == 2 && threads_.board.count_in(joined_[dir.layer]) == 2) loop_.buffers().join_directions(dir.layer);
      }
      threads_.board.release(task, steps - at.end, complete);
    }
  }

  Tape<T> &tape_;
  Pass<T> pass_;
  BackwardLoop<T> loop_;
  CallThreads<T> threads_;
  std::vector<Position> positions_;
  std::vector<int> joined_; // [layers] how many directions are complete
};

} // namespace

template <class T>
bool backward(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, Tape<T> &tape,
              const Arrays<T> &arrays, const Gradients<T> &gradients, Execution &how) {
  return BackwardPass<T>(k, shape, weights, pack, tape, arrays, gradients, how).run();
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template bool backward(const Kernels<T> &, const Shape &, Packed<T> &, bool, Tape<T> &, const Arrays<T> &,           \
                         const Gradients<T> &, Execution &);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
