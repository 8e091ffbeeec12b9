// general cells: the cells of cells.hpp with options that are known at run time only, and what a step does with them.
//
// sigma, tanh of cells.hpp become f of a gate, g of the candidate and, in the LSTM, y of the output (activations.hpp).
// f' is the slope of f at its pre-activation, which the tape keeps beside f. p are peepholes, k is 1 where zoneout
// keeps the old value, else 0, and at inference the probability of that. ^ marks the state before zoneout.
//
//   Elman   h^ = (1 - leak) h_{t-1} + leak f(a + noise)
//           da = leak dh^ f'    carry = (1 - leak) dh^ + k dh
//   LSTM    a_i += p_i c_{t-1}    a_f += p_f c_{t-1}    c^ = f c_{t-1} + i g    a_o += p_o c^    h^ = o y(c^)
//           coupled: f = 1 - i
//           da_o = dh^ y(c^) o'          dc^ = (1 - k_c) carry_c + dh^ o y'(c^) + da_o p_o
//           da_i = dc^ g i'   da_f = dc^ c_{t-1} f'   da_g = dc^ i g'       coupled: da_i = dc^ (g - c_{t-1}) i'
//           carry_c = k_c carry_c + dc^ f + da_i p_i + da_f p_f
//           dp_i = da_i c_{t-1}   dp_f = da_f c_{t-1}   dp_o = da_o c^
//   GRU     as in cells.hpp with f and g, and their slopes in the place of r (1 - r), z (1 - z), 1 - n^2
//   all     h_t = k h_{t-1} + (1 - k) h^    dh^ = (1 - k) dh    carry_h has k dh
//
// Every pre-activation is clipped to [-clip, clip] before its activation; beyond the bound the slope is zero.
// With recurrent dropout the recurrent product reads m h_{t-1}; what stands beside it reads h_{t-1}.
//
// The functions are not inlined: they are long, and a step calls them where its sums leave the registers anyway.
#pragma once

#include "kernels/activations.hpp"
#include "kernels/epilogue.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// ---- forward ------------------------------------------------------------------------------------------

// What general cells share for N blocks, each of one sequence: `at` says of which.
template <class T, int N> struct GeneralForward {
  static constexpr int VL = lanes<T>;
  typedef vecs<T, N> V;
  const ForwardStep<T> &s;
  const cell_place (&at)[N];
  const CellOptions<T> &o = *s.options;

  FASTRNN_INLINE V gate(int g, const V &a, V *slope) const {
    return activate_clipped<T, N>(o.gate[g], o.clip, a, slope);
  }
  FASTRNN_INLINE V read(const Rows<const T> &rows) const {
    return V::each(
        [&](auto i) __attribute__((always_inline)) { return load_first(rows[at[i].row] + at[i].unit, at[i].valid); });
  }
  // h_{t-1} as the product reads it, and as the cell does
  FASTRNN_INLINE V h_of(const Rows<const T> &rows) const {
    return V::each([&](auto i) __attribute__((always_inline)) {
      return load_first((at[i].zero_state ? s.zeros : rows[at[i].row]) + at[i].unit, at[i].valid);
    });
  }
  FASTRNN_INLINE V h_direct() const { return h_of(o.h_direct.base ? o.h_direct : s.h_prev); }
  FASTRNN_INLINE V peephole(int which) const {
    return V::each([&](auto i) __attribute__((always_inline)) { return load(o.peephole[which] + at[i].unit); });
  }
  FASTRNN_INLINE V zone(const Rows<const T> &zoned, T expected, const V &old, const V &now) const {
    if (!o.zoneout) return now;
    if (!zoned.base) return expected > T(0) ? fma(V(broadcast(expected)), old - now, now) : now;
    const V k = read(zoned);
    return V::each([&](auto i) __attribute__((always_inline)) { return k.at[i] > 0 ? old.at[i] : now.at[i]; });
  }
  FASTRNN_INLINE void store_h(const V &h) const {
    unroll<N>([&](auto i)
                  __attribute__((always_inline)) { store_first(s.h[at[i].row] + at[i].unit, h.at[i], at[i].valid); });
  }
  // Slot `slot` of the packed row on the tape. A gate has its value there and its slope behind.
  template <int slots> FASTRNN_INLINE T *kept(int i, int slot) const {
    return s.gates + at[i].row * s.ld_gates + at[i].unit * slots + slot * VL;
  }
  template <int slots> FASTRNN_INLINE void keep(int slot, const V &value) const {
    unroll<N>([&](auto i) __attribute__((always_inline)) { store(kept<slots>(i, slot), value.at[i]); });
  }
  template <int slots> FASTRNN_INLINE void keep_slope(int slot, const V &slope) const {
    unroll<N>([&](auto i) __attribute__((always_inline)) { store(kept<slots>(i, slot) + o.slopes, slope.at[i]); });
  }
};

