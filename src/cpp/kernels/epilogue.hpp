// epilogue: what a step does with the sums of its recurrent product, forward and backward.
//
// For one block of units of one sequence, an epilogue reads the state, the tape and the gradients, computes the cell
// (or half of it, or nothing) and writes the results. It connects the equations of cells.hpp with the arrays of a step.
#pragma once

#include "kernels/cells.hpp"
#include "kernels/kernels.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// ---- forward ------------------------------------------------------------------------------------------

// One block of units of one sequence, from `unit` on; the first `valid` of its units exist.
struct cell_place {
  size_t row, unit, valid;
  bool zero_state; // starts from a zero state
};

// A forward epilogue takes N blocks side by side (see vecs in simd.hpp), with their pre-activations. Its constants:
//   gates            gates whose pre-activations this step computes
//   slots            slots of a packed row (kernels.hpp), of which this step's gates begin with number first_slot
//   mid_values, split_candidate    see cells.hpp
// `finish` does everything. Where mid_values > 0, first_half and second_half may be called instead.

// A whole cell C of cells.hpp.
template <class T, class C> struct CellForward {
  static constexpr int gates = C::gates, slots = C::gates == 1 ? 1 : C::saved, first_slot = 0,
                       mid_values = C::mid_values;
  static constexpr bool split_candidate = C::split_candidate;
  static FASTRNN_INLINE const T *bias_n(const ForwardStep<T> &s) { return s.bias_n; } // where the candidate is split
  template <int N>
  static FASTRNN_INLINE void finish(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> *pre,
                                    const vecs<T, N> &x_n) {
    if constexpr (mid_values > 0) {
      vecs<T, N> mid[mid_values];
      const vecs<T, N> c = first_half(s, at, mid, pre, x_n);
      second_half(s, at, mid, c);
    } else {
      vecs<T, N> h;
      C::forward(h, pre);
      store_h(s, at, h);
    }
  }
  // Returns c_t where the cell has it.
  template <int N>
  static FASTRNN_INLINE vecs<T, N> first_half(const ForwardStep<T> &s, const cell_place (&at)[N], vecs<T, N> *mid,
                                              const vecs<T, N> *pre, const vecs<T, N> &x_n) {
    typedef vecs<T, N> V;
    V saved[C::saved], c = vec<T>{}, c_prev = vec<T>{};
    if constexpr (C::has_c)
      c_prev = V::each([&](auto i) __attribute__((always_inline)) {
        return at[i].zero_state ? vec<T>{} : load(s.c_prev + at[i].row * s.ld_c + at[i].unit);
      });
    C::first_half(c, mid, saved, pre, x_n, c_prev);
    if constexpr (C::has_c) unroll<N>([&](auto i) __attribute__((always_inline)) { store(state(s, at[i]), c.at[i]); });
    save<0, C::saved_first>(s, at, saved);
    return c;
  }
  template <int N>
  static FASTRNN_INLINE void second_half(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> *mid,
                                         const vecs<T, N> &c) {
    vecs<T, N> saved[C::saved], h, h_prev = vec<T>{};
    if constexpr (C::carries_h) h_prev = previous(s, at);
    C::second_half(h, saved, mid, c, h_prev);
    store_h(s, at, h);
    save<C::saved_first, C::saved>(s, at, saved);
  }
  template <int N> static FASTRNN_INLINE vecs<T, N> read_c(const ForwardStep<T> &s, const cell_place (&at)[N]) {
    return vecs<T, N>::each([&](auto i)
                                __attribute__((always_inline)) { return C::has_c ? load(state(s, at[i])) : vec<T>{}; });
  }
  template <int N> static FASTRNN_INLINE vecs<T, N> previous(const ForwardStep<T> &s, const cell_place (&at)[N]) {
    return vecs<T, N>::each([&](auto i) __attribute__((always_inline)) {
      return load_first((at[i].zero_state ? s.zeros : s.h_prev[at[i].row]) + at[i].unit, at[i].valid);
    });
  }

private:
  static FASTRNN_INLINE T *state(const ForwardStep<T> &s, const cell_place &at) {
    return s.c + at.row * s.ld_c + at.unit;
  }
  template <int N>
  static FASTRNN_INLINE void store_h(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> &h) {
    unroll<N>([&](auto i)
                  __attribute__((always_inline)) { store_first(s.h[at[i].row] + at[i].unit, h.at[i], at[i].valid); });
  }
  // saved[Begin .. End - 1]
  template <int Begin, int End, int N>
  static FASTRNN_INLINE void save(const ForwardStep<T> &s, const cell_place (&at)[N], const vecs<T, N> *saved) {
    if (!s.gates) return;
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      T *to = s.gates + at[i].row * s.ld_gates + at[i].unit * slots;
      unroll<End - Begin>(
          [&](auto g) __attribute__((always_inline)) { store(to + (Begin + g) * lanes<T>, saved[Begin + g].at[i]); });
    });
  }
};

