// batch: the sequences of a call in the order in which the core works. In the core a "row" is one sequence of the
// batch. The longest comes first, so the rows that still run at a step are always the first ones.
//
// Step s counts along a direction: the forward direction comes to time t at s = t, the reverse one at
// s = length - 1 - t. As every row is addressed from its own end, both directions are the same loop.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/kernels.hpp"
#include "runtime/small_vector.hpp"

namespace fastrnn {

struct Batch {
  size_t steps = 0, rows = 0;
  SmallVector<size_t> order;                   // [rows] sorted row -> caller's row
  SmallVector<size_t> length;                  // [rows] sorted, not increasing
  bool uniform = true;                         // all rows are `steps` long
  std::vector<size_t> shrinking, prefix;       // [steps] active rows, [steps + 1] their sum; only if not uniform
  std::vector<uint8_t> reset[2], any_reset[2]; // by direction: [steps][rows] and [steps]; empty: none

  size_t active(size_t s) const { return uniform ? rows : shrinking[s]; }
  size_t first(size_t s) const { return uniform ? s * rows : prefix[s]; }
  size_t total() const { return first(steps); }
  const uint8_t *reset_at(int direction, size_t s) const {
    const auto &any = any_reset[direction];
    return !any.empty() && s < steps && any[s] ? reset[direction].data() + s * rows : nullptr;
  }

  // How many steps from s on (`by` = -1: back in time) have as many rows as s and begin no segment; at most `most`.
  size_t alike(int direction, size_t s, size_t most, ptrdiff_t by) const {
    if (uniform && any_reset[direction].empty()) return most;
    size_t n = 0;
    for (size_t i = s; n < most && active(i) == active(s) && !reset_at(direction, i); i += size_t(by)) ++n;
    return n;
  }

  // lengths: [rows] or null
  Batch(size_t steps_, size_t rows_, const int64_t *lengths) : steps(steps_), rows(rows_) {
    order.assign(rows, 0);
    std::iota(order.begin(), order.end(), size_t(0));
    length.assign(rows, steps);
    if (!lengths) return;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
    for (size_t r = 0; r < rows; ++r) length[r] = size_t(lengths[order[r]]);
    if (rows == 0 || length[rows - 1] == steps) return;
    steps = length[0];
    uniform = length[rows - 1] == steps;
    if (uniform) return;
    shrinking.resize(steps);
    prefix.assign(steps + 1, 0);
    size_t n = rows;
    for (size_t s = 0; s < steps; ++s) {
      while (n > 0 && length[n - 1] <= s) --n;
      shrinking[s] = n;
      prefix[s + 1] = prefix[s] + n;
    }
  }

  // flags(t, row): time t begins a new segment of the caller's row. only_reverse: there is one direction, the reverse
  // one
  template <class F> void set_reset(F &&flags, int directions, bool only_reverse = false) {
    for (int d = only_reverse; d < directions + only_reverse; ++d) {
      reset[d].assign(steps * rows, 0);
      any_reset[d].assign(steps, 0);
      for (size_t r = 0; r < rows; ++r)
        for (size_t s = 0; s < length[r]; ++s) {
          // the reverse direction crosses the boundary before t + 1 when it comes to t
          const bool cut = d == 0 ? flags(s, order[r]) : s > 0 && flags(length[r] - s, order[r]);
          if (cut) reset[d][s * rows + r] = any_reset[d][s] = 1;
        }
    }
  }
};

// A [time][row] array of vectors: element (t, b) starts at base + t * time + row[b].
template <class T> struct View {
  T *base = nullptr;
  ptrdiff_t time = 0;
  SmallVector<ptrdiff_t> row; // [rows], caller's order
  explicit operator bool() const { return base != nullptr; }
};
template <class T> View<const T> read_only(const View<T> &view) { return {view.base, view.time, view.row}; }

// The same as one direction sees it: element (s, sorted r) starts at base + s * step + at[r].
template <class T> struct Track {
  T *base = nullptr;
  ptrdiff_t step = 0;
  SmallVector<ptrdiff_t> at;
  Track() = default;
  Track(const View<T> &view, const Batch &batch, int direction, size_t column = 0) {
    base = view.base ? view.base + column : nullptr;
    step = direction == 0 ? view.time : -view.time;
    at.assign(batch.rows, 0);
    for (size_t r = 0; r < batch.rows; ++r) {
      const ptrdiff_t last = batch.length[r] ? ptrdiff_t(batch.length[r]) - 1 : 0;
      at[r] = view.row[batch.order[r]] + (direction == 0 ? 0 : last * view.time);
    }
  }
  T *operator()(size_t s, size_t r) const { return base + ptrdiff_t(s) * step + at[r]; }
  Rows<T> rows(size_t s, size_t r0) const { return {base ? base + ptrdiff_t(s) * step : nullptr, at.data() + r0}; }
  Rows<const T> read(size_t s, size_t r0) const {
    const Rows<T> at_s = rows(s, r0);
    return {at_s.base, at_s.at};
  }
};

} // namespace fastrnn
