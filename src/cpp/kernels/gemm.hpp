// gemm: the microkernel, which computes one tile of a matrix product in registers, and the packed matrices it reads.
//
// A packed matrix consists of panels. A panel is W registers wide and has one line of W * lanes numbers for every k,
// the index that the product sums over: [k][W * lanes]. A tile is MR rows of the left matrix times one panel, or P
// neighbouring panels:
//     c[r][:] = init[r][:] + sum over k of a[r][k] * panel[k][:]
// The sum runs in ascending order of k, with one fma for each term, whatever the tile an element falls in. Therefore a
// sequence gets the same bits alone and in any batch, and a product the same bits in one piece and in several.
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

// ---- sizes of tiles -----------------------------------------------------------------------------------

// Registers that hold the sums of a tile. The rest hold what a tile loads: the weights of one k and a broadcast number.
constexpr size_t accumulators = FASTRNN_REGISTERS == 32 ? 24 : 12;
constexpr int max_rows = 8;  // of a tile
constexpr int max_width = 4; // of a panel, in registers
// Width of the panels of weight gradients. There both matrices come from the second-level cache, so the best tile is
// the one that loads least for each fma: with 12 accumulators 6 rows x 2 registers rather than 3 x 4.
constexpr int outer_width = FASTRNN_REGISTERS == 32 ? 4 : 2;
// The most rows of a tile on a panel of this width. A table, because a division would delay the small products.
constexpr size_t tile_rows(size_t width) {
  constexpr size_t rows[] = {0, accumulators < max_rows ? accumulators : max_rows,
                             accumulators / 2 < max_rows ? accumulators / 2 : max_rows, accumulators / 3,
                             accumulators / 4};
  static_assert(accumulators / 3 <= max_rows, "one accumulator for each row and register of width");
  return rows[width];
}
// A tile of two rows on one panel has too few independent chains of fma to fill the pipeline. It takes two panels at
// once where there are accumulators for both. (few_rows.hpp does the same for a single row.)
constexpr bool pairs_two_rows(size_t width) { return 2 * 2 * width <= accumulators; }
// With 12 accumulators, a tile on a panel of full width has three rows at most. Four rows would need two tiles, each of
// which reads the whole panel and spends as long on its loads as on its arithmetic. One tile of four rows takes the two
// halves of the panel's width instead, one after the other. Of seven rows it takes the first four. This does not pay
// for matrices that come from memory, which those larger than the limit do.
constexpr size_t rows_in_halves = 4, most_bytes_in_halves = size_t(6) << 20;
constexpr bool tiles_have_halves = tile_rows(max_width) < rows_in_halves;
constexpr bool in_halves(size_t rows, size_t width, size_t bytes) {
  return tiles_have_halves && width == max_width && (rows == rows_in_halves || rows == rows_in_halves + 3) &&
         bytes <= most_bytes_in_halves;
}
// How many k one round of a tile's loop computes. The loop's own instructions are shared by them, which matters most
// where another thread runs on the same core.
#if !defined(FASTRNN_UNROLL)
#define FASTRNN_UNROLL 4
#endif
constexpr size_t unroll_factor = FASTRNN_UNROLL;
// How many k of a panel all rows of a group pass over before the next ones. A panel's part (at most 512 * 256 bytes)
// then stays in the second-level cache, and that of a tile's rows in the first.
constexpr size_t depth_block = 512;
// The same for weights that are packed while they are read (RowMajor). Two such pieces (at most 128 * 256 bytes each)
// lie on the stack and must stay in a near cache.
constexpr size_t piece_depth = 128;
// The most rows that pass over a part of a panel together. Their sums (at most 96 * 256 bytes) stay in a near cache
// meanwhile. A group is larger where every group has to pack the panel again.
constexpr size_t group_rows = 96, group_rows_in_pieces = rows_in_pieces;
// From this many panels on, the left matrix of a weight gradient is packed: every panel reads it again, and its lines,
// one for each step and sequence, are scattered over many pages of memory. For fewer panels packing costs more.
constexpr size_t packed_left_panels = 8;

// ---- prefetching --------------------------------------------------------------------------------------
//
// The tiles that pass over one panel prefetch the next one. The limits below were found by measurement.

