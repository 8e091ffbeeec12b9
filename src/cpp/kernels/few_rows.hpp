// few_rows: one step for a single sequence, or for a few, two at a time.
//
// The sums of the product stay in registers until the cell has used them. At this size the time of a step is the
// latency from one h to the next, plus the instructions around the product, which here are fewer than those of tiles
// (step.hpp). Which of the two files a step uses: in_registers in kernels.hpp.
#pragma once

#include "kernels/epilogue.hpp"
#include "kernels/panels.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// sum[r][i] += a[r] * b for N rows of `depth` numbers and P panels, neighbours in memory and each W registers wide.
template <class T, int N, int P, int W>
FASTRNN_INLINE void add_rows(vec<T> (&sum)[N][P * W], const T *const (&rows)[N], size_t depth, const T *panel) {
  constexpr int VL = lanes<T>;
  static_assert(P <= 2 && N <= 2, "each has a pointer of its own");
  const T *a = rows[0], *other = rows[N - 1];
  for (const T *second = panel + depth * W * VL, *const end = a + depth; a < end;
       ++a, ++other, panel += W * VL, second += W * VL) {
    const vec<T> x[2] = {broadcast(*a), broadcast(*other)};
    unroll<P * W>([&](auto i) __attribute__((always_inline)) {
      const vec<T> b = load((i < W ? panel : second) + i % W * VL);
      unroll<N>([&](auto r) __attribute__((always_inline)) { sum[r][i] = fma(x[r], b, sum[r][i]); });
    });
  }
}

// sum[w] += a * b for one row a and a gate panel, from block `block` on, of a matrix that is not packed. Squares of
// lanes x lanes weights are transposed in registers, so `depth` is a multiple of lanes and all units of the panel
// exist. It is not inlined, since it is long and the same for all cells.
template <class T, int W>
__attribute__((noinline)) void add_transposed(vec<T> *sum, const T *a, const RowMajor<T> &matrix, size_t gates,
                                              size_t hidden, size_t block, size_t depth) {
  constexpr size_t VL = lanes<T>;
  const T *from[W];
  unroll<W>([&](auto w) __attribute__((always_inline)) {
    from[w] = matrix.at + (gates > 1 ? w * hidden + block * VL : (block + w) * VL) * matrix.ld;
  });
  vec<T> part[W];
  unroll<W>([&](auto w) __attribute__((always_inline)) { part[w] = sum[w]; });
  const auto add_square = [&](auto w, size_t k) __attribute__((always_inline)) {
    vec<T> square[VL];
    const T *row = from[w] + k;
    unroll<VL>([&](auto i) __attribute__((always_inline)) { square[i] = load(row), row += matrix.ld; });
    transpose<T>(square);
    unroll<VL>([&](auto i) __attribute__((always_inline)) { part[w] = fma(broadcast(a[k + i]), square[i], part[w]); });
  };
  // one cache line of every row at a time, before it is evicted
  constexpr size_t line = prefetch_plan<T>::line > VL ? prefetch_plan<T>::line : VL;
  size_t k = 0;
  for (; k + line <= depth; k += line)
    unroll<W>([&](auto w) __attribute__((always_inline)) {
      const T *row = from[w] + k + packing_distance_numbers;
      unroll<VL>([&](auto) __attribute__((always_inline)) { __builtin_prefetch(row), row += matrix.ld; });
      unroll<line / VL>([&](auto i) __attribute__((always_inline)) { add_square(w, k + i * VL); });
    });
  for (; k < depth; k += VL) unroll<W>([&](auto w) __attribute__((always_inline)) { add_square(w, k); });
  unroll<W>([&](auto w) __attribute__((always_inline)) { sum[w] = part[w]; });
}

// sum[r][i] += a[r] * b for P gate panels from `place` on. With packed_only the matrix is packed; without, there is one
// row and the matrix may be row-major. The two are separate functions so that the sums of the first stay in registers.
template <class T, class E, int N, int P, int W, bool packed_only>
FASTRNN_INLINE void add_gate_rows(vec<T> (&sum)[N][P * W], const T *const (&rows)[N], size_t depth, const T *packed,
                                  const RowMajor<T> &matrix, size_t hidden, const panel_place &place) {
  constexpr int VL = lanes<T>;
  if (packed_only || !matrix.at)
    return add_rows<T, N, P, W>(sum, rows, depth, packed + place.block * VL * E::gates * depth);
  size_t from = 0;
  if ((place.block + P * place.blocks) * VL <= hidden) {
    from = depth - depth % VL;
    unroll<P>([&](auto p) __attribute__((always_inline)) {
      add_transposed<T, W>(sum[0] + p * W, rows[0], matrix, E::gates, hidden, place.block + p * place.blocks, from);
    });
  }
  alignas(64) T pieces[P * W * VL * piece_depth];
  for (size_t length = 0; from < depth; from += length) {
    length = least(piece_depth, depth - from);
    for (size_t p = 0; p < P; ++p)
      pack_gate_panel(pieces + p * length * W * VL, matrix.at, matrix.ld, 0, E::gates, hidden,
                      {place.block + p * place.blocks, W, place.blocks}, from, length);
    const T *const piece[N] = {rows[0] + from};
    add_rows<T, N, P, W>(sum, piece, length, pieces);
  }
}

