// Whole-sequence products on the microkernels: input products, gradients of inputs and of weights.
#pragma once

#include "step.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Packed rows of pre-activations: out[i][block][gate][lane] = bias + a[i] W
template <class T> void gate_product(const Product<T> &q, size_t gates, size_t slots) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.columns);
  const row_tiles groups(q.rows, group_rows);
  for (size_t p = q.first_panel; p < q.last_panel; ++p) {
    const panel_place place = gate_panel(p, gates, all_blocks);
    const size_t at = place.block * VL * slots, step = place.width * VL;
    const T *const panel = q.b + place.block * gates * VL * q.depth;
    const T *init[max_rows];
    for (auto &row : init) row = q.init;
    for (size_t i_group = 0, g0 = 0; i_group < groups.count; g0 += groups.size(i_group), ++i_group) {
      const row_tiles tiling(groups.size(i_group), tile_rows(gates == 1 ? max_width : int(gates)));
      const depth_blocks depth(q.depth, tiling);
      for (size_t k = 0; k < depth.count(); ++k) {
        const T *const from = panel + depth.begin(k) * step, *const ahead = from + depth.length(k) * step;
        for (size_t i = 0, r0 = g0; i < tiling.count; r0 += tiling.size(i), ++i) {
          const T *a[max_rows];
          for (size_t j = 0; j < tiling.size(i); ++j) a[j] = q.a[r0 + j] + depth.begin(k);
          tiles<T>.single[place.width - 1][tiling.size(i) - 1](q.out + r0, at, 0, k ? q.out + r0 : init, at, a,
                                                               depth.length(k), from, 0,
                                                               fetch_ahead(ahead, i, depth.length(k)));
        }
      }
    }
  }
}

// out[i] = a[i] B, or out[i] += a[i] B
template <class T> void plain_product(const Product<T> &q) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.columns);
  const row_tiles groups(q.rows, group_rows);
  alignas(64) T sums[group_numbers<T>];
  alignas(64) T zero[max_width * VL] = {};
  for (size_t p = q.first_panel; p < q.last_panel; ++p) {
    const panel_place place = gate_panel(p, 1, all_blocks);
    const size_t unit0 = place.block * VL, ld = place.width * VL;
    for (size_t i_group = 0, g0 = 0; i_group < groups.count; g0 += groups.size(i_group), ++i_group) {
      const row_tiles tiling(groups.size(i_group), tile_rows(max_width));
      const depth_blocks depth(q.depth, tiling);
      for (size_t k = 0; k < depth.count(); ++k) {
        const T *const panel = q.b + unit0 * q.depth + depth.begin(k) * ld, *const ahead = panel + depth.length(k) * ld;
        for (size_t i = 0, r0 = g0; i < tiling.count; r0 += tiling.size(i), ++i) {
          const size_t n = tiling.size(i), kept = depth.count() > 1 ? (r0 - g0) * ld : 0;
          T *to[max_rows];
          const T *init[max_rows], *a[max_rows];
          for (size_t j = 0; j < n; ++j) {
            to[j] = sums + kept + j * ld;
            init[j] = k ? to[j] : zero;
            a[j] = q.a[r0 + j] + depth.begin(k);
          }
          tiles<T>.single[place.width - 1][n - 1](to, 0, 0, init, 0, a, depth.length(k), panel, 0,
                                                  fetch_ahead(ahead, i, depth.length(k)));
          if (!depth.last(k)) continue;
          for (size_t j = 0; j < n; ++j) {
            for (size_t b = 0; b < place.blocks; ++b) {
              const size_t unit = unit0 + b * VL, valid = least(VL, q.columns - unit);
              T *out = q.out[r0 + j] + unit;
              vec<T> sum = load(to[j] + b * VL);
              if (q.add) sum = load_first(out, valid) + sum;
              store_first(out, sum, valid);
            }
          }
        }
      }
    }
  }
}

// Steps of the long sum over time and batch that are packed at once. All sums are read and written once for so
// many: more would save little, and a panel of gradients of this depth (depth * 256 bytes) is to leave most of
// the second-level cache to them.
constexpr size_t outer_depth = 128;

template <class T> size_t outer_scratch(size_t columns) {
  return outer_depth * (columns + size_t(max_width) * lanes<T>)+64;
}

