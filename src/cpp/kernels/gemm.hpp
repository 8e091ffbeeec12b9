// microkernel: one register tile of a product, rows x vecs, and the packed layouts it reads.
//
// A panel is W registers wide: [k][W * lanes]. One tile holds MR rows of P neighbouring panels in registers,
//     c[r][:] = init[r][:] + sum_k a[r][k] panel[k][:]        (k ascending, one fma chain)
// so that every output element has one order of accumulation, whatever the tile it falls in: a row has the
// same bits alone and in any batch, a product the same bits in one piece and in several.
#pragma once

#include "kernels/kernels.hpp"
#include "kernels/simd.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

// Accumulators of one tile: 24 of 32 registers leave room for W panel loads and a broadcast; with 16
// registers 12 do.
constexpr size_t accumulators = FASTRNN_REGISTERS == 32 ? 24 : 12;
constexpr int max_rows = 8;
constexpr int max_width = 4;
// Registers of a panel of weight gradients. Panel and left side come from the second-level cache, where one register
// file allows it in the ratio that reads least: 6 rows x 2 registers rather than 3 x 4.
constexpr int outer_width = FASTRNN_REGISTERS == 32 ? 4 : 2;
constexpr size_t tile_rows(size_t width) { // of every width, since a division is what few rows would wait for
  constexpr size_t rows[] = {0, accumulators < max_rows ? accumulators : max_rows,
                             accumulators / 2 < max_rows ? accumulators / 2 : max_rows, accumulators / 3,
                             accumulators / 4};
  static_assert(accumulators / 3 <= max_rows, "a register a row");
  return rows[width];
}
// Two rows leave too few independent fma chains to fill the pipeline: they take two panels at once where the
// registers allow it. (A row alone does too, see few_rows.)
constexpr bool pairs_two_rows(size_t width) { return 2 * 2 * width <= accumulators; }
// Four rows on a panel of full width would be two tiles where registers are 16, each of which reads all of the panel
// and computes no longer than it loads. One tile takes them on half the width, twice; of seven rows, so it does the
// first four. 1.03 to 1.13 times as fast for 4 and 7 rows of LSTM of 256 to 600 units, RNN of 512 to 1024; from
// matrices that lie partly in memory 0.75 to 1.07.
constexpr size_t rows_in_halves = 4, most_bytes_in_halves = size_t(6) << 20;
constexpr bool tiles_have_halves = tile_rows(max_width) < rows_in_halves;
constexpr bool in_halves(size_t rows, size_t width, size_t bytes) {
  return tiles_have_halves && width == max_width && (rows == rows_in_halves || rows == rows_in_halves + 3) &&
         bytes <= most_bytes_in_halves;
}
// Tiles of so many rows compute longer than they load, which leaves time to fetch what comes after them from the
// third-level cache or memory: without it a panel comes no faster than the hardware's prefetcher dares.
constexpr int prefetching_rows = 3;
// Of small matrices no tile does, since most of one stays in the second-level cache and fetching takes slots (without,
// GRU at 192 to 256 units 1.05 to 1.19, LSTM at 128 1.1); nor do the tiles of a group of few, each of which would have
// to fetch nearly a line every k (4 to 12 rows at 256 to 700 units 1.05 to 1.2).
constexpr size_t near_bytes = size_t(1) << 20;
constexpr size_t few_tiles = 2;
// Of large ones those of two rows do too, and of any group: they lie partly in memory, since a last-level cache is
// shared.
constexpr int prefetching_rows_far = 2;
constexpr size_t far_bytes = size_t(12) << 20;
// So many k a turn of a tile's loop: what the loop itself takes is shared by them. A core whose other half belongs to
// another guest has half the slots, and then every instruction counts (20 a k instead of 25 for 3 x 4: 1.02 to 1.14 in
// such minutes; nothing when it is alone).
#if !defined(FASTRNN_TURN)
#define FASTRNN_TURN 4
#endif
constexpr size_t turn = FASTRNN_TURN;
// Weight gradients read so many steps ahead from the second-level cache; and with 32 registers, a tile its panel.
// (With 16 registers a tile loads more often, and the hardware's prefetcher does as well.)
constexpr int prefetch_distance = 6;
constexpr bool fetches_panel = FASTRNN_REGISTERS == 32;
// How much of a panel all rows pass over before it is left: 512 * 256 bytes stay in the second-level cache, and
// so many numbers of a tile's rows in the first.
constexpr size_t depth_block = 512;
// Of weights that are packed as they are read, so much of a panel at once: two pieces of 128 * 256 bytes lie in a near
// cache and on the stack.
constexpr size_t piece_depth = 128;
// Rows that pass over a block of a panel together: their sums (96 * 256 bytes) lie in a near cache meanwhile. More of
// them where every group packs the panel anew.
constexpr size_t group_rows = 96, group_rows_in_pieces = rows_in_pieces;
// The left side of a sum over time is packed where it meets so many panels: rows of different steps lie on different
// pages (8 panels and more 1.03 to 1.14, 6 panels 0.98 to 1, 2 panels 0.9).
constexpr size_t packed_left_panels = 8;
// Rows of a matrix lie apart, which the hardware's prefetcher does not follow: packing fetches so many rows ahead, or
// numbers of each where it reads along some of them.
constexpr size_t packed_rows_ahead = 8, packed_numbers_ahead = 64;

