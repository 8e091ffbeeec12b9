// step: one step of several sequences, forward and backward: the recurrent product, and the cell on its sums.
//
// A step takes one panel of weights after the other, and for each panel one group of sequences after the other. The
// sums of a group are used while they are still in the first-level cache: a panel has all gates of its units, so their
// cells can be computed at once, and no second pass over a buffer of pre-activations is needed.
#pragma once

#include "kernels/epilogue.hpp"
#include "kernels/few_rows.hpp"
#include "kernels/panels.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// ---- forward ------------------------------------------------------------------------------------------

// The sums of this many sequences are finished before their cells are computed. The processor then computes many
// independent cells one after the other, and waits only once for the long chain of operations that a cell is.
constexpr size_t cells_at_once = 24;

// body(index<2>, r) for the sequences [begin, end) in twos, and body(index<1>, r) for one that is left.
template <class F> FASTRNN_INLINE void two_by_two(size_t begin, size_t end, F &&body) {
  size_t r = begin;
  for (; r + 2 <= end; r += 2) body(index<2>{}, r);
  if (r < end) body(index<1>{}, r);
}

// What a forward step does on one panel (or two side by side) for one group of sequences, apart from the products.
template <class T, class E> struct ForwardPanel {
  static constexpr size_t VL = lanes<T>, gates = E::gates;
  // The sums have the layout of `init` and may start from it without a copy.
  static constexpr bool direct = E::gates == E::slots;
  // Second pass of the reset-before GRU: the product reads r * h_prev.
  static constexpr bool reads_rh = E::first_slot > 0;

  const ForwardStep<T> &s;
  T *const sums, *const input_sums;      // [group][blocks][gates][lanes]; input_sums: the input part, if s.input
  const size_t unit0, blocks;            // of the panel
  const size_t next_unit0;               // of the panel after it
  const size_t first;                    // the first sequence of the group
  const size_t ld = blocks * gates * VL; // of the sums
  const size_t input_block = (s.input ? gates : E::slots) * VL;

  FASTRNN_INLINE T *sum_of(size_t r) const { return sums + (r - first) * ld; }
  FASTRNN_INLINE const T *init_of(size_t r) const { return s.init + r * s.ld_init + unit0 * E::slots; }
  // the input part of a sequence, computed before this step or in it; its blocks have a distance of input_block
  FASTRNN_INLINE const T *input_of(size_t r) const { return s.input ? input_sums + (r - first) * ld : init_of(r); }
  FASTRNN_INLINE bool zero_state(size_t r) const { return s.reset && s.reset[r]; }

  // Offsets for tile_operands::from_at.
  FASTRNN_INLINE size_t from_at() const { return direct && !s.input ? unit0 * E::slots : 0; }
  FASTRNN_INLINE size_t input_from_at() const { return direct ? unit0 * E::slots : 0; }

  // Lists the operands of both products.
  FASTRNN_INLINE void fill(group_lists<T> &lists, group_lists<T> &input_lists, size_t rows) const {
    for (size_t j = 0; j < rows; ++j) {
      const size_t r = first + j;
      T *const to = lists.to[j] = sums + j * ld, *const input_to = input_lists.to[j] = input_sums + j * ld;
      const T *const init = s.init + r * s.ld_init;
      lists.a[j] = reads_rh ? s.rh + r * s.ld_rh : zero_state(r) ? s.zeros : s.h_prev[r];
      lists.from[j] = !direct ? to : s.input ? input_to : init;
      if (!s.input) continue;
      input_lists.a[j] = s.x[r];
      input_lists.from[j] = direct ? init : input_to;
    }
  }

  // The input product of sequences [r0, r0 + n) starts from `init`.
  FASTRNN_INLINE void start_input_sums(size_t r0, size_t n) const {
    if constexpr (!direct)
      for (size_t r = r0; r < r0 + n; ++r) copy_gates<gates>(input_sums + (r - first) * ld, init_of(r), E::slots * VL);
  }
  // Their recurrent product starts from the input part.
  FASTRNN_INLINE void start_sums(size_t r0, size_t n) const {
    for (size_t r = r0; r < r0 + n && !direct; ++r) {
      T *const to = sum_of(r);
      copy_gates<gates - (E::split_candidate ? 1 : 0)>(to, input_of(r), input_block);
      if constexpr (E::split_candidate) // but for the candidate's, which starts from b_hn
        for (size_t b = 0; b < blocks; ++b)
          store(to + (b * gates + gates - 1) * VL, load(E::bias_n(s) + unit0 + b * VL));
    }
  }
  // While their product runs: what the next tile starts from, and what their cells will read.
  FASTRNN_INLINE void prefetch_around(size_t r0, size_t n) const {
    if (!s.input && s.ld_init) {
      const size_t r1 = r0 + n < s.rows ? r0 + n : 0, unit1 = r1 ? unit0 : next_unit0;
      const T *const start = s.init + r1 * s.ld_init + unit1 * E::slots;
      for (size_t j = 0; j < n; ++j) prefetch(start + j * s.ld_init, blocks * E::slots * VL);
    }
    for (size_t j = 0; s.c_prev && j < n; ++j) prefetch(s.c_prev + (r0 + j) * s.ld_c + unit0, blocks * VL);
  }

  // The cells of sequences [begin, end), whose sums are finished. See cells.hpp for the two halves.
  FASTRNN_INLINE void compute_cells(size_t begin, size_t end) const {
    for (size_t b = 0; b < blocks; ++b) {
      const size_t valid = least(VL, s.hidden - unit0 - b * VL);
      if constexpr (E::mid_values > 0) {
        two_by_two(begin, end, [&](auto n, size_t r) __attribute__((always_inline)) { first_half(n, b, valid, r); });
        two_by_two(begin, end, [&](auto n, size_t r) __attribute__((always_inline)) { second_half(n, b, valid, r); });
      } else {
        two_by_two(begin, end, [&](auto n, size_t r) __attribute__((always_inline)) { whole_cell(n, b, valid, r); });
      }
    }
  }

private:
  // Copies the first n gates of a packed row, whose blocks have a distance of from_step.
  template <int n> FASTRNN_INLINE void copy_gates(T *to, const T *from, size_t from_step) const {
    for (size_t b = 0; b < blocks; ++b, to += gates * VL, from += from_step)
      unroll<n>([&](auto g)
                    __attribute__((always_inline)) { store(to + g * VL, load(from + (E::first_slot + g) * VL)); });
  }

  // Where block b of sequences row, row + 1, ... stands, and its pre-activations.
  template <int N> FASTRNN_INLINE void places(cell_place (&at)[N], size_t b, size_t valid, size_t row) const {
    const size_t unit = unit0 + b * VL;
    unroll<N>([&](auto i) __attribute__((always_inline)) { at[i] = {row + i, unit, valid, zero_state(row + i)}; });
  }
  template <int N>
  FASTRNN_INLINE void read_sums(vecs<T, N> (&pre)[gates], vecs<T, N> &x_n, size_t b, size_t row) const {
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      const T *const sum = sum_of(row + i) + b * gates * VL;
      unroll<E::gates>([&](auto g) __attribute__((always_inline)) { pre[g].at[i] = load(sum + g * VL); });
      if constexpr (E::split_candidate) x_n.at[i] = load(input_of(row + i) + b * input_block + 2 * VL);
    });
  }

  template <int N> FASTRNN_INLINE void whole_cell(index<N>, size_t b, size_t valid, size_t row) const {
    cell_place at[N];
    vecs<T, N> pre[gates], x_n = vec<T>{};
    places(at, b, valid, row);
    read_sums(pre, x_n, b, row);
    E::finish(s, at, pre, x_n);
  }
  // The halves hand `mid` on in the place of the sums, which are not needed any more.
  template <int N> FASTRNN_INLINE void first_half(index<N>, size_t b, size_t valid, size_t row) const {
    cell_place at[N];
    vecs<T, N> pre[gates], x_n = vec<T>{}, mid[E::mid_values];
    places(at, b, valid, row);
    read_sums(pre, x_n, b, row);
    E::first_half(s, at, mid, pre, x_n);
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      T *const sum = sum_of(row + i) + b * gates * VL;
      unroll<E::mid_values>([&](auto m) __attribute__((always_inline)) { store(sum + m * VL, mid[m].at[i]); });
    });
  }
  template <int N> FASTRNN_INLINE void second_half(index<N>, size_t b, size_t valid, size_t row) const {
    cell_place at[N];
    vecs<T, N> mid[E::mid_values];
    places(at, b, valid, row);
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      const T *const sum = sum_of(row + i) + b * gates * VL;
      unroll<E::mid_values>([&](auto m) __attribute__((always_inline)) { mid[m].at[i] = load(sum + m * VL); });
    });
    E::second_half(s, at, mid, E::read_c(s, at));
  }
};

