#include "engine/bptt.hpp"
#include "engine/tasks.hpp"

namespace fastrnn {

namespace {

template <class T> class BackwardPass {
public:
  BackwardPass(const Kernels<T> &k, const Shape &shape, Packed<T> &weights, bool pack, Tape<T> &tape,
               const Arrays<T> &arrays, const Gradients<T> &gradients, Execution &how)
      : tape_(tape), pass_(k, shape, weights, tape.batch, arrays, &tape.outputs, &tape.dropped, how.plan),
        loop_(pass_, tape, gradients), team_(how.interrupted, how.team()), lease_(how.lease),
        board_(how.plan.split == Split::tasks ? shape.count() : 0), positions_(shape.count()), packed_(weights),
        pack_(pack) {
    joined_.assign(shape.layers, 0);
  }

  bool run() {
    team_.run(lease_, [&](int index) {
      const Worker w{&team_, index, index, pass_.plan.threads};
      w.begin();
      if (pack_) {
        packed_.pack(w);
        if (!w.wait_and_share()) return;
      }
      if (pass_.plan.split == Split::tasks)
        run_tasks(w.alone());
      else
        run_together(w);
    });
    return !team_.stopped();
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
      if (l > 0 && !tape_.dropped.empty()) {
        loop_.mask(w, l - 1);
        if (!w.wait_and_share()) return;
      }
    }
  }

  // Each thread on chunks of its own; a layer follows the one above it, and where there is a reverse direction
  // waits until both above are through. Pieces count from the top layer down.
  void run_tasks(const Worker &w) {
    const size_t D = pass_.shape.directions, top = pass_.shape.layers - 1, steps = pass_.batch.steps;
    auto index_of = [&](size_t piece) { return (top - piece / D) * D + piece % D; };
    auto ready = [&](size_t piece) {
      if (piece < D) return true;
      const size_t above = (piece / D - 1) * D;
      if (D == 2) return board_.complete(above) && board_.complete(above + 1);
      Position at = positions_[index_of(piece)];
      if (!at.started) at = {true, steps, tape_.segment ? steps : 0, 0, {}};
      return board_.complete(above) || board_.done(above) >= steps - (at.end ? loop_.chunk_begin(at) : 0);
    };
    for (size_t piece = board_.first(w); (piece = board_.claim(w, piece, ready)) != TaskBoard::none;) {
      const Direction<T> &dir = pass_.directions[index_of(piece)];
      Position &at = positions_[dir.index];
      if (!at.started && !loop_.start(w, dir, at)) return;
      if (at.end > 0 && !loop_.chunk(w, dir, at)) return;
      const bool complete = at.end == 0;
      if (complete) {
        if (!loop_.finish(w, dir, at)) return;
        if (D == 2 && board_.count_in(joined_[dir.layer]) == 2) loop_.join_directions(dir.layer);
      }
      board_.release(piece, steps - at.end, complete);
    }
  }

  Tape<T> &tape_;
  Pass<T> pass_;
  BackwardLoop<T> loop_;
  Team team_;
  Lease &lease_;
  TaskBoard board_;
  std::vector<Position> positions_;
  std::vector<int> joined_; // [layers] directions that are through
  Packed<T> &packed_;
  bool pack_;
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