// What is read after a block of a panel. The tiles that pass over that block fetch it meanwhile, each an equal part,
// some cache lines after others all along its depth: in a burst the lines would keep the panel itself waiting. And no
// more than that, since what lies further on would push out of the second-level cache what the tiles themselves read.
// Lines come in pairs, and pairs in twos where there are enough, so that what decides when to fetch costs less than
// what fetches: one line at a time had taken a fifth of the instructions of 32 rows of 512 units.
template <class T> struct upcoming {
  static constexpr size_t line = 64 / sizeof(T), pair = 2 * line, at_once = 2;
  const T *at = nullptr;
  size_t pairs = 0;
  size_t each = 0;                // a tile's part: at most a pair every two k
  size_t together = 0, apart = 0; // of which so many are fetched every `apart` k

  upcoming() = default;
  upcoming(const T *at, size_t numbers, size_t tiles, size_t depth) : at(at) {
    const size_t turns = depth / turn, all = (numbers + pair - 1) / pair;
    if (!tiles || !turns) return;
    each = least((all + tiles - 1) / tiles, (depth + 1) / 2);
    pairs = least(all, tiles * each);
    const size_t times = least((each + at_once - 1) / at_once, turns);
    together = (each + times - 1) / times;
    apart = turns / times * turn;
  }
  size_t part() const { return least(each, pairs); } // of the tile that is next
  void advance() {
    const size_t done = part();
    at += done * pair;
    pairs -= done;
  }
};

// What a tile works on. Of rows there are lists of where they start, made once for all tiles and panels of a group;
// from `.._at` on are the numbers of this panel, or of this depth.
template <class T> struct tile_operands {
  T *const *to = nullptr;                  // sums
  const T *const *from = nullptr;          // what they start from
  const T *const *a = nullptr;             // the left side
  size_t to_at = 0, from_at = 0, a_at = 0; // numbers
  size_t step = 0;                         // columns to the next panel
  size_t depth = 0;
  const T *panel = nullptr; // [depth][W * lanes], P of them panel_step apart
  size_t panel_step = 0;
  upcoming<T> next;
};

template <class T> using tile_function = void (*)(const tile_operands<T> &);

// The tile of W registers, from `first` on, of panels that are `width` registers wide; fetches so many pairs of lines.
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
  const auto add = [&](auto j) __attribute__((always_inline)) { // row k + j of the panel
    const T *const at = b + j * width * VL;
    if constexpr (fetches_panel && MR >= prefetching_rows) {
      unroll<P * W>([&](auto i) __attribute__((always_inline)) {
        if constexpr (i * VL * sizeof(T) % 64 == 0)
          __builtin_prefetch(at + i / W * panel_step + (prefetch_distance * width + i % W) * VL);
      });
    }
    const auto weight = [&](auto i)
                            __attribute__((always_inline)) { return load(at + i / W * panel_step + i % W * VL); };
    // The side with fewer registers waits in them, the other one passes through.
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
  const size_t whole = depth / turn * turn;
  const upcoming<T> &next = o.next;
  const T *ahead = next.at, *const last = ahead + pairs * upcoming<T>::pair;
  while (k < whole) {
    size_t end = whole;
    if (ahead < last) {
      size_t i = next.together;
      do {
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + upcoming<T>::line, 0, 2);
        ahead += upcoming<T>::pair;
      } while (--i);
      end = k + next.apart;
    }
    for (; k < end; k += turn, b += turn * width * VL) unroll<turn>(add);
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
  tile_of<T, MR, W, P, W>(o, 0, o.next.part());
}

// Rows for which a panel of full width has too many registers, half of it after the other: see in_halves.
template <class T, int MR> void tile_in_halves(const tile_operands<T> &o) {
  constexpr int half = max_width / 2;
  tile_of<T, MR, half, 1, max_width>(o, 0, o.next.part());
  tile_of<T, MR, half, 1, max_width>(o, half * lanes<T>, 0);
}