// ---- forward ------------------------------------------------------------------------------------------

// N sequences from row0 on and P panels, W registers each.
template <class T, class E, int W, int P, int N, bool packed_only = true>
FASTRNN_INLINE void few_rows(const ForwardStep<T> &s, panel_place place, size_t row0) {
  constexpr int VL = lanes<T>, blocks_of_panel = E::gates == 1 ? W : 1, candidate = E::gates - 1;
  typedef vec<T> V;
  const size_t unit0 = place.block * VL;
  const auto zero_state = [&](size_t r) __attribute__((always_inline)) { return s.reset && s.reset[r]; };
  const T *h[N], *x[N];
  V sum[N][P * W], x_n[N][P];
  unroll<N>([&](auto r) __attribute__((always_inline)) {
    const size_t row = row0 + r;
    h[r] = E::first_slot > 0 ? s.rh + row * s.ld_rh : zero_state(row) ? s.zeros : s.h_prev[row];
    x[r] = s.input ? s.x[row] : nullptr;
    const T *init = s.init + row * s.ld_init + unit0 * E::slots;
    unroll<P * W>([&](auto i) __attribute__((always_inline)) {
      sum[r][i] = load(init + (i / E::gates * E::slots + E::first_slot + i % E::gates) * VL);
    });
    unroll<P>([&](auto p) __attribute__((always_inline)) { x_n[r][p] = V{}; });
  });
  if (s.input) add_gate_rows<T, E, N, P, W, packed_only>(sum, x, s.input, s.w, s.w_rows, s.hidden, place);
  if constexpr (E::split_candidate) { // the recurrent part of the candidate has a sum of its own, from b_hn
    unroll<N>([&](auto r) __attribute__((always_inline)) {
      unroll<P>([&](auto p) __attribute__((always_inline)) {
        x_n[r][p] = sum[r][p * W + candidate];
        sum[r][p * W + candidate] = load(E::bias_n(s) + unit0 + p * VL);
      });
    });
  }
  add_gate_rows<T, E, N, P, W, packed_only>(sum, h, s.recurrent, s.r, s.r_rows, s.hidden, place);
  // cells two at a time: of two sequences, or of neighbouring blocks
  constexpr int all = P * blocks_of_panel * N, at_once = all % 2 ? 1 : 2;
  unroll<all / at_once>([&](auto i) __attribute__((always_inline)) {
    cell_place at[at_once];
    vecs<T, at_once> pre[E::gates], x_part;
    unroll<at_once>([&](auto j) __attribute__((always_inline)) {
      constexpr int cell = i * at_once + j, r = cell % N, block = cell / N;
      const size_t unit = unit0 + block * VL;
      at[j] = {row0 + r, unit, least(VL, s.hidden - unit), zero_state(row0 + r)};
      unroll<E::gates>([&](auto g) __attribute__((always_inline)) { pre[g].at[j] = sum[r][block * E::gates + g]; });
      x_part.at[j] = x_n[r][block / blocks_of_panel];
    });
    E::finish(s, at, pre, x_part);
  });
}

// Calls panels(place, two) for every panel, in descending order if asked. A single sequence takes two panels at once
// where both have full width; `place` is that of the first.
template <class F>
FASTRNN_INLINE void for_few_rows(size_t rows, size_t first, size_t last, bool descending, size_t gates,
                                 size_t all_blocks, F &&panels) {
  const auto place = [&](size_t p) { return gate_panel(p, gates, all_blocks); };
  const size_t full = gates > 1 ? gates : max_width;
  while (first < last) {
    const bool two = rows == 1 && last - first > 1 && place(descending ? last - 1 : first + 1).width == full;
    const size_t taken = two ? 2 : 1;
    panels(place(descending ? last - taken : first), two);
    descending ? last -= taken : first += taken;
  }
}