// Tiles of at least this many rows compute for longer than they load, so they have time to prefetch. The hardware's own
// prefetcher alone does not run far enough ahead.
constexpr int prefetching_rows = 3;
// Matrices smaller than this are not prefetched, since most of one stays in the second-level cache; nor are those that
// a group of at most this many tiles passes over, since each tile would have to prefetch almost a line for every k.
constexpr size_t near_bytes = size_t(1) << 20;
constexpr size_t few_tiles = 2;
// Of matrices larger than this, tiles of two rows prefetch as well, in groups of any size: other programs share the
// last-level cache, so a part of such a matrix comes from memory.
constexpr int prefetching_rows_far = 2;
constexpr size_t far_bytes = size_t(12) << 20;
// How many steps ahead weight gradients prefetch their left matrix; with 32 registers, also how many k ahead a tile
// prefetches its own panel. With 16 registers tiles load more often, and the hardware's prefetcher is enough.
constexpr int prefetch_distance = 6;
constexpr bool prefetches_panel = FASTRNN_REGISTERS == 32;
// Packing jumps from one row of a matrix to the next, which the hardware's prefetcher does not follow. It prefetches
// this many rows ahead, or, where it reads along several rows at once, this many numbers ahead in each.
constexpr size_t packing_distance_rows = 8, packing_distance_numbers = 64;

// The part of a panel that is read next. The tiles that pass over the current part prefetch it, each an equal share,
// spread evenly over its depth: all at once, the lines would delay the loads of the tile itself. No more than this part
// is prefetched, since more would push what the tiles read out of the second-level cache. Lines are prefetched in
// bursts of one or two pairs, so that few instructions decide when.
template <class T> struct prefetch_plan {
  static constexpr size_t line = 64 / sizeof(T), pair = 2 * line, pairs_in_burst = 2;
  const T *at = nullptr;          // the first line that is not prefetched yet
  size_t pairs = 0;               // how many pairs of lines are left
  size_t each = 0;                // the share of a tile: at most one pair for two k
  size_t burst = 0, interval = 0; // a tile prefetches `burst` pairs every `interval` k

  prefetch_plan() = default;
  prefetch_plan(const T *at, size_t numbers, size_t tiles, size_t depth) : at(at) {
    const size_t rounds = depth / unroll_factor, all = (numbers + pair - 1) / pair;
    if (!tiles || !rounds) return;
    each = least((all + tiles - 1) / tiles, (depth + 1) / 2);
    pairs = least(all, tiles * each);
    const size_t bursts = least((each + pairs_in_burst - 1) / pairs_in_burst, rounds);
    burst = (each + bursts - 1) / bursts;
    interval = rounds / bursts * unroll_factor;
  }
  size_t share() const { return least(each, pairs); } // of the next tile, in pairs
  void advance() {                                    // to the tile after it
    const size_t done = share();
    at += done * pair;
    pairs -= done;
  }
};

// What a tile works on. Lists say where each row starts; they are filled once for all panels that a group of rows
// passes over. A tile reads and writes its rows from the offsets `.._at` on, which stand for the panel and the depth.
template <class T> struct tile_operands {
  T *const *to = nullptr;         // the sums
  const T *const *from = nullptr; // what the sums start from
  const T *const *a = nullptr;    // the left matrix
  size_t to_at = 0, from_at = 0, a_at = 0;
  size_t step = 0; // of P panels: from the columns of one to those of the next, in rows of `to` and `from`
  size_t depth = 0;
  const T *panel = nullptr; // [depth][W * lanes], or P of them at distances of panel_step
  size_t panel_step = 0;
  prefetch_plan<T> next;
};

template <class T> using tile_function = void (*)(const tile_operands<T> &);

