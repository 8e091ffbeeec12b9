// panels: where each panel of a matrix stands, how it is packed, and how the rows of a product pass over it.
//
// There are two kinds. Gate panels hold the weights of a recurrent layer: all gates of one block of units lie side by
// side, so a cell finds its pre-activations together. Plain panels hold any other matrix, up to max_width registers of
// neighbouring columns. Elman layers have one gate, so their gate panels hold several blocks of units.
#pragma once

#include "kernels/gemm.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Blocks of `lanes` numbers, the last one perhaps not full.
template <class T> inline size_t blocks(size_t n) { return (n + lanes<T> - 1) / lanes<T>; }

// Where a panel stands in its matrix: its first block of units (or columns), how many registers it is wide, and how
// many blocks it covers.
struct panel_place {
  size_t block, width, blocks;
};
// Panel p of a matrix with this many gates; 1 for plain panels.
inline panel_place gate_panel(size_t p, size_t gates, size_t all_blocks) {
  if (gates > 1) return {p, gates, 1};
  const size_t n = least(max_width, all_blocks - p * max_width);
  return {p * max_width, n, n};
}
inline size_t gate_panel_count(size_t gates, size_t all_blocks) {
  return gates > 1 ? all_blocks : (all_blocks + max_width - 1) / max_width;
}

// ---- packing ------------------------------------------------------------------------------------------

// Packs `depth` lines of a gate panel, those of k = from, from + 1, ... w is row-major, [gates * hidden, K]; the
// panel's gates begin with number `first` of those in w.
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

// Packs `depth` lines of a plain panel, those of k = from, from + 1, ... The panel stands for columns at, at + 1, ...
// of b, which has `total` rows.
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

// sum += a b for one row a and the W registers of columns from `at` on of a matrix b that is not packed and has `depth`
// rows. A single row reads every number of b once, so packing them first would gain nothing.
template <class T, int W>
FASTRNN_INLINE void add_row(vec<T> (&sum)[W], const T *a, const RowMajor<T> &b, size_t depth, size_t at) {
  const auto add = [&](size_t row, size_t rows) __attribute__((always_inline)) {
    const T *from = b.at + row * b.ld + at;
    for (const T *const end = a + rows; a < end; ++a, from += b.ld) {
      const vec<T> x = broadcast(*a);
      unroll<W>([&](auto w) __attribute__((always_inline)) { sum[w] = fma(x, load(from + w * lanes<T>), sum[w]); });
    }
  };
  add(b.first_row, depth - b.first_row);
  add(0, b.first_row);
}

// ---- passing over a panel -------------------------------------------------------------------------------

// How many sums a group of rows has for one panel (or two rows for two panels).
template <class T> constexpr size_t group_numbers = group_rows_in_pieces * max_width * lanes<T>;
static_assert(group_rows <= group_rows_in_pieces && group_rows >= 4, "two rows of two panels fit as well");
// The size of a piece of a panel that is packed while it is read.
template <class T> constexpr size_t piece_numbers = piece_depth * max_width * lanes<T>;

// One panel of a matrix, or two neighbouring ones of the same width for a tile of two rows. The matrix is either packed
// or row-major; then its panels are packed piece by piece while they are read.
template <class T> struct Panel {
  const RowMajor<T> &rows;
  const T *packed = nullptr, *next = nullptr; // this panel and the one that rows pass over after it
  size_t depth, width;
  bool two;
  size_t bytes = 0;                             // of the matrix
  enum { near, middling, far } distance = near; // from the core: which cache holds a matrix of this size

  // `columns`: of the matrix; `at`, `next_at`: the first columns of this panel and of the next one
  Panel(const T *matrix, const RowMajor<T> &rows, size_t depth, size_t width, size_t columns, size_t at, size_t next_at,
        bool two = false)
      : rows(rows), depth(depth), width(width), two(two) {
    if (rows.at) return;
    packed = matrix + at * depth;
    next = matrix + next_at * depth;
    bytes = depth * columns * sizeof(T);
    distance = bytes < near_bytes ? near : bytes > far_bytes ? far : middling;
  }
  // how many tiles, the first ones, prefetch the next panel
  size_t prefetching(const row_tiles &tiling) const {
    if (distance == far) return tiling.with(two ? prefetching_rows : prefetching_rows_far);
    return distance == near || tiling.count <= few_tiles ? 0 : tiling.with(prefetching_rows);
  }
};

// How the rows of a product are divided into groups.
template <class T> row_tiles row_groups(size_t rows, const RowMajor<T> &matrix) {
  return row_tiles(rows, matrix.at ? group_rows_in_pieces : group_rows);
}

// Where each row of a group starts in the arrays of tile_operands. The lists stay the same from panel to panel as long
// as there is one group only, so they are filled again only where something changed.
template <class T> struct group_lists {
  T *to[group_rows_in_pieces];
  const T *from[group_rows_in_pieces], *a[group_rows_in_pieces];

  // Whether the lists of another group are in place, or of sums whose rows have another length. The caller fills them
  // then. `first`: the first row of the group; `ld`: the length of a row of sums.
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

// The products of one group of rows with one panel: for each block of depth, one tile after the other, while what is
// read next is prefetched. The group has `rows` rows and begins with row `first`; `o` has its lists and, in to_at and
// from_at, the place of the panel in their rows. The caller's part is in three functions:
//   pack(piece, matrix, k, depth)  packs `depth` lines of the panel, from line k on, of a row-major matrix
//   prepare(r, n, k, last)         is called before the tile of rows [r, r + n) passes over the block that begins at
//                                  line k; last: it is the last block
//   done(r, n, more)               is called when the sums of rows [r, r + n) are finished; more: rows are left
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
