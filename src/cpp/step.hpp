// step: the microkernel with the cell as its epilogue, forward and backward.
//
// A tile of the recurrent product is finished while it is still in the first-level cache: all gates of its
// units lie side by side, so the cell runs on it at once and no second pass over a gate buffer is needed.
#pragma once

#include "cells.hpp"
#include "gemm.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Sums of a group of rows for one panel (or of two rows for two panels).
template <class T> constexpr size_t group_numbers = group_rows * max_width * lanes<T>;
static_assert(group_rows >= 4, "two rows of two panels fit as well");

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

// ---- forward ------------------------------------------------------------------------------------------

// Rows of a panel whose products are finished before their cells are computed: the latency of a cell, from its first
// exponential to h a hundred cycles and more, is then waited for once for all of them.
constexpr size_t cells_at_once = 24;

// One cell: a block of units of a row.
struct cell_place {
  size_t row, unit, valid; // valid: units of the block that there are
  bool fresh;              // starts from a zero state
};

// Cells are computed N at once, at[0 .. N - 1] (see vecs). What a forward step does with their finished
// pre-activations:
template <class T, class C> struct CellForward {
  static constexpr int gates = C::gates, slots = C::gates == 1 ? 1 : C::saved, first_slot = 0;
  static constexpr bool split_candidate = C::split_candidate;
  template <int N>
  static FASTRNN_INLINE void finish(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> *pre,
                                    const vecs<T, N> &x_n) {
    constexpr int VL = lanes<T>;
    typedef vecs<T, N> V;
    V saved[gates + 1], h, c, h_prev = vec<T>{}, c_prev = vec<T>{};
    if constexpr (C::carries_h) h_prev = previous(s, at);
    if constexpr (C::has_c)
      c_prev = V::each([&](auto i) __attribute__((always_inline)) {
        return at[i].fresh ? vec<T>{} : load(s.c_prev + at[i].row * s.ld_c + at[i].unit);
      });
    C::forward(h, c, saved, pre, x_n, h_prev, c_prev);
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      const cell_place &a = at[i];
      store_first(s.h[a.row] + a.unit, h.at[i], a.valid);
      if constexpr (C::has_c) store(s.c + a.row * s.ld_c + a.unit, c.at[i]);
      if constexpr (C::saved > 0) {
        if (s.gates) {
          T *to = s.gates + a.row * s.ld_gates + a.unit * slots;
          unroll<C::saved>([&](auto g) __attribute__((always_inline)) { store(to + g * VL, saved[g].at[i]); });
        }
      }
    });
  }
  template <int N> static FASTRNN_INLINE vecs<T, N> previous(const ForwardStep<T> &s, const cell_place (&at)[N]) {
    return vecs<T, N>::each([&](auto i) __attribute__((always_inline)) {
      return load_first((at[i].fresh ? s.zeros : s.h_prev[at[i].row]) + at[i].unit, at[i].valid);
    });
  }
};

template <class T> struct BeforeGatesForward {
  static constexpr int gates = 2, slots = 3, first_slot = 0;
  static constexpr bool split_candidate = false;
  template <int N>
  static FASTRNN_INLINE void finish(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> *pre,
                                    const vecs<T, N> &) {
    constexpr int VL = lanes<T>;
    vecs<T, N> saved[2], rh;
    GruBefore<T>::forward_gates(rh, saved, pre, CellForward<T, GruBefore<T>>::previous(s, at));
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      T *to = s.gates + at[i].row * s.ld_gates + at[i].unit * slots;
      store(to, saved[0].at[i]);
      store(to + VL, saved[1].at[i]);
      store_first(s.rh + at[i].row * s.ld_rh + at[i].unit, rh.at[i], at[i].valid);
    });
  }
};