template <class T> struct GeneralElmanForward {
  static constexpr int gates = 1, slots = 1, first_slot = 0, mid_values = 0;
  static constexpr bool split_candidate = false;
  template <int N>
  static __attribute__((noinline)) void finish(const ForwardStep<T> &s, const cell_place (&at)[N],
                                               const vecs<T, N> *pre, const vecs<T, N> &) {
    const GeneralForward<T, N> cell{s, at};
    typedef vecs<T, N> V;
    const CellOptions<T> &o = *s.options;
    V slope, a = pre[0];
    if (o.noise.base) a = a + cell.read(o.noise);
    V h = cell.gate(0, a, s.gates ? &slope : nullptr);
    if (o.leak != T(1) || o.zoneout) {
      const V h_prev = cell.h_direct();
      if (o.leak != T(1)) h = fma(V(broadcast(o.leak)), h - h_prev, h_prev);
      h = cell.zone(o.zoned_h, o.expected_h, h_prev, h);
    }
    cell.store_h(h);
    if (s.gates) cell.template keep<1>(0, slope);
  }
};

template <class T> struct GeneralLstmForward {
  static constexpr int gates = 4, slots = 4, first_slot = 0, mid_values = 0;
  static constexpr bool split_candidate = false;
  template <int N>
  static __attribute__((noinline)) void finish(const ForwardStep<T> &s, const cell_place (&at)[N],
                                               const vecs<T, N> *pre, const vecs<T, N> &) {
    const GeneralForward<T, N> cell{s, at};
    typedef vecs<T, N> V;
    const CellOptions<T> &o = *s.options;
    const bool keeps = s.gates;
    const auto c_at = [&](const T *c, int i)
                          __attribute__((always_inline)) { return c + at[i].row * s.ld_c + at[i].unit; };
    const V one = constant<T>(1), c_prev = V::each([&](auto i) __attribute__((always_inline)) {
                                    return at[i].zero_state ? vec<T>{} : load(c_at(s.c_prev, i));
                                  });
    V a_i = pre[0], a_f = pre[1], a_o = pre[3], slope[4];
    const auto slope_of = [&](int g) __attribute__((always_inline)) { return keeps ? slope + g : nullptr; };
    if (o.peephole[0]) {
      a_i = fma(cell.peephole(0), c_prev, a_i);
      a_f = fma(cell.peephole(1), c_prev, a_f);
    }
    const V i = cell.gate(0, a_i, slope_of(0));
    V f;
    if (o.coupled) {
      f = one - i;
      slope[1] = vec<T>{};
    } else {
      f = cell.gate(1, a_f, slope_of(1));
    }
    const V g = cell.gate(2, pre[2], slope_of(2));
    const V c = fma(f, c_prev, i * g);
    if (o.peephole[0]) a_o = fma(cell.peephole(2), c, a_o);
    const V out = cell.gate(3, a_o, slope_of(3));
    V h = out * activate<T, N>(o.output, c, nullptr), c_next = c;
    if (o.zoneout) {
      c_next = cell.zone(o.zoned_c, o.expected_c, c_prev, c);
      h = cell.zone(o.zoned_h, o.expected_h, cell.h_direct(), h);
    }
    unroll<N>([&](auto j) __attribute__((always_inline)) { store(const_cast<T *>(c_at(s.c, j)), c_next.at[j]); });
    cell.store_h(h);
    if (!keeps) return;
    const V value[4] = {i, f, g, out};
    for (int k = 0; k < 4; ++k) cell.template keep<4>(k, value[k]);
    for (int k = 0; k < 4; ++k) cell.template keep_slope<4>(k, slope[k]);
  }
};

