// layer: whole calls, forward and backward. They are functions of arrays: nothing but the tape is kept between calls.
#pragma once

#include "engine/schedule.hpp"
#include "engine/tape.hpp"
#include "runtime/team.hpp"

namespace fastrnn {

// Arrays a pass reads and writes, all in the caller's order of rows.
template <class T> struct Arrays {
  View<const T> x;                         // [t][b] -> [I]; base null: no input
  const T *h0 = nullptr, *c0 = nullptr;    // [L D][B][output], [L D][B][H]; null: zero
  bool one_h0 = false, one_c0 = false;     // h0 and c0 are those of every sequence: [L D][output], [L D][H]
  View<T> y;                               // [t][b] -> [width of the output]
  const View<T> *layers = nullptr;         // [L - 1] out: outputs of the layers below the last; null: not wanted
  T *h_n = nullptr, *c_n = nullptr;        // as h0, c0
  const uint8_t *const *dropout = nullptr; // [L - 1] masks in the layout of the hidden layers; null: none
  T dropout_scale = T(1);
  const size_t *starts = nullptr; // ragged: where each row begins; null: hidden layers are [t][b]
};

template <class T> struct Gradients {
  View<const T> dy;                         // as y; base null: none
  const T *dy_last = nullptr;               // [B][as y], of each row's last step; null: none
  std::vector<View<const T>> dlayers;       // [L - 1] as Arrays::layers, base null: none; empty: none at all
  const T *dh_n = nullptr, *dc_n = nullptr; // null: zero
  View<T> dx;                               // base null: not wanted
  T *dh0 = nullptr, *dc0 = nullptr;
  std::vector<Parameters<T>> parameters; // [L D], written
};

// How the threads of a call share it. The calling thread asks `interrupted` now and then. A call that is stopped
// returns false and leaves its outputs undefined.
struct Execution {
  Plan plan;
  size_t l2;
  bool (*interrupted)();
  Lease lease; // of helpers: one less than the plan has threads

  Team::Kind team() const {
    const bool coarse = plan.split != Split::units || plan.paced;
    // some hundredths of what the call will take, and not more than waking a thread takes at worst
    const int64_t patience = int64_t(std::min(plan.work / 2500, 2e5));
    return {plan.threads, plan.paced, coarse, patience};
  }
};

// weights are packed inside the call's parallel region when `pack` is set
template <class T>
bool forward(const Kernels<T> &, const Shape &, Packed<T> &, bool pack, const Batch &, const Arrays<T> &, Tape<T> *,
             Execution &);

template <class T>
bool backward(const Kernels<T> &, const Shape &, Packed<T> &, bool pack, Tape<T> &, const Arrays<T> &,
              const Gradients<T> &, Execution &);

// memory that the training pass will keep
template <class T> void allocate(Tape<T> &, const Kernels<T> &, const Shape &, size_t positions, bool dropout);

} // namespace fastrnn
