// Whole-sequence products on the microkernels: input products, gradients of inputs and of weights.
#pragma once

#include "step.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Packed rows of pre-activations: out[i][block][gate][lane] = bias + a[i] W
template <class T> void gate_product(const Product<T> &q, size_t gates, size_t slots) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.columns);
  const row_tiles tiling(q.rows, tile_rows(gates == 1 ? max_width : int(gates)));
  for (size_t p = q.first_panel; p < q.last_panel; ++p) {
    const panel_place place = gate_panel(p, gates, all_blocks);
    const size_t at = place.block * VL * slots;
    const T *init[max_rows];
    for (auto &row : init) row = q.init;
    for (size_t i = 0, r0 = 0; i < tiling.count; r0 += tiling.size(i), ++i)
      tiles<T>.single[place.width - 1][tiling.size(i) - 1](q.out + r0, at, 0, init, at, q.a + r0, q.depth,
                                                           q.b + place.block * gates * VL * q.depth, 0);
  }
}

template <class T> void plain_product(const Product<T> &q) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.columns);
  const row_tiles tiling(q.rows, tile_rows(max_width));
  alignas(64) T sums[tile_numbers<T>];
  alignas(64) T zero[max_width * VL] = {};
  for (size_t p = q.first_panel; p < q.last_panel; ++p) {
    const panel_place place = gate_panel(p, 1, all_blocks);
    const size_t unit0 = place.block * VL, ld = place.width * VL;
    for (size_t i = 0, r0 = 0; i < tiling.count; r0 += tiling.size(i), ++i) {
      const size_t n = tiling.size(i);
      T *to[max_rows];
      const T *init[max_rows];
      for (size_t j = 0; j < n; ++j) {
        to[j] = sums + j * ld;
        init[j] = zero;
      }
      tiles<T>.single[place.width - 1][n - 1](to, 0, 0, init, 0, q.a + r0, q.depth, q.b + unit0 * q.depth, 0);
      for (size_t j = 0; j < n; ++j) {
        for (size_t b = 0; b < place.blocks; ++b) {
          const size_t unit = unit0 + b * VL, valid = least(VL, q.columns - unit);
          T *out = q.out[r0 + j] + unit;
          vec<T> sum = load(sums + j * ld + b * VL);
          if (q.add) sum = load_first(out, valid) + sum;
          store_first(out, sum, valid);
        }
      }
    }
  }
}

// Steps of the long sum over time and batch that are packed at once: a panel of gradients of this depth
// (depth * 256 bytes) and a tile of the other side stay in a 32 KiB first-level cache.
constexpr size_t outer_depth = 96;

template <class T> size_t outer_scratch(size_t columns) {
  return outer_depth * (columns + max_rows + size_t(max_width) * lanes<T>)+64;
}

template <class T> void outer_product(const OuterProduct<T> &q) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(q.hidden), count = gate_panel_count(q.slots, all_blocks);
  const size_t most = q.a ? size_t(tile_rows(q.slots == 1 ? max_width : int(q.slots))) : 1;
  T *const left = q.scratch, *const right = q.scratch + (outer_depth * (q.last - q.first) + 15) / 16 * 16;
  for (size_t k0 = 0; k0 < q.depth; k0 += outer_depth) {
    const size_t depth = least(outer_depth, q.depth - k0);
    for (size_t first = q.first; first < q.last; first += most) {
      T *to = left + (first - q.first) * depth;
      if (q.a)
        pack_columns(to, q.a + k0, depth, first, least(most, q.last - first));
      else
        for (size_t k = 0; k < depth; ++k) to[k] = T(1);
    }
    for (size_t p = 0; p < count; ++p) {
      const panel_place place = gate_panel(p, q.slots, all_blocks);
      for (size_t v = 0; v < place.width; ++v) {
        const size_t slot = q.first_slot + (q.slots > 1 ? v : 0);
        const size_t unit = (place.block + (q.slots > 1 ? 0 : v)) * VL;
        const size_t from = slot * q.hidden + unit, valid = least(VL, q.hidden - unit);
        T *to = right + v * VL;
        for (size_t k = 0; k < depth; ++k) store(to + k * place.width * VL, load_first(q.d[k0 + k] + from, valid));
      }
      T *c = q.c + (place.block * q.slots * q.c_columns + q.c_first * place.width) * VL;
      for (size_t first = q.first; first < q.last; first += most)
        tiles<T>.outer[place.width - 1][least(most, q.last - first) - 1](
            c + first * place.width * VL, left + (first - q.first) * depth, depth, right);
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