template <class T> struct GeneralGruForward {
  static constexpr int gates = 3, slots = 4, first_slot = 0, mid_values = 0;
  static constexpr bool split_candidate = true;
  static FASTRNN_INLINE const T *bias_n(const ForwardStep<T> &s) { return s.options->bias_n; }
  template <int N>
  static __attribute__((noinline)) void finish(const ForwardStep<T> &s, const cell_place (&at)[N],
                                               const vecs<T, N> *pre, const vecs<T, N> &x_n) {
    const GeneralForward<T, N> cell{s, at};
    typedef vecs<T, N> V;
    const CellOptions<T> &o = *s.options;
    const bool keeps = s.gates;
    V slope_r, slope_z, slope_n;
    const V r = cell.gate(0, pre[0], keeps ? &slope_r : nullptr), z = cell.gate(1, pre[1], keeps ? &slope_z : nullptr);
    const V u = pre[2], n = cell.gate(2, fma(r, u, x_n), keeps ? &slope_n : nullptr), h_prev = cell.h_direct();
    cell.store_h(cell.zone(o.zoned_h, o.expected_h, h_prev, fma(z, h_prev - n, n)));
    if (!keeps) return;
    const V value[4] = {r, u, z, n};
    for (int k = 0; k < 4; ++k) cell.template keep<4>(k, value[k]);
    cell.template keep_slope<4>(0, slope_r);
    cell.template keep_slope<4>(2, slope_z);
    cell.template keep_slope<4>(3, slope_n);
  }
};

template <class T> struct GeneralBeforeGatesForward {
  static constexpr int gates = 2, slots = 3, first_slot = 0, mid_values = 0;
  static constexpr bool split_candidate = false;
  template <int N>
  static __attribute__((noinline)) void finish(const ForwardStep<T> &s, const cell_place (&at)[N],
                                               const vecs<T, N> *pre, const vecs<T, N> &) {
    const GeneralForward<T, N> cell{s, at};
    const bool keeps = s.options->slopes;
    vecs<T, N> slope[2];
    for (int g = 0; g < 2; ++g) {
      const vecs<T, N> value = cell.gate(g, pre[g], keeps ? slope + g : nullptr);
      cell.template keep<3>(g, value);
      if (keeps) cell.template keep_slope<3>(g, slope[g]);
      if (g) continue;
      const vecs<T, N> rh = value * cell.h_of(s.h_prev);
      unroll<N>([&](auto i) __attribute__((always_inline)) {
        store_first(s.rh + at[i].row * s.ld_rh + at[i].unit, rh.at[i], at[i].valid);
      });
    }
  }
};

template <class T> struct GeneralBeforeCandidateForward {
  static constexpr int gates = 1, slots = 3, first_slot = 2, mid_values = 0;
  static constexpr bool split_candidate = false;
  template <int N>
  static __attribute__((noinline)) void finish(const ForwardStep<T> &s, const cell_place (&at)[N],
                                               const vecs<T, N> *pre, const vecs<T, N> &) {
    const GeneralForward<T, N> cell{s, at};
    typedef vecs<T, N> V;
    const CellOptions<T> &o = *s.options;
    V slope;
    const V n = cell.gate(2, pre[0], o.slopes ? &slope : nullptr), h_prev = cell.h_direct();
    const V z = V::each([&](auto i) __attribute__((always_inline)) { return load(cell.template kept<3>(i, 1)); });
    cell.template keep<3>(2, n);
    if (o.slopes) cell.template keep_slope<3>(2, slope);
    cell.store_h(cell.zone(o.zoned_h, o.expected_h, h_prev, fma(z, h_prev - n, n)));
  }
};

// ---- backward -----------------------------------------------------------------------------------------