// The same for a sum over time, whose left side lies with its rows in time too: c[r][:] = init[r][:] +
// sum_k left[k][r] b[k][:], where left[k] is a[k] from a_at on, or, packed, a[0] + a_at + k MR. The list of sums goes
// on with those of the next tile, which are fetched.
template <class T, int MR, int W, bool packed> void outer_tile(const tile_operands<T> &o) {
  constexpr int VL = lanes<T>;
  const size_t depth = o.depth, row = o.a_at;
  const T *const *const a = o.a; // [depth + prefetch_distance] rows, or one
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
      if constexpr (fetches_panel && w * VL * sizeof(T) % 64 == 0) __builtin_prefetch(at + prefetch_distance * W * VL);
    });
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      const vec<T> x = broadcast(left[r]);
      unroll<W>([&](auto w) __attribute__((always_inline)) { accumulate(acc[r][w], x, right[w]); });
    });
  };
  for (; k + turn <= depth; k += turn, side += turn * MR, b += turn * W * VL) unroll<turn>(add);
  for (; k < depth; ++k, side += MR, b += W * VL) add(index<0>{});
  unroll<MR>([&](auto r) __attribute__((always_inline)) {
    T *const to = o.to[r] + o.to_at;
    unroll<W>([&](auto w) __attribute__((always_inline)) { store(to + w * VL, acc[r][w]); });
  });
}

// Packs the left side of a tile: to[k][MR] = rows[k][first ...]. Writes less than a vec beyond it.
template <class T, int MR> void pack_left(T *to, const T *const *rows, size_t first, size_t depth) {
  constexpr int VL = lanes<T>, vecs = (MR + VL - 1) / VL;
  for (size_t k = 0; k < depth; ++k, to += MR)
    unroll<vecs>([&](auto v) __attribute__((always_inline)) { // what this leaves too much the next k overwrites
      store(to + v * VL, load_first(rows[k] + first + v * VL, MR - v * VL));
    });
}

// Tables by run-time row count and width: tiles<T>.single[W - 1][MR - 1], ...
template <class T> using pack_function = void (*)(T *to, const T *const *rows, size_t first, size_t depth);
template <class T> struct tile_table {
  tile_function<T> single[max_width][max_rows] = {};
  tile_function<T> paired[max_width] = {}; // two rows, two panels
  tile_function<T> halves = nullptr;       // rows_in_halves rows, one panel of full width
  tile_function<T> outer[outer_width][max_rows] = {};
  tile_function<T> outer_packed[max_rows] = {}; // of full width, and what packs their left side
  pack_function<T> left[max_rows] = {};
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

// Rows are cut into tiles as even as can be: 7 rows as 4 + 3, not 6 + 1, so that no tile is left with the
// cost of reading a panel for a single row.
struct row_tiles {
  size_t count, base, extra;
  row_tiles(size_t rows, size_t most) : count(rows ? 1 : 0), base(rows), extra(0) {
    if (rows > most) { // two divisions that a single row need not wait for
      count = (rows + most - 1) / most;
      base = rows / count;
      extra = rows % count;
    }
  }
  size_t size(size_t i) const { return base + (i < extra ? 1 : 0); }
  size_t with(size_t rows) const { // so many, the first ones, have at least as many rows
    return base >= rows ? count : base + 1 == rows ? extra : 0;
  }
};

// The blocks of depth in which a group of rows passes over a panel; in one piece where no second tile reads it. Weights
// that are packed as they are read come in blocks of their own.
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

// One register column of a panel: to[k][lane] = from[lane][k], rows of `from` beyond `valid` give zero.
template <class T> void pack_transposed(T *to, size_t to_step, const T *from, size_t ld, size_t valid, size_t depth) {
  constexpr int VL = lanes<T>;
  size_t k = 0;
  if (valid == size_t(VL)) {
    for (; k + VL <= depth; k += VL) {
      if (k % upcoming<T>::line == 0)
        unroll<VL>([&](auto i) __attribute__((always_inline)) {
          __builtin_prefetch(from + i * ld + k + packed_numbers_ahead);
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

// One row of a panel: `valid` numbers, the rest of the last register zero. Returns where the next row begins.
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

// A panel of rows that lie apart: to[k][:] = rows[k][first ...].
template <class T, int W> void pack_pieces(T *to, const T *const *rows, size_t first, size_t valid, size_t depth) {
  for (size_t k = 0; k < depth; ++k) to = pack_row<T, W>(to, rows[k] + first, valid);
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
