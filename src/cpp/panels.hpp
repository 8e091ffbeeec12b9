// panels: where those of a matrix stand, how they are packed, and how rows pass over one.
#pragma once

#include "gemm.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }
template <class T> inline size_t blocks(size_t n) { return (n + lanes<T> - 1) / lanes<T>; }

// Where panel p of a matrix with `gates` vectors a unit block stands: its first block and its width.
struct panel_place {
  size_t block, width, blocks;
};
inline panel_place gate_panel(size_t p, size_t gates, size_t all_blocks) {
  if (gates > 1) return {p, gates, 1};
  const size_t n = least(max_width, all_blocks - p * max_width);
  return {p * max_width, n, n};
}
inline size_t gate_panel_count(size_t gates, size_t all_blocks) {
  return gates > 1 ? all_blocks : (all_blocks + max_width - 1) / max_width;
}

// ---- packing ------------------------------------------------------------------------------------------

// [from, from + depth) of k of a gate panel: unit block `block` of all gates, or, of one gate, `width` blocks. `hidden`
// rows a gate, starting with those of gate `first`.
template <class T>
void pack_gate_panel(T *to, const T *w, size_t ld, size_t first, size_t gates, size_t hidden, const panel_place &place,
                     size_t from, size_t depth) {
  constexpr size_t VL = lanes<T>;
  const size_t part = size_t(part_width(int(place.width)));
  for (size_t v = 0; v < place.width; ++v) {
    const size_t gate = first + (gates > 1 ? v : 0), unit = (place.block + (gates > 1 ? 0 : v)) * VL;
    pack_transposed(to + (v / part * part * depth + v % part) * VL, part * VL, w + (gate * hidden + unit) * ld + from,
                    ld, least(VL, hidden - unit), depth);
  }
}

// Row k of a plain panel of `depth` rows: `valid` numbers.
template <class T> FASTRNN_INLINE void pack_plain_row(T *to, size_t k, size_t depth, const T *from, size_t valid) {
  constexpr int part = part_width(max_width);
  constexpr size_t VL = lanes<T>, step = part * VL;
  static_assert(part_width(3) == 3 && part_width(2) == 2, "narrower panels are one part");
  const size_t width = blocks<T>(valid);
  if (width < max_width) {
    pack_row<T, max_width>(to + k * width * VL, from, valid);
    return;
  }
  unroll<max_width / part>([&](auto p) __attribute__((always_inline)) {
    pack_row<T, part>(to + (p * depth + k) * step, from + p * step, least(step, valid - p * step));
  });
}

// [from, from + depth) of k of the plain panel of columns [at, at + columns), of the `total` rows there are.
template <class T>
void pack_plain_panel(T *to, const RowMajor<T> &b, size_t total, size_t at, size_t columns, size_t from, size_t depth) {
  for (size_t k = 0; k < depth; ++k) {
    const size_t row = b.first_row + from + k;
    pack_plain_row(to, k, depth, b.at + (row < total ? row : row - total) * b.ld + at, columns);
  }
}

// ---- passing over a panel -------------------------------------------------------------------------------

// Sums of a group of rows for one panel (or of few rows for two panels).
template <class T> constexpr size_t group_numbers = group_rows * max_width * lanes<T>;
static_assert(group_rows >= 2 * few_rows, "few rows of two panels fit as well");
// Room for the piece of a panel that is packed as it is read.
template <class T> constexpr size_t piece_numbers = piece_depth * max_width * lanes<T>;

// One panel, or several of one width as one, of a matrix that is packed or whose panels are packed piece by piece.
template <class T> struct Panel {
  const RowMajor<T> &rows;
  const T *packed = nullptr, *next = nullptr; // and the panel that is passed over after this one
  size_t depth, width, parts;                 // registers of a part; parts, one behind the other

  // columns at which this panel and the next one start
  Panel(const T *matrix, const RowMajor<T> &rows, size_t depth, const panel_place &place, size_t at, size_t next_at,
        size_t panels = 1)
      : rows(rows), depth(depth), width(size_t(part_width(int(place.width)))), parts(place.width / width * panels) {
    if (rows.at) return;
    packed = matrix + at * depth;
    next = matrix + next_at * depth;
  }
};

// What a tile works on: rows of sums, what they start from, and the left side.
template <class T> struct operands {
  T *to[max_rows];
  const T *from[max_rows], *a[max_rows];
};
// When: at depth k; first, last: no product of these rows came before, none comes after.
struct moment {
  size_t k;
  bool first, last;
};

// All products of rows [first, first + rows), a group, with one panel. The rows pass over it block after block of
// depth, tile after tile, and what comes next is fetched meanwhile.
//   pack(piece, rows, from, depth): a piece of a panel that is not packed
//   prepare(o, r, n, moment): the operands of rows [r, r + n)
//   done(r, n, more): the sums of rows [r, r + n) are finished; more: others of the group are not
template <class T, class Pack, class Prepare, class Done>
FASTRNN_INLINE void pass_over(const Panel<T> &panel, size_t first, size_t rows, T *piece, Pack &&pack,
                              Prepare &&prepare, Done &&done) {
  const size_t step = panel.width * lanes<T>, part = panel.depth * step;
  const bool two = panel.parts == 2 && takes_two(int(least(rows, max_rows)), int(panel.width));
  const size_t turns = two ? 1 : panel.parts;
  const row_tiles tiling(rows, size_t(tile_rows(int(panel.width))));
  const depth_blocks depth(panel.depth, tiling, panel.rows.at);
  const bool in_pieces = panel.rows.at;
  operands<T> o;
  for (size_t k = 0; k < depth.count(); ++k) {
    const size_t begin = depth.begin(k), length = depth.length(k);
    if (in_pieces) pack(piece, panel.rows, begin, length);
    for (size_t turn = 0; turn < turns; ++turn) {
      const T *block = piece + turn * length * step;
      upcoming<T> ahead;
      if (!in_pieces) {
        block = panel.packed + turn * part + begin * step;
        if (turn + 1 < turns)
          ahead = upcoming<T>::block(block + part, length * step);
        else if (depth.last(k))
          ahead = upcoming<T>::block(panel.next, depth.length(0) * step);
        else
          ahead = upcoming<T>::block(block + length * step - turn * part, depth.length(k + 1) * step);
      }
      for (size_t i = 0, r = first; i < tiling.count; r += tiling.size(i), ++i) {
        const size_t n = tiling.size(i);
        const bool last = depth.last(k) && turn + 1 == turns;
        prepare(o, r, n, moment{begin, k == 0 && turn == 0, last});
        const auto product = two ? tiles<T>.two[panel.width - 1][n - 1] : tiles<T>.single[panel.width - 1][n - 1];
        product(o.to, o.from, turn * step, step, o.a, length, block, in_pieces ? length * step : part,
                ahead.part(i, length));
        if (last) done(r, n, i + 1 < tiling.count);
      }
    }
  }
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
