// step: the microkernel with the cell as its epilogue, forward and backward.
//
// A tile of the recurrent product is finished while it is still in the first-level cache: all gates of its
// units lie side by side, so the cell runs on it at once and no second pass over a gate buffer is needed.
#pragma once

#include "kernels/epilogue.hpp"
#include "kernels/few_rows.hpp"
#include "kernels/panels.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Rows of a panel whose products are finished before their cells are computed: the latency of a cell, from its first
// activation to h some ninety cycles, is then waited for once for all of them.
constexpr size_t cells_at_once = 24;

template <class T, class E> void forward_step(const ForwardStep<T> &s) {
  constexpr size_t VL = lanes<T>;
  constexpr size_t gates = E::gates;
  constexpr bool reads_rh = E::first_slot > 0; // second half of the reset-before GRU
  constexpr bool direct = E::gates == E::slots;
  const size_t all_blocks = blocks<T>(s.hidden);
  alignas(64) T sums[group_numbers<T>], input_sums[group_numbers<T>], piece[piece_numbers<T>];

  // Panels in pairs where rows are few; the pairs must be of one width, which the last panel may not be.
  const size_t panels = s.last_panel - s.first_panel;
  size_t pairs = 0;
  if (panels > 1 && s.rows == 2 && pairs_two_rows(gates > 1 ? gates : max_width) && !s.r_rows.at && !s.w_rows.at) {
    const bool narrow_last =
        gate_panel(s.last_panel - 1, gates, all_blocks).width != gate_panel(s.first_panel, gates, all_blocks).width;
    pairs = (panels - (narrow_last ? 1 : 0)) / 2;
  }
  const size_t count = panels - pairs;
  // Every other step takes the panels in reverse: those read last are still in the nearest cache.
  const auto in_order = [&](size_t i) { return s.descending ? count - 1 - i : i; };
  const auto place_of = [&](size_t i) {
    return gate_panel(s.first_panel + (i < pairs ? 2 * i : pairs + i), gates, all_blocks);
  };
  const auto zero_state = [&](size_t r) { return s.reset && s.reset[r]; };
  const row_tiles groups = row_groups(s.rows, s.r_rows);
  group_lists<T> lists, input_lists;
  for (size_t i_panel = 0; i_panel < count; ++i_panel) {
    const size_t at_once = in_order(i_panel) < pairs ? 2 : 1;
    const panel_place place = place_of(in_order(i_panel));
    const size_t next_block = i_panel + 1 < count ? place_of(in_order(i_panel + 1)).block : place.block;
    const size_t unit0 = place.block * VL, panel_blocks = place.blocks * at_once;
    const size_t ld = panel_blocks * gates * VL; // of `sums`
    const size_t column = unit0 * gates, next_column = next_block * VL * gates;
    const Panel<T> recurrent(s.r, s.r_rows, s.recurrent, place.width, s.hidden * gates, column, next_column,
                             at_once == 2);
    const Panel<T> input(s.w, s.w_rows, s.input, place.width, s.hidden * gates, column, next_column, at_once == 2);
    const auto pack = [&](T *to, const RowMajor<T> &rows, size_t from, size_t depth) {
      pack_gate_panel(to, rows.at, rows.ld, 0, gates, s.hidden, place, from, depth);
    };
    for (size_t i_group = 0, g0 = 0; i_group < groups.count; g0 += groups.size(i_group), ++i_group) {
      const size_t group = groups.size(i_group);
      const auto init_of = [&](size_t r) { return s.init + r * s.ld_init + unit0 * E::slots; };
      // the first n gates of a packed row whose blocks are `from_step` apart
      const auto copy_gates = [&](auto n, T *to, const T *from, size_t from_step) __attribute__((always_inline)) {
        for (size_t b = 0; b < panel_blocks; ++b, to += gates * VL, from += from_step)
          unroll<decltype(n)::value>([&](auto g) __attribute__((always_inline)) {
            store(to + g * VL, load(from + (E::first_slot + g) * VL));
          });
      };
      // where the sums of a row start: at its input part, computed before or here
      const size_t input_block = s.input ? gates * VL : E::slots * VL;
      const auto input_of = [&](size_t r) { return s.input ? input_sums + (r - g0) * ld : init_of(r); };
      if (lists.must_fill(g0, ld))
        for (size_t j = 0; j < group; ++j) {
          const size_t r = g0 + j;
          T *const to = lists.to[j] = sums + j * ld, *const input_to = input_lists.to[j] = input_sums + j * ld;
          const T *const init = s.init + r * s.ld_init;
          lists.a[j] = reads_rh ? s.rh + r * s.ld_rh : zero_state(r) ? s.zeros : s.h_prev[r];
          lists.from[j] = !direct ? to : s.input ? input_to : init;
          if (!s.input) continue;
          input_lists.a[j] = s.x[r];
          input_lists.from[j] = direct ? init : input_to;
        }
      if (s.input) {
        const auto prepare = [&](size_t r0, size_t n, size_t k, bool) __attribute__((always_inline)) {
          if constexpr (!direct)
            for (size_t r = r0; r < r0 + n && k == 0; ++r)
              copy_gates(index<E::gates>{}, input_sums + (r - g0) * ld, init_of(r), E::slots * VL);
        };
        pass_over(input, input_lists.operands(direct ? unit0 * E::slots : 0), g0, group, piece, pack, prepare,
                  [](size_t, size_t, bool) {});
      }
      // what the next tile starts from, and the cell of this one reads, arrives while the product runs
      const auto prefetch_around = [&](size_t r0, size_t n) __attribute__((always_inline)) {
        if (!s.input && s.ld_init) {
          const size_t r1 = r0 + n < s.rows ? r0 + n : 0, unit1 = r1 ? unit0 : next_block * VL;
          const T *const start = s.init + r1 * s.ld_init + unit1 * E::slots;
          for (size_t j = 0; j < n; ++j) prefetch(start + j * s.ld_init, panel_blocks * E::slots * VL);
        }
        for (size_t j = 0; s.c_prev && j < n; ++j) prefetch(s.c_prev + (r0 + j) * s.ld_c + unit0, panel_blocks * VL);
      };
      const auto prepare = [&](size_t r0, size_t n, size_t k, bool end) __attribute__((always_inline)) {
        for (size_t r = r0; r < r0 + n && k == 0 && !direct; ++r) {
          T *const to = sums + (r - g0) * ld;
          copy_gates(index<E::gates - (E::split_candidate ? 1 : 0)>{}, to, input_of(r), input_block);
          if constexpr (E::split_candidate) // starts its recurrent sum at b_hn, apart from its input part
            for (size_t b = 0; b < panel_blocks; ++b)
              store(to + (b * gates + gates - 1) * VL, load(s.bias_n + unit0 + b * VL));
        }
        if (end) prefetch_around(r0, n);
      };
      size_t waiting = g0;
      const auto done = [&](size_t r0, size_t n, bool more) __attribute__((always_inline)) {
        if (r0 + n - waiting < cells_at_once && more) return;
        // rows whose product is finished, for one block of units
        for (size_t b = 0; b < panel_blocks; ++b) {
          const size_t unit = unit0 + b * VL, valid = least(VL, s.hidden - unit);
          const auto sum_of = [&](size_t r)
                                  __attribute__((always_inline)) { return sums + (r - g0) * ld + b * gates * VL; };
          const auto two_by_two = [&](auto &&cells) __attribute__((always_inline)) {
            size_t row = waiting;
            for (; row + 2 <= r0 + n; row += 2) cells(index<2>{}, row);
            if (row < r0 + n) cells(index<1>{}, row);
          };
          two_by_two([&](auto at_once, size_t row) __attribute__((always_inline)) {
            constexpr int N = decltype(at_once)::value;
            cell_place at[N];
            vecs<T, N> pre[gates], x_n = vec<T>{};
            unroll<N>([&](auto i) __attribute__((always_inline)) {
              const size_t r = row + i;
              at[i] = {r, unit, valid, zero_state(r)};
              unroll<E::gates>([&](auto g) __attribute__((always_inline)) { pre[g].at[i] = load(sum_of(r) + g * VL); });
              if constexpr (E::split_candidate) x_n.at[i] = load(input_of(r) + b * input_block + 2 * VL);
            });
            if constexpr (E::mid_values > 0) {
              vecs<T, N> mid[E::mid_values];
              E::first_half(s, at, mid, pre, x_n);
              unroll<N>([&](auto i) __attribute__((always_inline)) {
                unroll<E::mid_values>(
                    [&](auto m) __attribute__((always_inline)) { store(sum_of(row + i) + m * VL, mid[m].at[i]); });
              });
            } else {
              E::finish(s, at, pre, x_n);
            }
          });
          if constexpr (E::mid_values > 0)
            two_by_two([&](auto at_once, size_t row) __attribute__((always_inline)) {
              constexpr int N = decltype(at_once)::value;
              cell_place at[N];
              vecs<T, N> mid[E::mid_values];
              unroll<N>([&](auto i) __attribute__((always_inline)) {
                at[i] = {row + i, unit, valid, zero_state(row + i)};
                unroll<E::mid_values>(
                    [&](auto m) __attribute__((always_inline)) { mid[m].at[i] = load(sum_of(row + i) + m * VL); });
              });
              E::second_half(s, at, mid, E::read_c(s, at));
            });
        }
        waiting = r0 + n;
      };
      const size_t from_at = direct && !s.input ? unit0 * E::slots : 0;
      pass_over(recurrent, lists.operands(from_at), g0, group, piece, pack, prepare, done);
    }
  }
}

