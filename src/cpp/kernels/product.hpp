// product: products for many steps at once: of inputs with W, the gradients of inputs, and those of weights.
#pragma once

#include "kernels/panels.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// out[i] = init + a[i] B with gate panels: packed rows of pre-activations.
template <class T> void gate_product(const Product<T> &q, size_t gates, size_t slots) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.columns);
  const row_tiles groups = row_groups(q.rows, q.b_rows);
  const auto nothing = [](size_t, size_t, auto...) {};
  alignas(64) T piece[piece_numbers<T>];
  const T *from[group_rows_in_pieces];
  for (size_t j = 0; j < least(q.rows, group_rows_in_pieces); ++j) from[j] = q.init;
  for (size_t p = q.first_panel; p < q.last_panel; ++p) {
    const panel_place place = gate_panel(p, gates, all_blocks);
    const size_t at = place.block * VL * slots, column = place.block * VL * gates;
    const Panel<T> panel(q.b, q.b_rows, q.depth, place.width, q.columns * gates, column, column + place.width * VL);
    const auto pack = [&](T *to, const RowMajor<T> &rows, size_t from, size_t depth) {
      pack_gate_panel(to, rows.at, rows.ld, 0, gates, q.columns, place, from, depth);
    };
    tile_operands<T> o;
    o.from = from;
    o.to_at = o.from_at = at;
    groups.each([&](size_t, size_t first, size_t rows) __attribute__((always_inline)) {
      o.to = q.out + first;
      o.a = q.a + first;
      pass_over(panel, o, first, rows, piece, pack, nothing, nothing);
    });
  }
}

// out[i] = init + a[i] B with plain panels, or out[i] += a[i] B.
template <class T> void plain_product(const Product<T> &q) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.columns);
  const row_tiles groups = row_groups(q.rows, q.b_rows);
  alignas(64) T sums[group_numbers<T>], piece[piece_numbers<T>];
  alignas(64) static const T zeros[max_width * VL] = {};
  T *to[group_rows_in_pieces];
  const T *from[group_rows_in_pieces];
  for (size_t j = 0; j < least(q.rows, group_rows_in_pieces); ++j) from[j] = q.init ? q.init : zeros;
  tile_operands<T> o;
  o.to = to;
  o.from = from;
  for (size_t p = q.first_panel; p < q.last_panel; ++p) {
    const panel_place place = gate_panel(p, 1, all_blocks);
    const size_t unit0 = place.block * VL, ld = place.width * VL;
    const Panel<T> panel(q.b, q.b_rows, q.depth, place.width, q.columns, unit0, unit0 + ld);
    o.from_at = q.init ? unit0 : 0;
    const auto pack = [&](T *to, const RowMajor<T> &rows, size_t from, size_t depth) {
      if (rows.transposed) return pack_gate_panel(to, rows.at, rows.ld, 0, 1, q.columns, place, from, depth);
      pack_plain_panel(to, rows, q.depth, unit0, least(ld, q.columns - unit0), from, depth);
    };
    const auto finish = [&](T *out, const T *sums) __attribute__((always_inline)) {
      for (size_t b = 0; b < place.blocks; ++b) {
        const size_t unit = unit0 + b * VL, valid = least(VL, q.columns - unit);
        vec<T> sum = load(sums + b * VL);
        if (q.add) sum = load_first(out + unit, valid) + sum;
        store_first(out + unit, sum, valid);
      }
    };
    if (q.rows == 1 && q.b_rows.at && !q.b_rows.transposed && !q.init && unit0 + max_width * VL <= q.columns) {
      vec<T> sum[max_width] = {};
      add_row(sum, q.a[0], q.b_rows, q.depth, unit0);
      unroll<max_width>([&](auto w) __attribute__((always_inline)) { store(sums + w * VL, sum[w]); });
      finish(q.out[0], sums);
      continue;
    }
    for (size_t j = 0, n = least(q.rows, group_rows_in_pieces); j < n; ++j) to[j] = sums + j * ld;
    groups.each([&](size_t, size_t first, size_t rows) __attribute__((always_inline)) {
      o.a = q.a + first;
      const auto done = [&](size_t r0, size_t n, bool) __attribute__((always_inline)) {
        for (size_t r = r0; r < r0 + n; ++r) finish(q.out[r], sums + (r - first) * ld);
      };
      pass_over(panel, o, first, rows, piece, pack, [](size_t, size_t, size_t, bool) {}, done);
    });
  }
}

// ---- weight gradients: c[r][:] += sum over k of a[k][r] * b[k][:] -----------------------------------------

// How many terms k are packed at once. All sums are read and written once for each such block. A deeper block would
// save little of that, and a panel of this depth (depth * 256 bytes) leaves most of the second-level cache to the sums.
constexpr size_t outer_depth = 256;