// How many pairs of panels a step takes two at a time: see pairs_two_rows. Both panels of a pair have the same width,
// which may exclude the last panel.
template <class T> size_t panel_pairs(const ForwardStep<T> &s, size_t gates) {
  const size_t panels = s.last_panel - s.first_panel, all_blocks = blocks<T>(s.hidden);
  const bool pairs =
      panels > 1 && s.rows == 2 && pairs_two_rows(gates > 1 ? gates : max_width) && !s.r_rows.at && !s.w_rows.at;
  if (!pairs) return 0;
  const bool narrow_last =
      gate_panel(s.last_panel - 1, gates, all_blocks).width != gate_panel(s.first_panel, gates, all_blocks).width;
  return (panels - (narrow_last ? 1 : 0)) / 2;
}

template <class T, class E> void forward_step(const ForwardStep<T> &s) {
  constexpr size_t VL = lanes<T>, gates = E::gates;
  const size_t all_blocks = blocks<T>(s.hidden), pairs = panel_pairs(s, gates);
  const size_t count = s.last_panel - s.first_panel - pairs; // a pair of panels is taken at once
  // Every other step takes the panels in descending order: those that the step before has read last are still in the
  // nearest cache.
  const auto in_order = [&](size_t i) { return s.descending ? count - 1 - i : i; };
  const auto place_of = [&](size_t i) {
    return gate_panel(s.first_panel + (i < pairs ? 2 * i : pairs + i), gates, all_blocks);
  };
  const row_tiles groups = row_groups(s.rows, s.r_rows);
  alignas(64) T sums[group_numbers<T>], input_sums[group_numbers<T>], piece[piece_numbers<T>];
  group_lists<T> lists, input_lists;
  for (size_t i = 0; i < count; ++i) {
    const bool two = in_order(i) < pairs;
    const panel_place place = place_of(in_order(i));
    const size_t next_block = i + 1 < count ? place_of(in_order(i + 1)).block : place.block;
    const size_t column = place.block * VL * gates, next_column = next_block * VL * gates;
    const Panel<T> recurrent(s.r, s.r_rows, s.recurrent, place.width, s.hidden * gates, column, next_column, two);
    const Panel<T> input(s.w, s.w_rows, s.input, place.width, s.hidden * gates, column, next_column, two);
    const auto pack = [&](T *to, const RowMajor<T> &rows, size_t from, size_t depth) {
      pack_gate_panel(to, rows.at, rows.ld, 0, gates, s.hidden, place, from, depth);
    };
    groups.each([&](size_t, size_t first, size_t rows) __attribute__((always_inline)) {
      const ForwardPanel<T, E> panel = {
          s, sums, input_sums, place.block * VL, place.blocks * (two ? 2 : 1), next_block * VL, first};
      if (lists.must_fill(first, panel.ld)) panel.fill(lists, input_lists, rows);
      if (s.input) {
        const auto prepare = [&](size_t r, size_t n, size_t k, bool) __attribute__((always_inline)) {
          if (k == 0) panel.start_input_sums(r, n);
        };
        pass_over(input, input_lists.operands(panel.input_from_at()), first, rows, piece, pack, prepare,
                  [](size_t, size_t, bool) {});
      }
      const auto prepare = [&](size_t r, size_t n, size_t k, bool last) __attribute__((always_inline)) {
        if (k == 0) panel.start_sums(r, n);
        if (last) panel.prefetch_around(r, n);
      };
      size_t waiting = first; // the first sequence whose cells are not computed yet
      const auto done = [&](size_t r, size_t n, bool more) __attribute__((always_inline)) {
        if (r + n - waiting < cells_at_once && more) return;
        panel.compute_cells(waiting, r + n);
        waiting = r + n;
      };
      pass_over(recurrent, lists.operands(panel.from_at()), first, rows, piece, pack, prepare, done);
    });
  }
}