// A tile of MR rows and W registers, those from number `first` on of P panels that are `width` registers wide. It
// prefetches this many pairs of lines of what is read next.
template <class T, int MR, int W, int P, int width>
FASTRNN_INLINE void tile_of(const tile_operands<T> &o, size_t first, size_t pairs) {
  constexpr int VL = lanes<T>;
  const size_t step = o.step, depth = o.depth, panel_step = o.panel_step;
  vec<T> acc[MR][P][W];
  const T *row[MR];
  unroll<MR>([&](auto r) __attribute__((always_inline)) {
    row[r] = o.a[r] + o.a_at;
    const T *from = o.from[r] + o.from_at + first;
    unroll<P>([&](auto p) __attribute__((always_inline)) {
      unroll<W>([&](auto w) __attribute__((always_inline)) { acc[r][p][w] = load(from + p * step + w * VL); });
    });
  });
  const T *b = o.panel + first;
  size_t k = 0;
  const auto add = [&](auto j) __attribute__((always_inline)) { // line k + j of the panel
    const T *const at = b + j * width * VL;
    if constexpr (prefetches_panel && MR >= prefetching_rows) {
      unroll<P * W>([&](auto i) __attribute__((always_inline)) {
        if constexpr (i * VL * sizeof(T) % 64 == 0)
          __builtin_prefetch(at + i / W * panel_step + (prefetch_distance * width + i % W) * VL);
      });
    }
    const auto weight = [&](auto i)
                            __attribute__((always_inline)) { return load(at + i / W * panel_step + i % W * VL); };
    // The matrix that needs fewer registers for this k is loaded whole; the other one is loaded number by number.
    if constexpr (P * W <= MR) {
      vec<T> weights[P * W];
      unroll<P * W>([&](auto i) __attribute__((always_inline)) { weights[i] = weight(i); });
      unroll<MR>([&](auto r) __attribute__((always_inline)) {
        const vec<T> x = broadcast(row[r][k + j]);
        unroll<P * W>([&](auto i) __attribute__((always_inline)) { accumulate(acc[r][i / W][i % W], x, weights[i]); });
      });
    } else {
      vec<T> x[MR];
      unroll<MR>([&](auto r) __attribute__((always_inline)) { x[r] = broadcast(row[r][k + j]); });
      unroll<P * W>([&](auto i) __attribute__((always_inline)) {
        const vec<T> w = weight(i);
        unroll<MR>([&](auto r) __attribute__((always_inline)) { accumulate(acc[r][i / W][i % W], x[r], w); });
      });
    }
  };
  const size_t whole = depth / unroll_factor * unroll_factor;
  const prefetch_plan<T> &next = o.next;
  const T *ahead = next.at, *const last = ahead + pairs * prefetch_plan<T>::pair;
  while (k < whole) {
    size_t end = whole;
    if (ahead < last) {
      size_t i = next.burst;
      do {
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + prefetch_plan<T>::line, 0, 2);
        ahead += prefetch_plan<T>::pair;
      } while (--i);
      end = k + next.interval;
    }
    for (; k < end; k += unroll_factor, b += unroll_factor * width * VL) unroll<unroll_factor>(add);
  }
  for (; k < depth; ++k, b += width * VL) add(index<0>{});
  unroll<MR>([&](auto r) __attribute__((always_inline)) {
    T *to = o.to[r] + o.to_at + first;
    unroll<P>([&](auto p) __attribute__((always_inline)) {
      unroll<W>([&](auto w) __attribute__((always_inline)) { store(to + p * step + w * VL, acc[r][p][w]); });
    });
  });
}

template <class T, int MR, int W, int P> void tile(const tile_operands<T> &o) {
  tile_of<T, MR, W, P, W>(o, 0, o.next.share());
}

// MR rows for whose sums a panel of full width has too many registers, half of the width at a time: see in_halves.
template <class T, int MR> void tile_in_halves(const tile_operands<T> &o) {
  constexpr int half = max_width / 2;
  tile_of<T, MR, half, 1, max_width>(o, 0, o.next.share());
  tile_of<T, MR, half, 1, max_width>(o, half * lanes<T>, 0);
}

