// tape: what the training pass keeps for BPTT.
#pragma once

#include "engine/batch.hpp"
#include "engine/network.hpp"

namespace fastrnn {

// One direction of one layer. Rows are numbered as Batch::first(s) + r.
template <class T> struct TapeDirection {
  Buffer<T> gates;        // [total rows] packed (kernels.hpp); with checkpoints none, BPTT computes them again
  Buffer<T> c;            // LSTM: [B + total rows][H padded], the first B rows are c_0; with checkpoints none
  Buffer<T> c_checkpoint; // LSTM with checkpoints: [segments][B][H padded], the state before each segment
};

template <class T> struct Tape {
  Batch batch;
  size_t segment; // steps between checkpoints; 0: everything is kept
  std::vector<TapeDirection<T>> directions;
  // Hidden states of the layers below the last, both directions side by side, in the caller's layout. Where directions
  // are merged, of the last layer too.
  std::vector<Buffer<T>> outputs;
  std::vector<Buffer<T>> inputs; // of the layers above the first, where they are merged outputs or there is dropout

  Tape(Batch b, size_t k) : batch(std::move(b)), segment(k) {}
  size_t bytes() const {
    size_t n = 0;
    for (const auto &d : directions) n += d.gates.bytes() + d.c.bytes() + d.c_checkpoint.bytes();
    for (const auto &b : outputs) n += b.bytes();
    for (const auto &b : inputs) n += b.bytes();
    return n;
  }
};

} // namespace fastrnn