// One step or several, one after the other. What surrounds a step in the time loop takes as many instructions as a row
// of eight units.
template <class T, class E> void forward_steps(const ForwardStep<T> &first) {
  const bool packed = !first.r_rows.at && !first.w_rows.at;
  const size_t depth = first.input > first.recurrent ? first.input : first.recurrent; // of the deeper product
  const bool few = first.rows == 1 || (in_registers(first.rows, depth, forward_depth_in_registers) && packed);
  const auto take = !few ? &forward_step<T, E> : packed ? &forward_few<T, E> : &forward_few<T, E, false>;
  if (first.steps == 1) return take(first);
  ForwardStep<T> s = first;
  for (size_t left = s.steps; take(s), --left > 0;) {
    s.descending = !s.descending;
    s.init += s.init_step;
    s.x.base += s.x_step;
    s.h.base += s.h_step;
    s.h_prev.base += s.h_prev_step;
    s.gates += s.gates_step;
    s.c_prev = s.c;
    s.c += s.c_step;
  }
}

// dh of a row: what flows back from its later step, or, where it has none, dL/dh_n (in carry_h); plus dy.
// dy comes last, so that BPTT in pieces, with dstate handed on, gives the same bits as in one.
template <class T, class E> void backward_step(const BackwardStep<T> &s) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(s.hidden), count = s.last_panel - s.first_panel;
  const auto place_of = [&](size_t i) { // in the order of forward_step
    return gate_panel(s.descending ? s.last_panel - 1 - i : s.first_panel + i, 1, all_blocks);
  };
  alignas(64) T sums[group_numbers<T>], piece[piece_numbers<T>];
  group_lists<T> lists;
  for (size_t i_panel = 0; i_panel < count; ++i_panel) {
    const panel_place place = place_of(i_panel);
    const size_t next_block = i_panel + 1 < count ? place_of(i_panel + 1).block : place.block;
    const size_t unit0 = place.block * VL, ld = place.width * VL;
    const auto pack = [&](T *to, const RowMajor<T> &rows, size_t from, size_t depth) {
      pack_plain_panel(to, rows, s.depth, unit0, least(ld, s.hidden - unit0), from, depth);
    };
    for (int part = 0; part < 2; ++part) { // rows with a later step, then rows without
      const size_t begin = part ? s.continuing : 0, end = part ? s.rows : s.continuing;
      const bool carried = s.carry_h && (E::carries_h || part);
      const Panel<T> panel(s.r, s.r_rows, part ? 0 : s.depth, place.width, s.hidden, unit0, next_block * VL);
      const row_tiles groups = row_groups(end - begin, s.r_rows);
      for (size_t i_group = 0, g0 = begin; i_group < groups.count; g0 += groups.size(i_group), ++i_group) {
        const size_t group = groups.size(i_group);
        if (lists.must_fill(g0, ld))
          for (size_t j = 0; j < group; ++j) {
            lists.from[j] = lists.to[j] = sums + j * ld;
            lists.a[j] = s.d_later + (g0 + j) * s.ld_later;
          }
        const auto prepare = [&](size_t r0, size_t n, size_t k, bool last) __attribute__((always_inline)) {
          for (size_t r = r0; r < r0 + n; ++r) {
            if (k == 0)
              for (size_t b = 0; b < place.blocks; ++b)
                store(sums + (r - g0) * ld + b * VL,
                      carried ? load(s.carry_h + r * s.ld_carry + unit0 + b * VL) : vec<T>{});
            if (!last) continue; // the cell's operands arrive while the product runs
            if (s.dy.base) prefetch(s.dy[r] + unit0, ld);
            E::prefetch_row(s, r, unit0, ld);
          }
        };
        const auto done = [&](size_t r0, size_t n, bool) __attribute__((always_inline)) {
          for (size_t r = r0; r < r0 + n; ++r) {
            const bool cut = !part && s.cut && s.cut[r];
            for (size_t b = 0; b < place.blocks; ++b) {
              const size_t unit = unit0 + b * VL, valid = least(VL, s.hidden - unit);
              vec<T> dh = cut && !s.dh_already_cut ? vec<T>{} : load(sums + (r - g0) * ld + b * VL);
              if (s.dy.base) dh = dh + load_first(s.dy[r] + unit, valid);
              E::finish(s, r, unit, valid, dh, cut);
            }
          }
        };
        pass_over(panel, lists.operands(), g0, group, piece, pack, prepare, done);
      }
    }
  }
}

template <class T, class E> void backward_steps(const BackwardStep<T> &first) {
  const bool packed = !first.r_rows.at;
  const bool few = first.rows == 1 || (in_registers(first.rows, first.depth, backward_depth_in_registers) && packed);
  const auto take = !few ? &backward_step<T, E> : packed ? &backward_few<T, E> : &backward_few<T, E, false>;
  if (first.steps == 1) return take(first);
  BackwardStep<T> s = first;
  for (size_t left = s.steps; take(s), --left > 0;) {
    s.descending = !s.descending;
    s.dy.base += s.dy_step;
    s.h.base += s.h_step;
    s.h_prev.base += s.h_step;
    s.gates += s.gates_step;
    s.c += s.c_step;
    s.c_prev += s.c_step;
    s.d_later += s.d_step;
    s.d += s.d_step;
  }
}

} // namespace FASTRNN_ISA
} // namespace fastrnn