// A tile of a weight gradient, a sum over time steps k in which the left matrix has one row for each k as well:
//     c[r][:] = init[r][:] + sum over k of left[k][r] * b[k][:]
// left[k] starts at a[k] + a_at, or, where the left matrix is packed, at a[0] + a_at + k * MR. The list of sums goes on
// with those of the next tile, which are prefetched.
template <class T, int MR, int W, bool packed> void outer_tile(const tile_operands<T> &o) {
  constexpr int VL = lanes<T>;
  const size_t depth = o.depth, row = o.a_at;
  const T *const *const a = o.a; // [depth + prefetch_distance], or one pointer where packed
  const T *b = o.panel;          // [depth][W * lanes]
  vec<T> acc[MR][W];
  unroll<MR>([&](auto r) __attribute__((always_inline)) {
    const T *const from = o.from[r] + o.from_at;
    unroll<W>([&](auto w) __attribute__((always_inline)) { acc[r][w] = load(from + w * VL); });
    __builtin_prefetch(o.to[MR + r] + o.to_at);
  });
  const T *side = a[0] + row;
  size_t k = 0;
  const auto add = [&](auto j) __attribute__((always_inline)) {
    const T *const left = packed ? side + j * MR : a[k + j] + row;
    if constexpr (!packed) __builtin_prefetch(a[k + j + prefetch_distance] + row + MR - 1);
    vec<T> right[W];
    unroll<W>([&](auto w) __attribute__((always_inline)) {
      const T *const at = b + (j * W + w) * VL;
      right[w] = load(at);
      if constexpr (prefetches_panel && w * VL * sizeof(T) % 64 == 0)
        __builtin_prefetch(at + prefetch_distance * W * VL);
    });
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      const vec<T> x = broadcast(left[r]);
      unroll<W>([&](auto w) __attribute__((always_inline)) { accumulate(acc[r][w], x, right[w]); });
    });
  };
  for (; k + unroll_factor <= depth; k += unroll_factor, side += unroll_factor * MR, b += unroll_factor * W * VL)
    unroll<unroll_factor>(add);
  for (; k < depth; ++k, side += MR, b += W * VL) add(index<0>{});
  unroll<MR>([&](auto r) __attribute__((always_inline)) {
    T *const to = o.to[r] + o.to_at;
    unroll<W>([&](auto w) __attribute__((always_inline)) { store(to + w * VL, acc[r][w]); });
  });
}

// Packs the left matrix of a tile: to[k][:] = rows[k][first .. first + MR - 1]. May write less than a register beyond
// its end.
template <class T, int MR> void pack_left(T *to, const T *const *rows, size_t first, size_t depth) {
  constexpr int VL = lanes<T>, vecs = (MR + VL - 1) / VL;
  for (size_t k = 0; k < depth; ++k, to += MR)
    unroll<vecs>([&](auto v) __attribute__((always_inline)) { // the next k overwrites what this one writes too far
      store(to + v * VL, load_first(rows[k] + first + v * VL, MR - v * VL));
    });
}

// The compiled tiles: tiles<T>.single[W - 1][MR - 1] and so on.
template <class T> using pack_function = void (*)(T *to, const T *const *rows, size_t first, size_t depth);
template <class T> struct tile_table {
  tile_function<T> single[max_width][max_rows] = {};
  tile_function<T> paired[max_width] = {}; // two rows, two panels
  tile_function<T> halves = nullptr;       // rows_in_halves rows, a panel of full width: see in_halves
  tile_function<T> outer[outer_width][max_rows] = {};
  tile_function<T> outer_packed[max_rows] = {}; // panels of full width, left matrix packed
  pack_function<T> left[max_rows] = {};         // what packs it
  constexpr tile_table() {
    fill_width<1>();
    fill_width<2>();
    fill_width<3>();
    fill_width<4>();
    if constexpr (tiles_have_halves) halves = &tile_in_halves<T, rows_in_halves>;
  }

private:
  template <int W> constexpr void fill_width() { fill_rows<W, 1>(); }
  template <int W, int MR> constexpr void fill_rows() {
    if constexpr (MR <= tile_rows(W)) {
      single[W - 1][MR - 1] = &tile<T, MR, W, 1>;
      if constexpr (W <= outer_width) outer[W - 1][MR - 1] = &outer_tile<T, MR, W, false>;
      if constexpr (W == outer_width) {
        outer_packed[MR - 1] = &outer_tile<T, MR, W, true>;
        left[MR - 1] = &pack_left<T, MR>;
      }
      if constexpr (MR == 2 && pairs_two_rows(W)) paired[W - 1] = &tile<T, MR, W, 2>;
      fill_rows<W, MR + 1>();
    }
  }
};
template <class T> constexpr tile_table<T> tiles{};