// Without `packed` there is one sequence.
template <class T, class E, bool packed = true> void forward_few(const ForwardStep<T> &s) {
  for_few_rows(s.rows, s.first_panel, s.last_panel, s.descending, E::gates, blocks<T>(s.hidden),
               [&](panel_place place, bool two) __attribute__((always_inline)) {
                 constexpr int full = E::gates > 1 ? E::gates : max_width;
                 if (two) return few_rows<T, E, full, 2, 1, packed>(s, place, 0);
                 unroll<full>([&](auto i) __attribute__((always_inline)) {
                   constexpr int width = decltype(i)::value + 1;
                   if constexpr (E::gates == 1 || width == full) {
                     if (place.width != size_t(width)) return;
                     size_t row = 0;
                     for (; packed && row + 2 <= s.rows; row += 2) few_rows<T, E, width, 1, 2>(s, place, row);
                     if (row < s.rows) few_rows<T, E, width, 1, 1, packed>(s, place, row);
                   }
                 });
               });
}

// ---- backward -----------------------------------------------------------------------------------------

// N sequences from row0 on and W registers of units: those of one panel, or of two of full width.
template <class T, class E, int W, int N, bool packed_only = true>
FASTRNN_INLINE void few_rows_back(const BackwardStep<T> &s, size_t block, size_t row0) {
  constexpr size_t VL = lanes<T>;
  constexpr int panel_width = W > max_width ? max_width : W;
  const size_t unit0 = block * VL;
  const bool later = row0 < s.continuing;
  const bool carried = s.carry_h && (E::carries_h || !later);
  vec<T> dh[N][W];
  const T *d_later[N];
  unroll<N>([&](auto r) __attribute__((always_inline)) {
    d_later[r] = s.d_later + (row0 + r) * s.ld_later;
    unroll<W>([&](auto w) __attribute__((always_inline)) {
      dh[r][w] = carried ? load(s.carry_h + (row0 + r) * s.ld_carry + unit0 + w * VL) : vec<T>{};
    });
  });
  if (later && packed_only) {
    add_rows<T, N, W / panel_width, panel_width>(dh, d_later, s.depth, s.r + unit0 * s.depth);
  } else if (later && unit0 + W * VL <= s.hidden) {
    add_row(dh[0], d_later[0], s.r_rows, s.depth, unit0);
  } else if (later) {
    alignas(64) T pieces[W * VL * piece_depth];
    for (size_t from = 0, length = 0; from < s.depth; from += length) {
      length = least(piece_depth, s.depth - from);
      for (size_t p = 0; p < W; p += panel_width) {
        const size_t column = unit0 + p * VL;
        pack_plain_panel(pieces + p * VL * length, s.r_rows, s.depth, column,
                         least(panel_width * VL, s.hidden - column), from, length);
      }
      const T *const piece[N] = {d_later[0] + from};
      add_rows<T, N, W / panel_width, panel_width>(dh, piece, length, pieces);
    }
  }
  unroll<W>([&](auto w) __attribute__((always_inline)) {
    const size_t unit = unit0 + w * VL, valid = least(VL, s.hidden - unit);
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      const size_t r = row0 + i;
      const bool cut = later && s.cut && s.cut[r];
      if (cut && !s.dh_already_cut) dh[i][w] = vec<T>{};
      if (s.dy.base) dh[i][w] = dh[i][w] + load_first(s.dy[r] + unit, valid);
      E::finish(s, r, unit, valid, dh[i][w], cut);
    });
  });
}

// Without `packed` there is one sequence. Two are taken together if both have a later step, or neither.
template <class T, class E, bool packed = true> void backward_few(const BackwardStep<T> &s) {
  for_few_rows(s.rows, s.first_panel, s.last_panel, s.descending, 1, blocks<T>(s.hidden),
               [&](panel_place place, bool two) __attribute__((always_inline)) {
                 if (two) return few_rows_back<T, E, 2 * max_width, 1, packed>(s, place.block, 0);
                 unroll<max_width>([&](auto i) __attribute__((always_inline)) {
                   constexpr int width = decltype(i)::value + 1;
                   if (place.width != size_t(width)) return;
                   for (size_t row = 0; row < s.rows;) {
                     const size_t left = (row < s.continuing ? s.continuing : s.rows) - row;
                     if (packed && left > 1) {
                       few_rows_back<T, E, width, 2>(s, place.block, row);
                       row += 2;
                     } else {
                       few_rows_back<T, E, width, 1, packed>(s, place.block, row);
                       row += 1;
                     }
                   }
                 });
               });
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