// What general cells share for one block of one sequence.
template <class T> struct GeneralBackward {
  static constexpr int VL = lanes<T>;
  typedef vec<T> V;
  const BackwardStep<T> &s;
  const size_t r, unit, valid;
  const CellOptions<T> &o = *s.options;
  const bool zero_state = s.reset && s.reset[r];

  FASTRNN_INLINE V kept(int slots, int slot) const { return load(s.gates + r * s.ld_gates + unit * slots + slot * VL); }
  FASTRNN_INLINE V slope(int slots, int slot) const {
    return load(s.gates + o.slopes + r * s.ld_gates + unit * slots + slot * VL);
  }
  FASTRNN_INLINE V h_prev() const { return load_first((zero_state ? s.zeros : s.h_prev[r]) + unit, valid); }
  // as the recurrent product has read it
  FASTRNN_INLINE V h_dropped() const {
    return o.dropped.base ? h_prev() * load_first(o.dropped[r] + unit, valid) : h_prev();
  }
  // k d, of which d is relieved
  FASTRNN_INLINE V zone(const Rows<const T> &zoned, T expected, V &d) const {
    if (!o.zoneout) return V{};
    const V k = zoned.base ? load_first(zoned[r] + unit, valid) : broadcast(expected), part = k * d;
    d = d - part;
    return part;
  }
  FASTRNN_INLINE void store_d(int slot, V d) const { store_first(s.d + r * s.ld_d + slot * s.hidden + unit, d, valid); }
  FASTRNN_INLINE void carry_h(V carry) const {
    if (s.carry_h) store(s.carry_h + r * s.ld_carry + unit, carry); // null with a projection
  }
};

template <class T>
FASTRNN_INLINE void prefetch_general(const BackwardStep<T> &s, size_t r, size_t unit, size_t n, size_t slots) {
  const T *const gates = s.gates + r * s.ld_gates + unit * slots;
  prefetch(gates, n * slots);
  prefetch(gates + s.options->slopes, n * slots);
  prefetch(s.h_prev[r] + unit, n);
}

template <class T> struct GeneralElmanBackward {
  static constexpr bool carries_h = true;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    prefetch(s.gates + r * s.ld_gates + unit, n);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    const GeneralBackward<T> cell{s, r, unit, valid};
    const CellOptions<T> &o = *s.options;
    vec<T> carry = cell.zone(o.zoned_h, o.expected_h, dh);
    if (o.leak != T(1)) {
      const vec<T> part = broadcast(o.leak) * dh;
      carry = carry + (dh - part);
      dh = part;
    }
    cell.carry_h(carry);
    cell.store_d(0, dh * cell.kept(1, 0));
  }
};

template <class T> struct GeneralLstmBackward {
  static constexpr bool carries_h = true;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    prefetch_general(s, r, unit, n, 4);
    prefetch(s.c_prev + r * s.ld_c + unit, n);
    prefetch(s.carry_c + r * s.ld_carry + unit, n);
  }
  static __attribute__((noinline)) void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh,
                                               bool cut) {
    typedef vec<T> V;
    const GeneralBackward<T> cell{s, r, unit, valid};
    const CellOptions<T> &o = *s.options;
    const V i = cell.kept(4, 0), f = cell.kept(4, 1), g = cell.kept(4, 2), out = cell.kept(4, 3);
    const V c_prev = cell.zero_state ? V{} : load(s.c_prev + r * s.ld_c + unit), c = fma(f, c_prev, i * g);
    V dc_t = cut ? V{} : load(s.carry_c + r * s.ld_carry + unit);
    vecs<T, 1> y_slope;
    const V y = activate<T, 1>(o.output, vecs<T, 1>(c), &y_slope).at[0];
    if (s.m) store_first(s.m + r * s.ld_m + unit, out * y, valid);
    cell.carry_h(cell.zone(o.zoned_h, o.expected_h, dh));
    V carry = cell.zone(o.zoned_c, o.expected_c, dc_t);
    const V da_o = dh * y * cell.slope(4, 3);
    V dc = fma(dh * out, y_slope.at[0], dc_t);
    if (o.peephole[0]) dc = fma(da_o, load(o.peephole[2] + unit), dc);
    const V da_i = dc * (o.coupled ? g - c_prev : g) * cell.slope(4, 0);
    const V da_f = o.coupled ? V{} : dc * c_prev * cell.slope(4, 1);
    carry = fma(dc, f, carry);
    if (o.peephole[0]) {
      carry = fma(da_i, load(o.peephole[0] + unit), fma(da_f, load(o.peephole[1] + unit), carry));
      cell.store_d(4, da_i * c_prev);
      cell.store_d(5, da_f * c_prev);
      cell.store_d(6, da_o * c);
    }
    store(s.carry_c + r * s.ld_carry + unit, carry);
    cell.store_d(0, da_i);
    cell.store_d(1, da_f);
    cell.store_d(2, dc * i * cell.slope(4, 2));
    cell.store_d(3, da_o);
  }
};

