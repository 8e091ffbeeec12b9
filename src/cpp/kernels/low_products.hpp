// low_products: the products and the steps of low_precision.hpp, written once for both types of weights.
//
// A type M of weights (Int8, Bfloat16) has
//   M(matrix, depth, scratch)
//   take(rows, n)       the left rows of a group, of which tiles count
//   tile<MR, W, P>(o)   MR rows times P neighbouring panels of W registers each
//   tile_rows(width)    the most rows of a tile; pairs: tiles of one or two rows may have P = 2
#pragma once

#include "kernels/low_precision.hpp"
#include "kernels/step.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

inline uint32_t bits_of(float a) {
  uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof bits);
  return bits;
}
inline float of_bits(uint32_t bits) {
  float a;
  __builtin_memcpy(&a, &bits, sizeof a);
  return a;
}

// What a tile works on: rows from number `row` of the group on, and the panel of the sums that begin at `column` of a
// packed row of the matrix, [block][gate][lane].
struct low_operands {
  size_t row, column;
  float *const *to;         // the sums
  const float *const *from; // what they start from
  size_t to_at, from_at;    // the place of the panel in their rows
};

// The tile for this many rows and registers.
template <class M, int W> FASTRNN_INLINE void low_tile_of(const M &m, size_t rows, bool two, const low_operands &o) {
  constexpr int most = int(M::tile_rows(W));
  if constexpr (M::pairs) {
    if (two && rows == 1) return m.template tile<1, W, 2>(o);
    if constexpr (pairs_two_rows(W) && most >= 2)
      if (two) return m.template tile<2, W, 2>(o);
  }
  unroll<most>([&](auto r) __attribute__((always_inline)) {
    if (rows == size_t(r) + 1) m.template tile<decltype(r)::value + 1, W, 1>(o);
  });
}
template <class M> void low_tile(const M &m, size_t rows, size_t width, const low_operands &o) {
  unroll<max_width>([&](auto w) __attribute__((always_inline)) {
    if (width == size_t(w) + 1) low_tile_of<M, decltype(w)::value + 1>(m, rows, false, o);
  });
}

// out[i] = init + a[i] B with gate panels: packed rows of pre-activations.
template <class M>
void low_gate_product(const Product<float> &q, const LowMatrix &matrix, size_t gates, size_t slots, uint8_t *scratch) {
  constexpr size_t VL = lanes<float>;
  const size_t all_blocks = blocks<float>(q.columns);
  M left(matrix, q.depth, scratch);
  const float *from[group_rows];
  for (size_t j = 0; j < least(q.rows, group_rows); ++j) from[j] = q.init;
  row_tiles(q.rows, group_rows).each([&](size_t, size_t first, size_t rows) {
    left.take(q.a + first, rows);
    for (size_t p = q.first_panel; p < q.last_panel; ++p) {
      const panel_place place = gate_panel(p, gates, all_blocks);
      const size_t at = place.block * VL * slots, column = place.block * VL * gates;
      row_tiles(rows, M::tile_rows(place.width)).each([&](size_t, size_t r, size_t n) {
        low_tile(left, n, place.width, {r, column, q.out + first + r, from + r, at, at});
      });
    }
  });
}

// out[i] = a[i] B with plain panels: the projection of an LSTM.
template <class M> void low_plain_product(const Product<float> &q, const LowMatrix &matrix, uint8_t *scratch) {
  constexpr size_t VL = lanes<float>;
  const size_t all_blocks = blocks<float>(q.columns);
  M left(matrix, q.depth, scratch);
  alignas(64) static const float zeros[max_width * VL] = {};
  alignas(64) float sums[max_rows][max_width * VL];
  const float *from[max_rows];
  float *to[max_rows];
  for (size_t r = 0; r < max_rows; ++r) from[r] = zeros, to[r] = sums[r];
  row_tiles(q.rows, group_rows).each([&](size_t, size_t first, size_t rows) {
    left.take(q.a + first, rows);
    for (size_t p = q.first_panel; p < q.last_panel; ++p) {
      const panel_place place = gate_panel(p, 1, all_blocks);
      const size_t column = place.block * VL, valid = least(place.width * VL, q.columns - column);
      row_tiles(rows, M::tile_rows(place.width)).each([&](size_t, size_t r, size_t n) {
        low_tile(left, n, place.width, {r, column, to, from, 0, 0});
        for (size_t j = 0; j < n; ++j)
          for (size_t i = 0; i < valid; i += VL)
            store_first(q.out[first + r + j] + column + i, load(sums[j] + i), least(VL, valid - i));
      });
    }
  });
}