// How a number of rows is divided into tiles (or groups) of at most `most` rows, as evenly as possible: 7 rows as 4 + 3
// rather than 6 + 1, since a tile of one row reads the panel for very little arithmetic.
struct row_tiles {
  size_t count, base, extra;
  row_tiles(size_t rows, size_t most) : count(rows ? 1 : 0), base(rows), extra(0) {
    if (rows > most) { // a single tile skips the divisions
      count = (rows + most - 1) / most;
      base = rows / count;
      extra = rows % count;
    }
  }
  size_t size(size_t i) const { return base + (i < extra ? 1 : 0); }
  // body(i, row, rows) for each of them: its number, its first row and its size
  template <class F> FASTRNN_INLINE void each(F &&body) const {
    for (size_t i = 0, row = 0; i < count; ++i) {
      const size_t rows = size(i);
      body(i, row, rows);
      row += rows;
    }
  }
  size_t with(size_t rows) const { // how many tiles, the first ones, have at least this many rows
    return base >= rows ? count : base + 1 == rows ? extra : 0;
  }
};

// The blocks of k in which a group of rows passes over a panel. A panel that only one tile reads is one block; weights
// that are packed while they are read have smaller blocks.
struct depth_blocks {
  size_t depth, size;
  depth_blocks(size_t depth, bool read_again, bool in_pieces)
      : depth(depth), size(in_pieces    ? piece_depth
                           : read_again ? depth_block
                                        : depth) {}
  size_t count() const { return depth > size ? (depth + size - 1) / size : 1; }
  size_t begin(size_t i) const { return i * size; }
  size_t length(size_t i) const { return depth - begin(i) < size ? depth - begin(i) : size; }
  bool last(size_t i) const { return i + 1 == count(); }
};

// ---- packing ------------------------------------------------------------------------------------------

// One column of registers of a panel: to[k][lane] = from[lane][k], with zeros for the lanes from `valid` on.
template <class T> void pack_transposed(T *to, size_t to_step, const T *from, size_t ld, size_t valid, size_t depth) {
  constexpr int VL = lanes<T>;
  size_t k = 0;
  if (valid == size_t(VL)) {
    for (; k + VL <= depth; k += VL) {
      if (k % prefetch_plan<T>::line == 0)
        unroll<VL>([&](auto i) __attribute__((always_inline)) {
          __builtin_prefetch(from + i * ld + k + packing_distance_numbers);
        });
      vec<T> square[VL];
      unroll<VL>([&](auto i) __attribute__((always_inline)) { square[i] = load(from + i * ld + k); });
      transpose<T>(square);
      unroll<VL>([&](auto i) __attribute__((always_inline)) { store(to + (k + i) * to_step, square[i]); });
    }
  }
  for (; k < depth; ++k) {
    size_t lane = 0;
    for (; lane < valid; ++lane) to[k * to_step + lane] = from[lane * ld + k];
    for (; lane < size_t(VL); ++lane) to[k * to_step + lane] = T(0);
  }
}

// One line of a panel: `valid` numbers, then zeros to the end of the last register. Returns where the next line begins.
template <class T, int W> FASTRNN_INLINE T *pack_row(T *to, const T *from, size_t valid) {
  constexpr size_t VL = lanes<T>, full = W * VL;
  if (valid == full) {
    unroll<W>([&](auto v) __attribute__((always_inline)) { store(to + v * VL, load(from + v * VL)); });
    return to + full;
  }
  for (size_t i = 0; i < valid; i += VL, to += VL) {
    const size_t left = valid - i;
    store(to, left < VL ? load_first(from + i, left) : load(from + i));
  }
  return to;
}

// A panel whose lines are columns [first, first + valid) of `depth` rows: to[k][:] = rows[k][first ...].
template <class T, int W> void pack_pieces(T *to, const T *const *rows, size_t first, size_t valid, size_t depth) {
  for (size_t k = 0; k < depth; ++k) to = pack_row<T, W>(to, rows[k] + first, valid);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