// Moves on to the arrays of the next step.
template <class T> FASTRNN_INLINE void next_step(ForwardStep<T> &s) {
  s.descending = !s.descending;
  s.init += s.init_step;
  s.x.base += s.x_step;
  s.h.base += s.h_step;
  s.h_prev.base += s.h_prev_step;
  s.gates += s.gates_step;
  s.c_prev = s.c;
  s.c += s.c_step;
}

// One step, or several, one after the other: for small layers, going through the engine's time loop for every step
// would take as long as the step itself.
template <class T, class E> void forward_steps(const ForwardStep<T> &first) {
  const bool packed = !first.r_rows.at && !first.w_rows.at;
  const size_t depth = first.input > first.recurrent ? first.input : first.recurrent; // of the deeper product
  const bool few = first.rows == 1 || (in_registers(first.rows, depth, forward_depth_in_registers) && packed);
  const auto take = !few ? &forward_step<T, E> : packed ? &forward_few<T, E> : &forward_few<T, E, false>;
  if (first.steps == 1) return take(first);
  ForwardStep<T> s = first;
  for (size_t left = s.steps; take(s), --left > 0;) next_step(s);
}

// ---- backward -----------------------------------------------------------------------------------------

// What a backward step does on one panel for one group of sequences, apart from the products.
//
// dh of a sequence is what flows back from its later step or, if it has none, dL/dh_n (in carry_h), plus dy. dy is
// added last, so that backward in several calls, which hand dstate on, gives the same bits as in one.
template <class T, class E> struct BackwardPanel {
  static constexpr size_t VL = lanes<T>;

  const BackwardStep<T> &s;
  T *const sums;                                              // [group][blocks][lanes]
  const size_t unit0, blocks;                                 // of the panel
  const size_t ld;                                            // of sums
  const bool later;                                           // the sequences of the group have a later step
  const size_t first;                                         // the first sequence of the group
  const bool carried = s.carry_h && (E::carries_h || !later); // sums start from carry_h

  FASTRNN_INLINE T *sum_of(size_t r) const { return sums + (r - first) * ld; }

  FASTRNN_INLINE void fill(group_lists<T> &lists, size_t rows) const {
    for (size_t j = 0; j < rows; ++j) {
      lists.from[j] = lists.to[j] = sums + j * ld;
      lists.a[j] = s.d_later + (first + j) * s.ld_later;
    }
  }

  // As in ForwardPanel.
  FASTRNN_INLINE void start_sums(size_t r) const {
    for (size_t b = 0; b < blocks; ++b)
      store(sum_of(r) + b * VL, carried ? load(s.carry_h + r * s.ld_carry + unit0 + b * VL) : vec<T>{});
  }
  FASTRNN_INLINE void prefetch_around(size_t r) const {
    if (s.dy.base) prefetch(s.dy[r] + unit0, ld);
    E::prefetch_row(s, r, unit0, ld);
  }
  FASTRNN_INLINE void compute_cells(size_t begin, size_t end) const {
    for (size_t r = begin; r < end; ++r) {
      const bool cut = later && s.cut && s.cut[r];
      for (size_t b = 0; b < blocks; ++b) {
        const size_t unit = unit0 + b * VL, valid = least(VL, s.hidden - unit);
        vec<T> dh = cut && !s.dh_already_cut ? vec<T>{} : load(sum_of(r) + b * VL);
        if (s.dy.base) dh = dh + load_first(s.dy[r] + unit, valid);
        E::finish(s, r, unit, valid, dh, cut);
      }
    }
  }
};