// Sums of at most this many terms are computed without packing.
constexpr size_t outer_few = 4;

// Scratch memory: first the panels of the right matrix, then, where it is packed, the left matrix of one group of rows,
// tile after tile.
template <class T> size_t outer_right(size_t columns, size_t depth) {
  return least(outer_depth, depth) * blocks<T>(columns) * lanes<T> + 64;
}
template <class T> bool packs_left(size_t columns) { return columns >= packed_left_panels * outer_width * lanes<T>; }
template <class T> size_t left_place(size_t row, size_t tile, size_t depth) { return row * depth + tile * lanes<T>; }
template <class T> size_t outer_scratch(size_t columns, size_t depth) {
  if (depth <= outer_few) return 0;
  return outer_right<T>(columns, depth) +
         (packs_left<T>(columns) ? left_place<T>(group_rows, group_rows, least(outer_depth, depth)) : 0);
}

// Bias gradients: c[r] += sum over k of a[k][r].
template <class T> void outer_sum(const OuterProduct<T> &q) {
  constexpr size_t VL = lanes<T>;
  constexpr int at_once = 4; // independent sums, which hide each other's latency
  for (size_t r = q.first, n = 0; r < q.last; r += n) {
    n = least(at_once * VL, q.last - r);
    alignas(64) T c[at_once * VL] = {};
    vec<T> sum[at_once];
    for (size_t i = 0; i < n && !q.overwrite; ++i) c[i] = q.c[q.row(r + i)];
    const auto valid = [&](int v) { return n > v * VL ? least(VL, n - v * VL) : 0; };
    unroll<at_once>([&](auto v) __attribute__((always_inline)) { sum[v] = load(c + v * VL); });
    for (size_t k = 0; k < q.depth; ++k) {
      const T *const a = q.a[k] + q.a_first + r;
      if (n == at_once * VL)
        unroll<at_once>([&](auto v) __attribute__((always_inline)) { sum[v] = sum[v] + load(a + v * VL); });
      else
        unroll<at_once>([&](auto v)
                            __attribute__((always_inline)) { sum[v] = sum[v] + load_first(a + v * VL, valid(v)); });
    }
    unroll<at_once>([&](auto v) __attribute__((always_inline)) { store(c + v * VL, sum[v]); });
    for (size_t i = 0; i < n; ++i) q.c[q.row(r + i)] = c[i];
  }
}

// D terms: one pass over the rows of c, which takes most of the time. Local variables hold what the loops need of q,
// since the compiler has to assume that a store to c changes q.
template <class T, int D, bool overwrite> void outer_of_few(const OuterProduct<T> &q) {
  constexpr size_t VL = lanes<T>;
  const size_t columns = q.columns, whole = columns - columns % VL, valid = columns - whole, ld = q.ld;
  const T *a[D], *b[D];
  unroll<D>([&](auto k) __attribute__((always_inline)) { a[k] = q.a[k] + q.a_first, b[k] = q.b[k] + q.b_first; });
  for (size_t r = q.first, last = q.last, hidden = q.hidden; r < last;) {
    const size_t end = least(last, (r / hidden + 1) * hidden); // the rows of one gate are neighbours in c
    for (T *c = q.c + q.row(r) * ld; r < end; ++r, c += ld) {
      vec<T> left[D];
      unroll<D>([&](auto k) __attribute__((always_inline)) { left[k] = broadcast(a[k][r]); });
      const auto add = [&](size_t i) __attribute__((always_inline)) {
        vec<T> sum = overwrite ? vec<T>{} : load(c + i);
        unroll<D>([&](auto k) __attribute__((always_inline)) { sum = fma(left[k], load(b[k] + i), sum); });
        store(c + i, sum);
      };
      size_t i = 0;
      for (; i + 4 * VL <= whole; i += 4 * VL)
        unroll<4>([&](auto j) __attribute__((always_inline)) { add(i + j * VL); });
      for (; i < whole; i += VL) add(i);
      if (!valid) continue;
      vec<T> sum = overwrite ? vec<T>{} : load_first(c + whole, valid);
      unroll<D>([&](auto k)
                    __attribute__((always_inline)) { sum = fma(left[k], load_first(b[k] + whole, valid), sum); });
      store_first(c + whole, sum, valid);
    }
  }
}