// One step: the recurrent product, and the cell on its sums. See forward_step in step.hpp.
template <class M, class E>
void low_forward_step(const ForwardStep<float> &s, const LowMatrix &matrix, uint8_t *scratch) {
  constexpr size_t VL = lanes<float>, gates = E::gates;
  const size_t all_blocks = blocks<float>(s.hidden), panels = s.last_panel - s.first_panel;
  const auto place_of = [&](size_t p) { return gate_panel(s.first_panel + p, gates, all_blocks); };
  constexpr size_t full = gates > 1 ? gates : max_width;
  const bool two = M::pairs && panels > 1 && s.rows == 2 && pairs_two_rows(full);
  const size_t pairs = two ? (panels - (place_of(panels - 1).width < full ? 1 : 0)) / 2 : 0, count = panels - pairs;
  M left(matrix, s.recurrent, scratch);
  alignas(64) float sums[group_numbers<float>];
  group_lists<float> lists, no_input;
  row_tiles(s.rows, group_rows).each([&](size_t, size_t first, size_t rows) {
    for (size_t i = 0; i < count; ++i) {
      const size_t item = s.descending ? count - 1 - i : i;
      const bool pair = item < pairs;
      const panel_place place = place_of(pair ? 2 * item : pairs + item);
      const ForwardPanel<float, E> panel = {
          s, sums, sums, place.block * VL, place.blocks * (pair ? 2 : 1), place.block * VL, first};
      if (lists.must_fill(first, panel.ld)) panel.fill(lists, no_input, rows);
      if (i == 0) left.take(lists.a, rows);
      size_t waiting = first; // the first sequence whose cells are not computed yet
      row_tiles(rows, M::tile_rows(place.width)).each([&](size_t, size_t r, size_t n) {
        panel.start_sums(first + r, n);
        const low_operands o = {r, place.block * VL * gates, lists.to + r, lists.from + r, 0, panel.from_at()};
        if constexpr (gates > 1)
          low_tile_of<M, E::gates>(left, n, pair, o);
        else if (place.width == max_width)
          low_tile_of<M, max_width>(left, n, pair, o);
        else
          low_tile(left, n, place.width, o);
        const bool more = r + n < rows;
        if (first + r + n - waiting < cells_at_once && more) return;
        panel.compute_cells(waiting, first + r + n);
        waiting = first + r + n;
      });
    }
  });
}

// The same for a single sequence. The sums of some panels are finished before their cells, and the cells of two blocks
// are computed side by side: a cell is a long chain of operations, and there is no other sequence to fill its waiting
// times.
constexpr size_t panels_before_cells = 4;
template <class M, class E>
void low_forward_row(const ForwardStep<float> &s, const LowMatrix &matrix, uint8_t *scratch) {
  constexpr size_t VL = lanes<float>, gates = E::gates, full = gates > 1 ? gates : max_width;
  const size_t all_blocks = blocks<float>(s.hidden), panels = s.last_panel - s.first_panel;
  const auto place_of = [&](size_t p) { return gate_panel(s.first_panel + p, gates, all_blocks); };
  const bool zero_state = s.reset && s.reset[0];
  alignas(64) float sums[panels_before_cells * max_width * VL];
  M left(matrix, s.recurrent, scratch);
  const float *const a = ForwardPanel<float, E>::reads_rh ? s.rh : zero_state ? s.zeros : s.h_prev[0];
  left.take(&a, 1);
  const size_t groups = (panels + panels_before_cells - 1) / panels_before_cells;
  for (size_t i = 0; i < groups; ++i) {
    const size_t begin = (s.descending ? groups - 1 - i : i) * panels_before_cells;
    const size_t end = least(begin + panels_before_cells, panels), block0 = place_of(begin).block;
    size_t done = 0; // blocks
    for (size_t p = begin, taken = 1; p < end; p += taken) {
      const panel_place place = place_of(p);
      const bool two = M::pairs && p + 1 < end && place_of(p + 1).width == full;
      float *const to = sums + done * gates * VL;
      taken = two ? 2 : 1;
      const ForwardPanel<float, E> panel = {s, to, to, place.block * VL, place.blocks * taken, 0, 0};
      panel.start_sums(0, 1);
      const float *const from = panel.direct ? s.init : to;
      const low_operands o = {0, place.block * VL * gates, &to, &from, 0, panel.from_at()};
      if constexpr (gates > 1)
        low_tile_of<M, E::gates>(left, 1, two, o);
      else if (place.width == max_width)
        low_tile_of<M, max_width>(left, 1, two, o);
      else
        low_tile(left, 1, place.width, o);
      done += panel.blocks;
    }
    const auto cells = [&](auto n, size_t b) __attribute__((always_inline)) {
      constexpr int N = decltype(n)::value;
      cell_place at[N];
      vecs<float, N> pre[gates], x_n = vec<float>{};
      unroll<N>([&](auto j) __attribute__((always_inline)) {
        const size_t unit = (block0 + b + j) * VL;
        at[j] = {0, unit, least(VL, s.hidden - unit), zero_state};
        unroll<E::gates>(
            [&](auto g) __attribute__((always_inline)) { pre[g].at[j] = load(sums + ((b + j) * gates + g) * VL); });
        if constexpr (E::split_candidate) x_n.at[j] = load(s.init + unit * E::slots + 2 * VL);
      });
      E::finish(s, at, pre, x_n);
    };
    two_by_two(0, done, cells);
  }
}

template <class M, class E>
void low_forward_steps(const ForwardStep<float> &first, const LowMatrix &matrix, uint8_t *scratch) {
  const auto take = first.rows == 1 ? &low_forward_row<M, E> : &low_forward_step<M, E>;
  ForwardStep<float> s = first;
  for (size_t left = s.steps; take(s, matrix, scratch), --left > 0;) next_step(s);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