template <class T, class E> void backward_step(const BackwardStep<T> &s) {
  constexpr size_t VL = lanes<T>;
  const size_t all_blocks = blocks<T>(s.hidden), count = s.last_panel - s.first_panel;
  const auto place_of = [&](size_t i) { // in the order of forward_step
    return gate_panel(s.descending ? s.last_panel - 1 - i : s.first_panel + i, 1, all_blocks);
  };
  alignas(64) T sums[group_numbers<T>], piece[piece_numbers<T>];
  group_lists<T> lists;
  for (size_t i = 0; i < count; ++i) {
    const panel_place place = place_of(i);
    const size_t next_block = i + 1 < count ? place_of(i + 1).block : place.block, unit0 = place.block * VL,
                 ld = place.width * VL;
    const auto pack = [&](T *to, const RowMajor<T> &rows, size_t from, size_t depth) {
      pack_plain_panel(to, rows, s.depth, unit0, least(ld, s.hidden - unit0), from, depth);
    };
    for (int part = 0; part < 2; ++part) { // sequences with a later step, then those without, which need no product
      const bool later = part == 0;
      const size_t begin = later ? 0 : s.continuing, end = later ? s.continuing : s.rows;
      const Panel<T> matrix(s.r, s.r_rows, later ? s.depth : 0, place.width, s.hidden, unit0, next_block * VL);
      row_groups(end - begin, s.r_rows).each([&](size_t, size_t from, size_t rows) __attribute__((always_inline)) {
        const BackwardPanel<T, E> panel = {s, sums, unit0, place.blocks, ld, later, begin + from};
        if (lists.must_fill(panel.first, ld)) panel.fill(lists, rows);
        const auto prepare = [&](size_t r0, size_t n, size_t k, bool last) __attribute__((always_inline)) {
          for (size_t r = r0; r < r0 + n; ++r) {
            if (k == 0) panel.start_sums(r);
            if (last) panel.prefetch_around(r);
          }
        };
        const auto done = [&](size_t r, size_t n, bool)
                              __attribute__((always_inline)) { panel.compute_cells(r, r + n); };
        pass_over(matrix, lists.operands(), panel.first, rows, piece, pack, prepare, done);
      });
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