// For each block of terms the right matrix is packed once for all rows of c. Rows come in groups: the left matrix of
// one group stays in a near cache while all panels pass over it, and is packed too where there are enough panels.
template <class T> void outer_product(const OuterProduct<T> &q) {
  if (!q.b) return outer_sum(q);
  static_assert(outer_few == 4, "each has a case below");
  switch (q.depth) {
  case 1:
    return q.overwrite ? outer_of_few<T, 1, true>(q) : outer_of_few<T, 1, false>(q);
  case 2:
    return q.overwrite ? outer_of_few<T, 2, true>(q) : outer_of_few<T, 2, false>(q);
  case 3:
    return q.overwrite ? outer_of_few<T, 3, true>(q) : outer_of_few<T, 3, false>(q);
  case 4:
    return q.overwrite ? outer_of_few<T, 4, true>(q) : outer_of_few<T, 4, false>(q);
  }
  constexpr size_t VL = lanes<T>, full = outer_width * VL;
  alignas(64) static const T zeros[full] = {};
  alignas(64) T edge[accumulators * VL]; // stands for the sums of a tile that reaches beyond the last column
  const bool packs = packs_left<T>(q.columns);
  T *const packed = q.scratch + outer_right<T>(q.columns, q.depth);
  const T *left[outer_depth + prefetch_distance], *from_zeros[max_rows];
  for (const T *&from : from_zeros) from = zeros;
  for (size_t k0 = 0; k0 < q.depth; k0 += outer_depth) {
    const size_t depth = least(outer_depth, q.depth - k0);
    const bool overwrite = q.overwrite && k0 == 0;
    for (size_t k = 0; k < depth + prefetch_distance; ++k) left[k] = q.a[k0 + least(k, depth - 1)] + q.a_first;
    for (size_t at = 0; at < q.columns; at += full)
      pack_pieces<T, outer_width>(q.scratch + at * depth, q.b + k0, q.b_first + at, least(full, q.columns - at), depth);
    for (size_t g0 = q.first; g0 < q.last; g0 += group_rows) {
      const size_t group = least(group_rows, q.last - g0);
      T *c[group_rows + max_rows]; // the rows of c, then those that the last tile prefetches: any will do
      for (size_t j = 0, gate = g0 / q.hidden, unit = g0 % q.hidden; j < group + max_rows; ++j) {
        c[j] = g0 + j < q.last ? q.c + (size_t(q.order[gate]) * q.hidden + unit) * q.ld : c[0];
        if (++unit == q.hidden) unit = 0, ++gate;
      }
      if (packs) {
        row_tiles(group, tile_rows(outer_width)).each([&](size_t i, size_t r, size_t n) {
          tiles<T>.left[n - 1](packed + left_place<T>(r, i, depth), left, g0 + r, depth);
        });
      }
      for (size_t at = 0; at < q.columns; at += full) {
        const size_t width = least(outer_width, blocks<T>(q.columns - at)), valid = least(full, q.columns - at);
        const bool whole = valid == width * VL, packed_left = packs && width == outer_width;
        const auto in_edge = [&](size_t j) { return edge + j * width * VL; };
        T *to_edge[2 * max_rows];
        for (size_t j = 0; !whole && j < 2 * max_rows; ++j) to_edge[j] = in_edge(j < tile_rows(width) ? j : 0);
        const row_tiles tiling(group, tile_rows(width));
        const auto &tile = packed_left ? tiles<T>.outer_packed : tiles<T>.outer[width - 1];
        tile_operands<T> o;
        o.depth = depth;
        o.panel = q.scratch + at * depth;
        o.to_at = whole ? at : 0;
        o.from_at = overwrite ? 0 : o.to_at;
        tiling.each([&](size_t i, size_t r, size_t n) __attribute__((always_inline)) {
          o.to = whole ? c + r : to_edge;
          o.from = overwrite ? from_zeros : o.to;
          const T *const side = packed + left_place<T>(r, i, depth);
          o.a = packed_left ? &side : left;
          o.a_at = packed_left ? 0 : g0 + r;
          for (size_t j = 0; !whole && j < n; ++j) {
            for (size_t v = 0; !overwrite && v * VL < valid; ++v)
              store(in_edge(j) + v * VL, load_first(c[r + j] + at + v * VL, least(VL, valid - v * VL)));
            prefetch(c[r + n + j] + at, valid);
          }
          tile[n - 1](o);
          for (size_t j = 0; !whole && j < n; ++j)
            for (size_t v = 0; v * VL < valid; ++v)
              store_first(c[r + j] + at + v * VL, load(in_edge(j) + v * VL), least(VL, valid - v * VL));
        });
      }
    }
  }
}

// total = c (start) or total += c, for the rows of q.
template <class T> void outer_fold(T *total, const OuterProduct<T> &q, bool start) {
  constexpr size_t VL = lanes<T>;
  for (size_t r = q.first; r < q.last; ++r) {
    const size_t at = q.row(r) * q.ld;
    for (size_t i = 0; i < q.columns; i += VL) {
      const size_t valid = least(VL, q.columns - i);
      const vec<T> sum = load_first(q.c + at + i, valid);
      store_first(total + at + i, start ? sum : load_first(total + at + i, valid) + sum, valid);
    }
  }
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
