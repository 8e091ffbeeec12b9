// schedule: how the threads of a call share it. One pure function of sizes, tested by itself.
#pragma once

#include <cstddef>

#include "kernels.hpp"

namespace fastrnn {

struct Problem {
  Cell cell;
  size_t total; // steps summed over rows
  size_t steps, rows, input, hidden, recurrent;
  size_t number; // bytes of one number: 4 or 8
  size_t gates;
  int threads;
  size_t l2; // bytes
};

enum class Split {
  rows, // a thread takes some rows of the batch through the whole sequence: no synchronisation
  units // a thread takes some hidden units of every row: one barrier a step, its share of R stays in its cache
};

struct Plan {
  int threads = 1;
  Split split = Split::rows;
  bool fuse_input = false; // input product inside the step, for the narrowest inputs
};

Plan schedule(const Problem &);

} // namespace fastrnn
