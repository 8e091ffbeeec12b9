// panels: where those of a matrix stand, how they are packed, and how rows pass over one.
#pragma once

#include "kernels/gemm.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

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
  for (size_t v = 0; v < place.width; ++v) {
    const size_t gate = first + (gates > 1 ? v : 0), unit = (place.block + (gates > 1 ? 0 : v)) * VL;
    pack_transposed(to + v * VL, place.width * VL, w + (gate * hidden + unit) * ld + from, ld, least(VL, hidden - unit),
                    depth);
  }
}

// [from, from + depth) of k of the plain panel of columns [at, at + columns), of the `total` rows there are.
template <class T>
void pack_plain_panel(T *to, const RowMajor<T> &b, size_t total, size_t at, size_t columns, size_t from, size_t depth) {
  const auto row = [&](size_t k) {
    const size_t r = b.first_row + k;
    return b.at + (r < total ? r : r - total) * b.ld + at;
  };
  for (size_t k = from; k < from + depth; ++k) {
    if (k + packing_distance_rows < total) prefetch(row(k + packing_distance_rows), columns);
    to = pack_row<T, max_width>(to, row(k), columns);
  }
}

// sum += a b for the plain panel of whole registers from column `at` on, of a matrix that is not packed: a row alone
// reads a number once, so nothing is gained by moving it first. `depth` rows there are.
template <class T, int W>
FASTRNN_INLINE void add_row(vec<T> (&sum)[W], const T *a, const RowMajor<T> &b, size_t depth, size_t at) {
  const auto some = [&](size_t row, size_t rows) __attribute__((always_inline)) {
    const T *from = b.at + row * b.ld + at;
    for (const T *const end = a + rows; a < end; ++a, from += b.ld) {
      const vec<T> x = broadcast(*a);
      unroll<W>([&](auto w) __attribute__((always_inline)) { sum[w] = fma(x, load(from + w * lanes<T>), sum[w]); });
    }
  };
  some(b.first_row, depth - b.first_row);
  some(0, b.first_row);
}

// ---- passing over a panel -------------------------------------------------------------------------------

// Sums of a group of rows for one panel (or of two rows for two panels).
template <class T> constexpr size_t group_numbers = group_rows_in_pieces * max_width * lanes<T>;
static_assert(group_rows <= group_rows_in_pieces && group_rows >= 4, "two rows of two panels fit as well");
// Room for the piece of a panel that is packed as it is read.
template <class T> constexpr size_t piece_numbers = piece_depth * max_width * lanes<T>;

// A panel, or two of one width for two rows, of a matrix that is packed or whose panels are packed piece by piece.
template <class T> struct Panel {
  const RowMajor<T> &rows;
  const T *packed = nullptr, *next = nullptr; // and the panel that is passed over after this one
  size_t depth, width;
  bool two;
  size_t bytes = 0; // of the matrix
  enum { near, middling, far } distance = near;

  // columns of the matrix, and those at which this panel and the next one start
  Panel(const T *matrix, const RowMajor<T> &rows, size_t depth, size_t width, size_t columns, size_t at, size_t next_at,
        bool two = false)
      : rows(rows), depth(depth), width(width), two(two) {
    if (rows.at) return;
    packed = matrix + at * depth;
    next = matrix + next_at * depth;
    bytes = depth * columns * sizeof(T);
    distance = bytes < near_bytes ? near : bytes > far_bytes ? far : middling;
  }
  // how many of these tiles, the first ones, fetch the next panel
  size_t prefetching(const row_tiles &tiling) const {
    if (distance == far) return tiling.with(two ? prefetching_rows : prefetching_rows_far);
    return distance == near || tiling.count <= few_tiles ? 0 : tiling.with(prefetching_rows);
  }
};

// The groups in which so many rows pass over a panel.
template <class T> row_tiles row_groups(size_t rows, const RowMajor<T> &matrix) {
  return row_tiles(rows, matrix.at ? group_rows_in_pieces : group_rows);
}

// The rows of a group: where each starts in the sums, in what they start from, and on the left side.
template <class T> struct group_lists {
  T *to[group_rows_in_pieces];
  const T *from[group_rows_in_pieces], *a[group_rows_in_pieces];

  // whether they are to be made anew, for the group that begins with this row and sums so many numbers apart
  bool must_fill(size_t first, size_t ld) {
    if (first == first_ && ld == ld_) return false;
    first_ = first, ld_ = ld;
    return true;
  }
  tile_operands<T> operands(size_t from_at = 0) const {
    tile_operands<T> o;
    o.to = to, o.from = from, o.a = a;
    o.from_at = from_at;
    return o;
  }

private:
  size_t first_ = 0, ld_ = 0;
};

// All products of rows [first, first + rows), a group, with one panel. The rows pass over it block after block of
// depth, tile after tile, and what comes next is fetched meanwhile. `o` has the lists of the group and where in the
// rows of `to` and `from` the panel stands.
//   pack(piece, rows, from, depth): a piece of a panel that is not packed
//   prepare(r, n, k, end): what is left to do for rows [r, r + n) before depth k; end: no depth comes after these
//   done(r, n, more): the sums of rows [r, r + n) are finished; more: others of the group are not
template <class T, class Pack, class Prepare, class Done>
FASTRNN_INLINE void pass_over(const Panel<T> &panel, tile_operands<T> o, size_t first, size_t rows, T *piece,
                              Pack &&pack, Prepare &&prepare, Done &&done) {
  const bool in_pieces = panel.rows.at;
  const bool halves = in_halves(rows, panel.width, panel.bytes);
  const row_tiles tiling(rows, halves ? rows_in_halves : tile_rows(panel.width));
  const size_t prefetching = panel.prefetching(tiling);
  const depth_blocks depth(panel.depth, halves || tiling.count > 1, in_pieces);
  const tile_operands<T> start = o;
  o.step = panel.width * lanes<T>;
  o.panel_step = o.step * panel.depth;
  for (size_t k = 0; k < depth.count(); ++k) {
    const size_t begin = depth.begin(k);
    const bool last = depth.last(k);
    o.depth = depth.length(k);
    o.to = start.to;
    o.from = k ? start.to : start.from;
    o.from_at = k ? start.to_at : start.from_at;
    o.a = start.a;
    o.a_at = begin;
    o.panel = piece;
    if (in_pieces) {
      pack(piece, panel.rows, begin, o.depth);
    } else {
      o.panel = panel.packed + begin * o.step;
      const T *const next = last ? panel.next : o.panel + o.depth * o.step;
      o.next = {next, depth.length(last ? 0 : k + 1) * o.step, prefetching, o.depth};
    }
    for (size_t i = 0, r = first; i < tiling.count; ++i) {
      const size_t n = tiling.size(i);
      prepare(r, n, begin, last);
      (panel.two                       ? tiles<T>.paired[panel.width - 1]
       : halves && n == rows_in_halves ? tiles<T>.halves
                                       : tiles<T>.single[panel.width - 1][n - 1])(o);
      o.to += n, o.from += n, o.a += n;
      o.next.advance();
      if (last) done(r, n, i + 1 < tiling.count);
      r += n;
    }
  }
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