template <class T> struct BeforeCandidateForward {
  static constexpr int gates = 1, slots = 3, first_slot = 2;
  static constexpr bool split_candidate = false;
  template <int N>
  static FASTRNN_INLINE void finish(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> *pre,
                                    const vecs<T, N> &) {
    constexpr int VL = lanes<T>;
    const auto row = [&](size_t i) __attribute__((always_inline)) {
      return s.gates + at[i].row * s.ld_gates + at[i].unit * slots;
    };
    const auto z = vecs<T, N>::each([&](auto i) __attribute__((always_inline)) { return load(row(i) + VL); });
    vecs<T, N> h, n;
    // h_prev of the cell is s.h_prev; the product of this half read r o h_prev instead
    GruBefore<T>::forward_candidate(h, n, z, pre[0], CellForward<T, GruBefore<T>>::previous(s, at));
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      store(row(i) + 2 * VL, n.at[i]);
      store_first(s.h[at[i].row] + at[i].unit, h.at[i], at[i].valid);
    });
  }
};

// One row alone: product and cell in registers from end to end, since at this size what counts is the latency from
// h to h. P panels at once, W vecs each.
template <class T, class E, int W, int P> FASTRNN_INLINE void single_row(const ForwardStep<T> &s, panel_place place) {
  constexpr int VL = lanes<T>, blocks_of_panel = E::gates == 1 ? W : 1, candidate = E::gates - 1;
  typedef vec<T> V;
  const size_t unit0 = place.block * VL;
  const bool fresh = s.reset && s.reset[0];
  const T *init = s.init + unit0 * E::slots, *h = E::first_slot > 0 ? s.rh : fresh ? s.zeros : s.h_prev[0];
  V sum[P][W], x_n[P];
  const auto block_of = [](auto p, auto w) { return p * blocks_of_panel + w / E::gates; };
  unroll<P>([&](auto p) __attribute__((always_inline)) {
    unroll<W>([&](auto w) __attribute__((always_inline)) {
      sum[p][w] = load(init + (block_of(p, w) * E::slots + E::first_slot + w % E::gates) * VL);
    });
    x_n[p] = V{};
  });
  alignas(64) T pieces[P * W * VL * piece_depth];
  const auto add = [&](const T *a, size_t depth, const T *panel, const T *second) __attribute__((always_inline)) {
    for (size_t k = 0; k < depth; ++k, panel += W * VL, second += W * VL) {
      const V x = broadcast(a[k]);
      unroll<P>([&](auto p) __attribute__((always_inline)) {
        unroll<W>([&](auto w) __attribute__((always_inline)) {
          sum[p][w] = fma(x, load((p == 1 ? second : panel) + w * VL), sum[p][w]);
        });
      });
    }
  };
  const auto add_product = [&](const T *a, size_t depth, const T *packed, const RowMajor<T> &rows)
                               __attribute__((always_inline)) {
                                 if (!rows.at) {
                                   const T *const panel = packed + unit0 * E::gates * depth;
                                   return add(a, depth, panel, panel + depth * W * VL);
                                 }
                                 for (size_t from = 0, length = 0; from < depth; from += length) {
                                   length = least(piece_depth, depth - from);
                                   for (size_t p = 0; p < P; ++p)
                                     pack_gate_panel(pieces + p * length * W * VL, rows.at, rows.ld, 0, E::gates,
                                                     s.hidden, place.block + p * blocks_of_panel, W, from, length);
                                   add(a + from, length, pieces, pieces + length * W * VL);
                                 }
                               };
  if (s.input) add_product(s.x[0], s.input, s.w, s.w_rows);
  if constexpr (E::split_candidate) { // the recurrent part of the candidate stays apart and starts at b_hn
    unroll<P>([&](auto p) __attribute__((always_inline)) {
      x_n[p] = sum[p][candidate];
      sum[p][candidate] = load(s.bias_n + unit0 + p * VL);
    });
  }
  add_product(h, s.recurrent, s.r, s.r_rows);
  constexpr int all = P * blocks_of_panel, together = all % 2 ? 1 : 2;
  unroll<all / together>([&](auto i) __attribute__((always_inline)) {
    cell_place at[together];
    vecs<T, together> pre[E::gates], x_part;
    unroll<together>([&](auto j) __attribute__((always_inline)) {
      constexpr int block = i * together + j, p = block / blocks_of_panel, b = block % blocks_of_panel;
      const size_t unit = unit0 + block * VL;
      at[j] = {0, unit, least(VL, s.hidden - unit), fresh};
      unroll<E::gates>([&](auto g) __attribute__((always_inline)) { pre[g].at[j] = sum[p][b * E::gates + g]; });
      x_part.at[j] = x_n[p];
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

template <class T, class E> void forward_step(const ForwardStep<T> &s) {
  constexpr size_t VL = lanes<T>;
  constexpr size_t gates = E::gates;
  constexpr bool reads_rh = E::first_slot > 0; // second half of the reset-before GRU
  constexpr bool direct = E::gates == E::slots;
  const size_t all_blocks = blocks<T>(s.hidden);
  if (s.rows == 1) return forward_single<T, E>(s);
  alignas(64) T sums[group_numbers<T>], input_sums[group_numbers<T>], piece[piece_depth * max_width * VL];

  // Panels in pairs where rows are few; the pairs must be of one width, which the last panel may not be.
  const size_t panels = s.last_panel - s.first_panel;
  size_t pairs = 0;
  if (panels > 1 && pairs_two_rows && s.rows == 2 && !s.r_rows.at) {
    const bool narrow_last =
        gate_panel(s.last_panel - 1, gates, all_blocks).width != gate_panel(s.first_panel, gates, all_blocks).width;
    pairs = (panels - (narrow_last ? 1 : 0)) / 2;
  }
  const size_t count = panels - pairs;
  // Every other step takes the panels in reverse: those read last are still in the nearest cache.
  const auto in_order = [&](size_t i) { return s.descending ? count - 1 - i : i; };
  const auto panel_of = [&](size_t i) { return s.first_panel + (i < pairs ? 2 * i : pairs + i); };
  const auto fresh = [&](size_t r) { return s.reset && s.reset[r]; };
  const row_tiles groups(s.rows, group_rows);
  for (size_t i_panel = 0; i_panel < count; ++i_panel) {
    const size_t at_once = in_order(i_panel) < pairs ? 2 : 1;
    const panel_place place = gate_panel(panel_of(in_order(i_panel)), gates, all_blocks);
    const size_t width = place.width, step = width * VL; // columns from panel to panel
    const size_t unit0 = place.block * VL, panel_blocks = place.blocks * at_once;
    const size_t ld = step * at_once; // of `sums`
    const T *const panel = s.r + place.block * gates * VL * s.recurrent;
    const size_t next_block =
        i_panel + 1 < count ? gate_panel(panel_of(in_order(i_panel + 1)), gates, all_blocks).block : place.block;
    const T *const next = s.r + next_block * gates * VL * s.recurrent;
    const size_t next_unit = next_block * VL;
    for (size_t i_group = 0, g0 = 0; i_group < groups.count; g0 += groups.size(i_group), ++i_group) {
      const row_tiles tiling(groups.size(i_group), tile_rows(gates == 1 ? max_width : int(gates)));
      const depth_blocks depth(s.recurrent, tiling, s.r_rows.at);
      // where the sums of a row start: at its input part, computed before or here
      const size_t input_block = s.input ? gates * VL : E::slots * VL;
      const auto input_of = [&](size_t r) {
        return s.input ? input_sums + (r - g0) * ld : s.init + r * s.ld_init + unit0 * E::slots;
      };
      if (s.input) {
        const depth_blocks depth(s.input, tiling, s.w_rows.at);
        for (size_t k = 0; k < depth.count(); ++k) {
          if (s.w_rows.at)
            pack_gate_panel(piece, s.w_rows.at, s.w_rows.ld, 0, gates, s.hidden, place.block, width, depth.begin(k),
                            depth.length(k));
          for (size_t i = 0, r0 = g0; i < tiling.count; r0 += tiling.size(i), ++i) {
            const T *x[max_rows], *init[max_rows];
            T *to[max_rows];
            for (size_t q = 0; q < at_once; ++q) {
              for (size_t j = 0; j < tiling.size(i); ++j) {
                x[j] = s.x[r0 + j] + depth.begin(k);
                to[j] = input_sums + (r0 + j - g0) * ld + q * step;
                init[j] = k ? to[j] : s.init + (r0 + j) * s.ld_init + (unit0 + q * VL * place.blocks) * E::slots;
              }
              const T *const w = s.w + (place.block * gates + q * width) * VL * s.input + depth.begin(k) * step;
              tiles<T>.single[width - 1][tiling.size(i) - 1](to, 0, 0, init, 0, x, depth.length(k),
                                                             s.w_rows.at ? piece : w, 0, {});
            }
          }
        }
      }
      for (size_t k = 0; k < depth.count(); ++k) {
        upcoming<T> ahead = depth.last(k)
                                ? upcoming<T>::block(next, depth.length(0) * step)
                                : upcoming<T>::block(panel + depth.begin(k + 1) * step, depth.length(k + 1) * step);
        const T *block_of_panel = panel + depth.begin(k) * step;
        if (s.r_rows.at) {
          pack_gate_panel(piece, s.r_rows.at, s.r_rows.ld, 0, gates, s.hidden, place.block, width, depth.begin(k),
                          depth.length(k));
          block_of_panel = piece;
          ahead = {};
        }
        for (size_t i = 0, r0 = g0, waiting = g0; i < tiling.count; r0 += tiling.size(i), ++i) {
          const size_t n = tiling.size(i), kept = (r0 - g0) * ld;
          T *to[max_rows];
          const T *from[max_rows], *h[max_rows];
          for (size_t j = 0; j < n; ++j) {
            const size_t r = r0 + j;
            if constexpr (reads_rh)
              h[j] = s.rh + r * s.ld_rh + depth.begin(k);
            else
              h[j] = (fresh(r) ? s.zeros : s.h_prev[r]) + depth.begin(k);
            from[j] = to[j] = sums + kept + j * ld;
          }
          if (k == 0) {
            if constexpr (direct) {
              for (size_t j = 0; j < n; ++j) from[j] = input_of(r0 + j);
            } else {
              // the candidate of the GRU starts its recurrent sum at b_hn, apart from its input part
              for (size_t j = 0; j < n; ++j) {
                for (size_t b = 0; b < panel_blocks; ++b) {
                  const T *row = input_of(r0 + j) + b * input_block + E::first_slot * VL;
                  T *at = to[j] + b * gates * VL;
                  unroll<E::gates>([&](auto g) __attribute__((always_inline)) {
                    if constexpr (E::split_candidate && decltype(g)::value == E::gates - 1)
                      store(at + g * VL, load(s.bias_n + unit0 + b * VL));
                    else
                      store(at + g * VL, load(row + g * VL));
                  });
                }
              }
            }
          }
          // what the next tile starts from, and the cell of this one reads, arrives while the product runs
          if (!s.input && depth.last(k)) {
            const size_t r1 = r0 + n < s.rows ? r0 + n : 0, unit1 = r1 ? unit0 : next_unit;
            const T *const start = s.init + r1 * s.ld_init + unit1 * E::slots;
            for (size_t j = 0; s.ld_init && j < n; ++j) fetch(start + j * s.ld_init, panel_blocks * E::slots * VL);
          }
          if (s.c_prev && depth.last(k))
            for (size_t j = 0; j < n; ++j) fetch(s.c_prev + (r0 + j) * s.ld_c + unit0, panel_blocks * VL);
          const auto product = at_once == 2 ? tiles<T>.paired[width - 1] : tiles<T>.single[width - 1][n - 1];
          product(to, 0, step, from, 0, h, depth.length(k), block_of_panel, step * s.recurrent,
                  ahead.part(i, depth.length(k)));
          if (!depth.last(k) || (r0 + n - waiting < cells_at_once && i + 1 < tiling.count)) continue;
          // rows whose product is finished, for one block of units; two at a time
          for (size_t b = 0; b < panel_blocks; ++b) {
            const size_t unit = unit0 + b * VL, valid = least(VL, s.hidden - unit);
            const auto cells = [&](auto together, size_t row) __attribute__((always_inline)) {
              constexpr int N = decltype(together)::value;
              cell_place at[N];
              vecs<T, N> pre[gates], x_n = vec<T>{};
              unroll<N>([&](auto i) __attribute__((always_inline)) {
                const size_t r = row + i;
                at[i] = {r, unit, valid, fresh(r)};
                unroll<E::gates>([&](auto g) __attribute__((always_inline)) {
                  pre[g].at[i] = load(sums + (r - g0) * ld + (b * gates + g) * VL);
                });
                if constexpr (E::split_candidate) x_n.at[i] = load(input_of(r) + b * input_block + 2 * VL);
              });
              E::finish(s, at, pre, x_n);
            };
            size_t row = waiting;
            for (; row + 2 <= r0 + n; row += 2) cells(index<2>{}, row);
            if (row < r0 + n) cells(index<1>{}, row);
          }
          waiting = r0 + n;
        }
      }
    }
  }
}

// ---- backward -----------------------------------------------------------------------------------------

template <class T, class C> struct CellBackward {
  static constexpr bool carries_h = C::carries_h;
  // what `finish` reads of the tape
  static FASTRNN_INLINE void fetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    if constexpr (C::saved > 0) fetch(s.gates + r * s.ld_gates + unit * C::saved, n * C::saved);
    if constexpr (C::has_c) {
      fetch(s.c + r * s.ld_c + unit, n);
      fetch(s.c_prev + r * s.ld_c + unit, n);
      fetch(s.carry_c + r * s.ld_carry + unit, n);
    }
    if constexpr (C::carries_h) fetch(s.h_prev[r] + unit, n);
    if constexpr (C::gates == 1) fetch(s.h[r] + unit, n);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh,
                                    bool cut) {
    constexpr int VL = lanes<T>;
    typedef vecs<T, 1> V;
    V saved[C::saved + 1], da[C::grads], carry = vec<T>{}, c = vec<T>{}, c_prev = vec<T>{}, h = vec<T>{}, h_prev = h;
    const bool fresh = s.reset && s.reset[r];
    const T *gates = s.gates + r * s.ld_gates + unit * C::saved;
    unroll<C::saved>([&](auto g) __attribute__((always_inline)) { saved[g] = load(gates + g * VL); });
    if constexpr (C::has_c) {
      c = load(s.c + r * s.ld_c + unit);
      if (!fresh) c_prev = load(s.c_prev + r * s.ld_c + unit);
      if (!cut) carry = load(s.carry_c + r * s.ld_carry + unit);
    }
    if constexpr (C::carries_h) h_prev = load_first((fresh ? s.zeros : s.h_prev[r]) + unit, valid);
    if constexpr (C::gates == 1) h = load_first(s.h[r] + unit, valid);
    C::backward(da, carry, V(dh), saved, c, c_prev, h_prev, h);
    if constexpr (C::has_c) {
      store(s.carry_c + r * s.ld_carry + unit, carry.at[0]);
      if (s.m) store_first(s.m + r * s.ld_m + unit, Lstm<T>::output(saved, c).at[0], valid);
    }
    if constexpr (C::carries_h) store(s.carry_h + r * s.ld_carry + unit, carry.at[0]);
    T *d = s.d + r * s.ld_d + unit;
    unroll<C::grads>([&](auto g) __attribute__((always_inline)) { store_first(d + g * s.hidden, da[g].at[0], valid); });
  }
};

template <class T> struct StoreBackward {
  static constexpr bool carries_h = false;
  static FASTRNN_INLINE void fetch_row(const BackwardStep<T> &, size_t, size_t, size_t) {}
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    store_first(s.d + r * s.ld_d + unit, dh, valid);
  }
};
// the last dh of a cell whose state flows past the product
template <class T> struct StoreCarriedBackward : StoreBackward<T> {
  static constexpr bool carries_h = true;
};

template <class T> struct BeforeCandidateBackward {
  static constexpr bool carries_h = true;
  static FASTRNN_INLINE void fetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    fetch(s.gates + r * s.ld_gates + unit * 3, n * 3);
    fetch(s.h_prev[r] + unit, n);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    constexpr int VL = lanes<T>;
    const bool fresh = s.reset && s.reset[r];
    const T *gates = s.gates + r * s.ld_gates + unit * 3;
    typedef vecs<T, 1> V;
    const V saved[3] = {load(gates), load(gates + VL), load(gates + 2 * VL)};
    const V h_prev = load_first((fresh ? s.zeros : s.h_prev[r]) + unit, valid);
    V da[3], carry;
    GruBefore<T>::backward_candidate(da, carry, V(dh), saved, h_prev);
    store(s.carry_h + r * s.ld_carry + unit, carry.at[0]);
    T *d = s.d + r * s.ld_d + unit;
    store_first(d, da[0].at[0], valid);
    store_first(d + 2 * s.hidden, da[2].at[0], valid);
    store_first(s.m + r * s.ld_m + unit, (saved[0] * h_prev).at[0], valid);
  }
};

template <class T> struct BeforeGatesBackward {
  static constexpr bool carries_h = false;
  static FASTRNN_INLINE void fetch_row(const BackwardStep<T> &, size_t, size_t, size_t) {} // read a moment ago
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> v, bool) {
    const bool fresh = s.reset && s.reset[r];
    typedef vecs<T, 1> V;
    const V saved[1] = {load(s.gates + r * s.ld_gates + unit * 3)};
    V dr, carry = load(s.carry_h + r * s.ld_carry + unit);
    const V h_prev = load_first((fresh ? s.zeros : s.h_prev[r]) + unit, valid);
    GruBefore<T>::backward_gates(dr, carry, V(v), saved, h_prev);
    store(s.carry_h + r * s.ld_carry + unit, carry.at[0]);
    store_first(s.d + r * s.ld_d + s.hidden + unit, dr.at[0], valid);
  }
};

// A row alone, as in forward.
template <class T, class E, int W> FASTRNN_INLINE void single_row_back(const BackwardStep<T> &s, size_t block) {
  constexpr size_t VL = lanes<T>;
  constexpr int panel_width = W > max_width ? max_width : W; // W of 8: two panels
  const size_t unit0 = block * VL;
  const bool later = s.continuing > 0, cut = later && s.cut && s.cut[0];
  const bool carried = s.carry_h && (E::carries_h || !later);
  vec<T> dh[W];
  unroll<W>([&](auto w)
                __attribute__((always_inline)) { dh[w] = carried ? load(s.carry_h + unit0 + w * VL) : vec<T>{}; });
  const auto add = [&](const T *d_later, size_t depth, const T *panel, const T *second) __attribute__((always_inline)) {
    for (size_t k = 0; k < depth; ++k, panel += panel_width * VL, second += panel_width * VL) {
      const vec<T> d = broadcast(d_later[k]);
      unroll<W>([&](auto w) __attribute__((always_inline)) {
        dh[w] = fma(d, load((w < panel_width ? panel : second) + w % panel_width * VL), dh[w]);
      });
    }
  };
  if (later && !s.r_rows.at) {
    const T *const panel = s.r + unit0 * s.depth;
    add(s.d_later, s.depth, panel, panel + s.depth * panel_width * VL);
  } else if (later) {
    alignas(64) T pieces[W * VL * piece_depth];
    for (size_t from = 0, length = 0; from < s.depth; from += length) {
      length = least(piece_depth, s.depth - from);
      for (size_t p = 0; p < W; p += panel_width) {
        const size_t column = unit0 + p * VL;
        pack_plain_panel(pieces + p * VL * length, s.r_rows, s.depth, column,
                         least(panel_width * VL, s.hidden - column), from, length);
      }
      add(s.d_later + from, length, pieces, pieces + length * panel_width * VL);
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

// dh of a row: what flows back from its later step, or, where it has none, dL/dh_n (in carry_h); plus dy.
// dy comes last, so that BPTT in pieces, with dstate handed on, gives the same bits as in one.
template <class T, class E> void backward_step(const BackwardStep<T> &s) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(s.hidden), count = s.last_panel - s.first_panel;
  const auto place_of = [&](size_t i) { // in the order of forward_step
    return gate_panel(s.descending ? s.last_panel - 1 - i : s.first_panel + i, 1, all_blocks);
  };
  if (s.rows == 1) return backward_single<T, E>(s);
  alignas(64) T sums[group_numbers<T>], piece[piece_depth * max_width * VL];
  for (size_t i_panel = 0; i_panel < count; ++i_panel) {
    const panel_place place = place_of(i_panel);
    const size_t unit0 = place.block * VL, ld = place.width * VL;
    const T *const panel = s.r + unit0 * s.depth;
    const T *const next = i_panel + 1 < count ? s.r + place_of(i_panel + 1).block * VL * s.depth : panel;
    for (int part = 0; part < 2; ++part) { // rows with a later step, then rows without
      const size_t begin = part ? s.continuing : 0, end = part ? s.rows : s.continuing;
      const row_tiles groups(end - begin, group_rows);
      for (size_t i_group = 0, g0 = begin; i_group < groups.count; g0 += groups.size(i_group), ++i_group) {
        const row_tiles tiling(groups.size(i_group), tile_rows(max_width));
        const depth_blocks depth(part ? 0 : s.depth, tiling, s.r_rows.at);
        for (size_t k = 0; k < depth.count(); ++k) {
          upcoming<T> ahead = depth.last(k)
                                  ? upcoming<T>::block(next, depth.length(0) * ld)
                                  : upcoming<T>::block(panel + depth.begin(k + 1) * ld, depth.length(k + 1) * ld);
          const T *block_of_panel = panel + depth.begin(k) * ld;
          if (s.r_rows.at) {
            pack_plain_panel(piece, s.r_rows, s.depth, unit0, least(ld, s.hidden - unit0), depth.begin(k),
                             depth.length(k));
            block_of_panel = piece;
            ahead = {};
          }
          for (size_t i = 0, r0 = g0; i < tiling.count; r0 += tiling.size(i), ++i) {
            const size_t n = tiling.size(i), kept = depth.count() > 1 ? (r0 - g0) * ld : 0;
            T *to[max_rows];
            const T *from[max_rows], *later[max_rows];
            for (size_t j = 0; j < n; ++j) {
              from[j] = to[j] = sums + kept + j * ld;
              later[j] = s.d_later + (r0 + j) * s.ld_later + depth.begin(k);
              if (k > 0) continue;
              const bool carried = s.carry_h && (E::carries_h || part);
              const T *carry = s.carry_h + (r0 + j) * s.ld_carry + unit0;
              for (size_t b = 0; b < place.blocks; ++b)
                store(to[j] + b * VL, carried ? load(carry + b * VL) : vec<T>{});
            }
            if (depth.last(k)) { // the cell's operands arrive while the product runs
              for (size_t j = 0; j < n; ++j) {
                if (s.dy.base) fetch(s.dy[r0 + j] + unit0, ld);
                E::fetch_row(s, r0 + j, unit0, ld);
              }
            }
            if (depth.depth)
              tiles<T>.single[place.width - 1][n - 1](to, 0, 0, from, 0, later, depth.length(k), block_of_panel, 0,
                                                      ahead.part(i, depth.length(k)));
            if (!depth.last(k)) continue;
            for (size_t j = 0; j < n; ++j) {
              const size_t r = r0 + j;
              const bool cut = !part && s.cut && s.cut[r];
              for (size_t b = 0; b < place.blocks; ++b) {
                const size_t unit = unit0 + b * VL, valid = least(VL, s.hidden - unit);
                vec<T> dh = cut && !s.keep_dh ? vec<T>{} : load(to[j] + b * VL);
                if (s.dy.base) dh = dh + load_first(s.dy[r] + unit, valid);
                E::finish(s, r, unit, valid, dh, cut);
              }
            }
          }
        }
      }
    }
  }
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
