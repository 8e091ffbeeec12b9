// schedule: how the threads of a call share it. One pure function of sizes, tested by itself.
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace fastrnn {

// What the schedule must know of a call.
struct Problem {
  Cell cell = Cell::lstm;
  size_t total = 0; // steps, summed over the sequences
  size_t steps = 0, rows = 0, input = 0, hidden = 0, recurrent = 0;
  size_t number = 4; // bytes of one number: 4 or 8
  size_t gates = 4;
  int threads = 1;
  size_t l2 = 0; // bytes
  size_t layers = 1, directions = 1;
  bool dropout = false; // between layers: masks, or gradients of their outputs, are applied to whole layers
  bool backward = false;
  bool contended = false;   // others take cores: no waiting for another thread in every step
  bool cores_taken = false; // even calls whose threads wait for each other at the end lose by that, if they are short
  bool packed = false;      // the weights are packed already (frozen)
  bool one_product = true;  // a step is one product with R (Shape::one_product)
  size_t panels = 0;        // of R, which threads that share units share
};

// How the threads of a call divide its work.
enum class Split {
  // A thread takes some sequences of the batch through all steps. No barrier is needed.
  rows,
  // A thread takes some hidden units of every sequence. Its part of R stays in its cache; one barrier a step.
  units,
  // A thread takes a chunk of steps of one direction of one layer, and then another. Directions run side by side,
  // layers as a wavefront.
  wavefront,
  // One thread takes the steps, the others the products over whole chunks of steps: forward those of the next chunk,
  // backward those of the last one. Whoever is through helps with these. One barrier a chunk.
  pipelined
};

struct Plan {
  int threads = 1;
  Split split = Split::rows;
  bool fuse_input = false; // input product inside the step, for the narrowest inputs
  // Packing all weights does not pay in a short call: its products then pack a piece when they read it.
  bool in_pieces = false;   // no weights are packed for the call. The input product of a single step is fused too.
  bool w_in_pieces = false; // W at least is not packed for the call
  double work = 0;          // floating-point operations of the whole call, forward
  bool paced = false;       // the work shares of the threads follow how fast each has been

  // Whether every thread has a share of the work. Otherwise threads take pieces of it, one by one.
  bool has_shares() const { return threads > 1 && (split == Split::rows || split == Split::units); }
};

Plan schedule(const Problem &);

} // namespace fastrnn