template <class T> struct GeneralGruBackward {
  static constexpr bool carries_h = true;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    prefetch_general(s, r, unit, n, 4);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    const GeneralBackward<T> cell{s, r, unit, valid};
    const vec<T> one = constant<T>(1);
    const vec<T> gate_r = cell.kept(4, 0), u = cell.kept(4, 1), z = cell.kept(4, 2), n = cell.kept(4, 3);
    const vec<T> stays = cell.zone(s.options->zoned_h, s.options->expected_h, dh);
    const vec<T> dn = dh * (one - z) * cell.slope(4, 3);
    cell.carry_h(fma(dh, z, stays));
    cell.store_d(0, dn);
    cell.store_d(1, dn * u * cell.slope(4, 0));
    cell.store_d(2, dh * (cell.h_prev() - n) * cell.slope(4, 2));
    cell.store_d(3, dn * gate_r);
  }
};

template <class T> struct GeneralBeforeCandidateBackward {
  static constexpr bool carries_h = true;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &s, size_t r, size_t unit, size_t n) {
    prefetch_general(s, r, unit, n, 3);
  }
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> dh, bool) {
    const GeneralBackward<T> cell{s, r, unit, valid};
    const vec<T> one = constant<T>(1), z = cell.kept(3, 1), n = cell.kept(3, 2);
    const vec<T> stays = cell.zone(s.options->zoned_h, s.options->expected_h, dh);
    cell.carry_h(fma(dh, z, stays));
    cell.store_d(0, dh * (one - z) * cell.slope(3, 2));
    cell.store_d(2, dh * (cell.h_prev() - n) * cell.slope(3, 1));
    store_first(s.m + r * s.ld_m + unit, cell.kept(3, 0) * cell.h_dropped(), valid);
  }
};

template <class T> struct GeneralBeforeGatesBackward {
  static constexpr bool carries_h = false;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &, size_t, size_t, size_t) {
  } // the first pass has just read it
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> v, bool) {
    const GeneralBackward<T> cell{s, r, unit, valid};
    const CellOptions<T> &o = *s.options;
    cell.store_d(1, v * cell.h_dropped() * cell.slope(3, 0));
    if (o.dropped.base) v = v * load_first(o.dropped[r] + unit, valid);
    cell.carry_h(fma(v, cell.kept(3, 0), load(s.carry_h + r * s.ld_carry + unit)));
  }
};

// Recurrent dropout: the product gives v, the gradient of m h_t. carry_h = m v, and what it was where the cell carries
// something beside the product.
template <class T, bool adds> struct DropBackward {
  static constexpr bool carries_h = false;
  static FASTRNN_INLINE void prefetch_row(const BackwardStep<T> &, size_t, size_t, size_t) {}
  static FASTRNN_INLINE void finish(const BackwardStep<T> &s, size_t r, size_t unit, size_t valid, vec<T> v, bool cut) {
    T *const carry = s.carry_h + r * s.ld_carry + unit;
    const vec<T> before = adds && !cut ? load(carry) : vec<T>{};
    store(carry, fma(load_first(s.options->dropped[r] + unit, valid), v, before));
  }
};

} // namespace FASTRNN_ISA
} // namespace fastrnn
