// single_row: a step of one row alone. Product and cell stay in registers from end to end, since at this size what
// counts is the latency from h to h.
#pragma once

#include "epilogue.hpp"
#include "panels.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// The product of a row with P panels W registers wide, one behind the other: sum[i] += a b for register i of all.
template <class T, int P, int W> FASTRNN_INLINE void add_row(vec<T> *sum, const T *a, size_t depth, const T *panel) {
  constexpr int VL = lanes<T>;
  static_assert(P <= 2, "a pointer each");
  for (const T *second = panel + depth * W * VL, *const end = a + depth; a < end;
       ++a, panel += W * VL, second += W * VL) {
    const vec<T> x = broadcast(*a);
    unroll<P * W>([&](auto i) __attribute__((always_inline)) {
      sum[i] = fma(x, load((i < W ? panel : second) + i % W * VL), sum[i]);
    });
  }
}

// ---- forward ------------------------------------------------------------------------------------------

// P panels at once, W vecs each.
template <class T, class E, int W, int P> FASTRNN_INLINE void single_row(const ForwardStep<T> &s, panel_place place) {
  constexpr int VL = lanes<T>, blocks_of_panel = E::gates == 1 ? W : 1, candidate = E::gates - 1;
  typedef vec<T> V;
  const size_t unit0 = place.block * VL;
  const bool fresh = s.reset && s.reset[0];
  const T *init = s.init + unit0 * E::slots, *h = E::first_slot > 0 ? s.rh : fresh ? s.zeros : s.h_prev[0];
  V sum[P * W], x_n[P];
  unroll<P * W>([&](auto i) __attribute__((always_inline)) {
    sum[i] = load(init + (i / E::gates * E::slots + E::first_slot + i % E::gates) * VL);
  });
  unroll<P>([&](auto p) __attribute__((always_inline)) { x_n[p] = V{}; });
  alignas(64) T pieces[P * W * VL * piece_depth];
  const auto add = [&](const T *a, size_t n, const T *packed, const RowMajor<T> &rows) __attribute__((always_inline)) {
    if (!rows.at) return add_row<T, P, W>(sum, a, n, packed + unit0 * E::gates * n);
    for (size_t from = 0, length = 0; from < n; from += length) {
      length = least(piece_depth, n - from);
      for (size_t p = 0; p < P; ++p)
        pack_gate_panel(pieces + p * length * W * VL, rows.at, rows.ld, 0, E::gates, s.hidden,
                        {place.block + p * blocks_of_panel, W, blocks_of_panel}, from, length);
      add_row<T, P, W>(sum, a + from, length, pieces);
    }
  };
  if (s.input) add(s.x[0], s.input, s.w, s.w_rows);
  if constexpr (E::split_candidate) { // the recurrent part of the candidate stays apart and starts at b_hn
    unroll<P>([&](auto p) __attribute__((always_inline)) {
      x_n[p] = sum[p * W + candidate];
      sum[p * W + candidate] = load(s.bias_n + unit0 + p * VL);
    });
  }
  add(h, s.recurrent, s.r, s.r_rows);
  constexpr int all = P * blocks_of_panel, together = all % 2 ? 1 : 2;
  unroll<all / together>([&](auto i) __attribute__((always_inline)) {
    cell_place at[together];
    vecs<T, together> pre[E::gates], x_part;
    unroll<together>([&](auto j) __attribute__((always_inline)) {
      constexpr int block = i * together + j;
      const size_t unit = unit0 + block * VL;
      at[j] = {0, unit, least(VL, s.hidden - unit), fresh};
      unroll<E::gates>([&](auto g) __attribute__((always_inline)) { pre[g].at[j] = sum[block * E::gates + g]; });
      x_part.at[j] = x_n[block / blocks_of_panel];
    });
    E::finish(s, at, pre, x_part);
  });
}

// panels(place, two) for every panel of a row alone, two neighbours of full width at once; `descending`: the last
// first.
template <class F>
FASTRNN_INLINE void for_single_row(size_t first, size_t last, bool descending, size_t gates, size_t all_blocks,
                                   F &&panels) {
  const auto place = [&](size_t p) { return gate_panel(p, gates, all_blocks); };
  const size_t full = gates > 1 ? gates : max_width;
  while (first < last) {
    const bool two = last - first > 1 && place(descending ? last - 1 : first + 1).width == full;
    const size_t taken = two ? 2 : 1;
    panels(place(descending ? last - taken : first), two);
    descending ? last -= taken : first += taken;
  }
}

template <class T, class E> void forward_single(const ForwardStep<T> &s) {
  for_single_row(s.first_panel, s.last_panel, s.descending, E::gates, blocks<T>(s.hidden),
                 [&](panel_place place, bool two) __attribute__((always_inline)) {
                   constexpr int full = E::gates > 1 ? E::gates : max_width;
                   if (two) return single_row<T, E, full, 2>(s, place);
                   unroll<full>([&](auto i) __attribute__((always_inline)) {
                     constexpr int width = decltype(i)::value + 1;
                     if constexpr (E::gates == 1 || width == full)
                       if (place.width == size_t(width)) single_row<T, E, width, 1>(s, place);
                   });
                 });
}

// ---- backward -----------------------------------------------------------------------------------------

// W registers of units: those of a panel, or of two of full width.
template <class T, class E, int W> FASTRNN_INLINE void single_row_back(const BackwardStep<T> &s, size_t block) {
  constexpr size_t VL = lanes<T>;
  constexpr int panel_width = W > max_width ? max_width : W;
  const size_t unit0 = block * VL;
  const bool later = s.continuing > 0, cut = later && s.cut && s.cut[0];
  const bool carried = s.carry_h && (E::carries_h || !later);
  vec<T> dh[W];
  unroll<W>([&](auto w)
                __attribute__((always_inline)) { dh[w] = carried ? load(s.carry_h + unit0 + w * VL) : vec<T>{}; });
  if (later && !s.r_rows.at) {
    add_row<T, W / panel_width, panel_width>(dh, s.d_later, s.depth, s.r + unit0 * s.depth);
  } else if (later) {
    alignas(64) T pieces[W * VL * piece_depth];
    for (size_t from = 0, length = 0; from < s.depth; from += length) {
      length = least(piece_depth, s.depth - from);
      for (size_t p = 0; p < W; p += panel_width) {
        const size_t column = unit0 + p * VL;
        pack_plain_panel(pieces + p * VL * length, s.r_rows, s.depth, column,
                         least(panel_width * VL, s.hidden - column), from, length);
      }
      add_row<T, W / panel_width, panel_width>(dh, s.d_later + from, length, pieces);
    }
  }
  unroll<W>([&](auto w) __attribute__((always_inline)) {
    const size_t unit = unit0 + w * VL, valid = least(VL, s.hidden - unit);
    if (cut && !s.keep_dh) dh[w] = vec<T>{};
    if (s.dy.base) dh[w] = dh[w] + load_first(s.dy[0] + unit, valid);
    E::finish(s, 0, unit, valid, dh[w], cut);
  });
}

template <class T, class E> void backward_single(const BackwardStep<T> &s) {
  for_single_row(s.first_panel, s.last_panel, s.descending, 1, blocks<T>(s.hidden),
                 [&](panel_place place, bool two) __attribute__((always_inline)) {
                   if (two) return single_row_back<T, E, 2 * max_width>(s, place.block);
                   unroll<max_width>([&](auto i) __attribute__((always_inline)) {
                     constexpr int width = decltype(i)::value + 1;
                     if (place.width == size_t(width)) single_row_back<T, E, width>(s, place.block);
                   });
                 });
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
