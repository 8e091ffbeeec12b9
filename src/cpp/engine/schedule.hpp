// schedule: how the threads of a call share it. One pure function of sizes, tested by itself.
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace fastrnn {

struct Problem {
  Cell cell = Cell::lstm;
  size_t total = 0; // steps summed over rows
  size_t steps = 0, rows = 0, input = 0, hidden = 0, recurrent = 0;
  size_t number = 4; // bytes of one number: 4 or 8
  size_t gates = 4;
  int threads = 1;
  size_t l2 = 0; // bytes
  size_t layers = 1, directions = 1;
  bool dropout = false; // between layers: masks are applied to whole layers
  bool backward = false;
  bool contended = false;  // others take cores: no waiting for another thread in every step
  bool packed = false;     // the weights are packed already (frozen)
  bool one_product = true; // a step is one product with R (Shape::one_product)
  size_t panels = 0;       // of R, which threads that share units share
};

enum class Split {
  rows,  // a thread takes some rows of the batch through the whole sequence: no synchronisation
  units, // a thread takes some hidden units of every row: one barrier a step, its share of R stays in its cache
  tasks, // a thread takes a chunk of steps of one direction of one layer: directions run side by side, layers
         // as a wavefront
  apart  // one thread takes the steps, the others the products over whole chunks of them: forward those of the chunk
         // ahead, backward those of the chunk behind; whoever is through helps with these. One barrier a chunk
};

struct Plan {
  int threads = 1;
  Split split = Split::rows;
  bool fuse_input = false; // input product inside the step, for the narrowest inputs
  // weights are not packed for the call, but piece by piece as its products read them:
  bool in_pieces = false;   // all of them, of few steps; the input product of a single one is inside the step too
  bool w_in_pieces = false; // those of the input product at least, of few rows in all
  double work = 0;          // floating-point operations of the whole call, forward
  bool paced = false;       // shares of rows or units follow the pace of the threads

  // Whether threads have shares that may be uneven, rather than pieces that they take as they come.
  bool has_shares() const { return threads > 1 && (split == Split::rows || split == Split::units); }
};

Plan schedule(const Problem &);

} // namespace fastrnn