template <class T> void outer_product(const OuterProduct<T> &q) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.hidden), count = gate_panel_count(q.slots, all_blocks);
  const size_t full = size_t(tile_rows(q.slots == 1 ? max_width : int(q.slots)));
  T *const right = q.scratch;
  alignas(64) static const T zeros[accumulators * VL] = {};
  for (size_t k0 = 0; k0 < q.depth; k0 += outer_depth) {
    const size_t depth = least(outer_depth, q.depth - k0);
    T *left[OuterProduct<T>::most_parts], *at = right + depth * max_width * VL;
    for (size_t i = 0; i < q.count; ++i) {
      const OuterPart<T> &part = q.parts[i];
      left[i] = at;
      if (part.a)
        pack_columns(at, part.a + k0, depth, part.first, part.last, full);
      else
        for (size_t k = 0; k < depth * (part.last - part.first); ++k) at[k] = T(1);
      at += depth * (part.last - part.first);
    }
    for (size_t p = 0; p < count; ++p) {
      const panel_place place = gate_panel(p, q.slots, all_blocks);
      for (size_t v = 0; v < place.width; ++v) {
        const size_t slot = q.first_slot + (q.slots > 1 ? v : 0);
        const size_t unit = (place.block + (q.slots > 1 ? 0 : v)) * VL;
        const size_t from = slot * q.hidden + unit;
        pack_row_pieces(right + v * VL, place.width * VL, q.d + k0, from, least(VL, q.hidden - unit), depth);
      }
      for (size_t i = 0; i < q.count; ++i) {
        const OuterPart<T> &part = q.parts[i];
        T *c = part.c + (place.block * q.slots * part.c_columns + part.c_first * place.width) * VL;
        for (size_t first = part.first; first < part.last; first += full) {
          T *const to = c + first * place.width * VL;
          tiles<T>.outer[place.width - 1][least(full, part.last - first) - 1](
              to, q.fresh && k0 == 0 ? zeros : to, left[i] + (first - part.first) * depth, depth, right);
        }
      }
    }
  }
}

template <class T> void outer_fold(const OuterProduct<T> &q, Fold how) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.hidden), count = gate_panel_count(q.slots, all_blocks);
  for (size_t i = 0; i < q.count; ++i) {
    const OuterPart<T> &part = q.parts[i];
    for (size_t p = 0; p < count; ++p) {
      const panel_place place = gate_panel(p, q.slots, all_blocks);
      const size_t at = (place.block * q.slots * part.c_columns + (part.c_first + part.first) * place.width) * VL;
      const size_t n = (part.last - part.first) * place.width * VL;
      T *const c = part.c + at, *const total = part.total + at;
      for (size_t j = 0; j < n; j += VL) {
        const vec<T> sum = how == Fold::start ? load(c + j) : load(total + j) + load(c + j);
        store((how == Fold::finish ? c : total) + j, sum);
      }
    }
  }
}

// c[panel][column][vec] -> w[order[slot] H + unit][column]
template <class T>
void unpack_gates(T *w, size_t ld, const T *c, size_t c_columns, size_t first, size_t n, size_t slots, const int *order,
                  size_t hidden) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(hidden), count = gate_panel_count(slots, all_blocks);
  for (size_t p = 0; p < count; ++p) {
    const panel_place place = gate_panel(p, slots, all_blocks);
    const size_t step = place.width * VL;
    for (size_t v = 0; v < place.width; ++v) {
      const size_t unit = (place.block + (slots > 1 ? 0 : v)) * VL, valid = least(VL, hidden - unit);
      const T *from = c + place.block * slots * c_columns * VL + first * step + v * VL;
      T *to = w + (size_t(order[slots > 1 ? v : 0]) * hidden + unit) * ld;
      size_t column = 0;
      if (valid == VL) {
        for (; column + VL <= n; column += VL) {
          vec<T> square[VL];
          unroll<lanes<T>>([&](auto i)
                               __attribute__((always_inline)) { square[i] = load(from + (column + i) * step); });
          transpose<T>(square);
          unroll<lanes<T>>([&](auto i) __attribute__((always_inline)) { store(to + i * ld + column, square[i]); });
        }
      }
      for (; column < n; ++column)
        for (size_t lane = 0; lane < valid; ++lane) to[lane * ld + column] = from[column * step + lane];
    }
  }
}

// c[panel][row][vec] -> w[row][unit]
template <class T> void unpack_plain(T *w, size_t ld, const T *c, size_t rows, size_t columns) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(columns), count = gate_panel_count(1, all_blocks);
  for (size_t p = 0; p < count; ++p) {
    const panel_place place = gate_panel(p, 1, all_blocks);
    for (size_t row = 0; row < rows; ++row)
      for (size_t v = 0; v < place.width; ++v) {
        const size_t unit = (place.block + v) * VL;
        store_first(w + row * ld + unit, load(c + (place.block * rows + row * place.width + v) * VL),
                    least(VL, columns - unit));
      }
  }
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