// Reset-before GRU, first pass: r, z and r * h_prev.
template <class T> struct BeforeGatesForward {
  static constexpr int gates = 2, slots = 3, first_slot = 0, mid_values = 0;
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

// Reset-before GRU, second pass: the candidate and h.
template <class T> struct BeforeCandidateForward {
  static constexpr int gates = 1, slots = 3, first_slot = 2, mid_values = 0;
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
    // the product of this pass has read r * h_prev, but the cell needs h_prev itself
    GruBefore<T>::forward_candidate(h, n, z, pre[0], CellForward<T, GruBefore<T>>::previous(s, at));
    unroll<N>([&](auto i) __attribute__((always_inline)) {
      store(row(i) + 2 * VL, n.at[i]);
      store_first(s.h[at[i].row] + at[i].unit, h.at[i], at[i].valid);
    });
  }
};

// ---- backward -----------------------------------------------------------------------------------------

// A backward epilogue takes one block of units of one sequence, with its dh. It has
//   prefetch_row  prefetches what `finish` will read, for n units
//   finish        computes the gradients d of pre-activations and the carry; cut: the later step started from a zero
//                 state, so nothing flows back from it

// A whole cell C of cells.hpp.
template <class T, class C> struct CellBackward {
  static constexpr bool carries_h = C::carries_h;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    if constexpr (C::saved > 0) prefetch(s.gates + r * s.ld_gates + unit * C::saved, n * C::saved);
    if constexpr (C::has_c) {
      prefetch(s.c + r * s.ld_c + unit, n);
      prefetch(s.c_prev + r * s.ld_c + unit, n);
      prefetch(s.carry_c + r * s.ld_carry + unit, n);
    }
    if constexpr (C::carries_h) prefetch(s.h_prev[r] + unit, n);
    if constexpr (C::gates == 1) prefetch(s.h[r] + unit, n);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh,
                                    bool cut) {
    constexpr int VL = lanes<T>;
    typedef vecs<T, 1> V;
    V saved[C::saved + 1], da[C::grads], carry = vec<T>{}, c = vec<T>{}, c_prev = vec<T>{}, h = vec<T>{}, h_prev = h;
    const bool zero_state = s.reset && s.reset[r];
    const T *gates = s.gates + r * s.ld_gates + unit * C::saved;
    unroll<C::saved>([&](auto g) __attribute__((always_inline)) { saved[g] = load(gates + g * VL); });
    if constexpr (C::has_c) {
      c = load(s.c + r * s.ld_c + unit);
      if (!zero_state) c_prev = load(s.c_prev + r * s.ld_c + unit);
      if (!cut) carry = load(s.carry_c + r * s.ld_carry + unit);
    }
    if constexpr (C::carries_h) h_prev = load_first((zero_state ? s.zeros : s.h_prev[r]) + unit, valid);
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

// No cell: d = dh.
template <class T> struct StoreBackward {
  static constexpr bool carries_h = false;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &, size_t, size_t, size_t) {}
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    store_first(s.d + r * s.ld_d + unit, dh, valid);
  }
};
// The same where carry_h is part of dh.
template <class T> struct StoreCarriedBackward : StoreBackward<T> {
  static constexpr bool carries_h = true;
};

// Reset-before GRU, first pass: the candidate, z and carry. It also recomputes r * h_prev, for the gradient of R_n.
template <class T> struct BeforeCandidateBackward {
  static constexpr bool carries_h = true;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    prefetch(s.gates + r * s.ld_gates + unit * 3, n * 3);
    prefetch(s.h_prev[r] + unit, n);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    constexpr int VL = lanes<T>;
    const bool zero_state = s.reset && s.reset[r];
    const T *gates = s.gates + r * s.ld_gates + unit * 3;
    typedef vecs<T, 1> V;
    const V saved[3] = {load(gates), load(gates + VL), load(gates + 2 * VL)};
    const V h_prev = load_first((zero_state ? s.zeros : s.h_prev[r]) + unit, valid);
    V da[3], carry;
    GruBefore<T>::backward_candidate(da, carry, V(dh), saved, h_prev);
    store(s.carry_h + r * s.ld_carry + unit, carry.at[0]);
    T *d = s.d + r * s.ld_d + unit;
    store_first(d, da[0].at[0], valid);
    store_first(d + 2 * s.hidden, da[2].at[0], valid);
    store_first(s.m + r * s.ld_m + unit, (saved[0] * h_prev).at[0], valid);
  }
};

// Reset-before GRU, second pass: r. The product gives v, the gradient of r * h_prev.
template <class T> struct BeforeGatesBackward {
  static constexpr bool carries_h = false;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &, size_t, size_t, size_t) {
  } // the first pass has just read it
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> v, bool) {
    const bool zero_state = s.reset && s.reset[r];
    typedef vecs<T, 1> V;
    const V saved[1] = {load(s.gates + r * s.ld_gates + unit * 3)};
    V dr, carry = load(s.carry_h + r * s.ld_carry + unit);
    const V h_prev = load_first((zero_state ? s.zeros : s.h_prev[r]) + unit, valid);
    GruBefore<T>::backward_gates(dr, carry, V(v), saved, h_prev);
    store(s.carry_h + r * s.ld_carry + unit, carry.at[0]);
    store_first(s.d + r * s.ld_d + s.hidden + unit, dr.at[0], valid);
  }
};

} // namespace FASTRNN_ISA
} // namespace fastrnn
