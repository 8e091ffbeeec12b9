// cells: what one time step does after its matrix products, and the derivative of that.
//
// A cell is elementwise: every hidden unit is computed from its own numbers, so the functions below work on registers
// of neighbouring units. reference/cells.py has the same equations in NumPy.
//
// sigma(x) = 1 / (1 + e^-x);  products of vectors are elementwise.
//
// Arguments:
//   a      pre-activations, one for each gate: the sum of bias, input part and recurrent part
//   s      what the tape keeps of a step for backward
//   dh     dL/dh_t, from everything that reads h_t
//   da     dL/da. The input product of backward reads the first `gates` of them, the recurrent product the last
//          `gates`. The two differ only for the GRU, whose candidate sees its recurrent part through r.
//   carry  what flows back to step t - 1 without passing through the recurrent product
//   V      one register (vec) or several side by side (vecs), see simd.hpp
//
// The LSTM and the GRU apply one activation to the result of another, so the second has to wait for the first. Their
// forward comes in two functions, with `mid_values` registers (mid) handed from the first to the second. A step calls
// the first half for several sequences of the batch and then the second half for the same ones: while one sequence
// waits, the processor computes others. The first half saves s[0 .. saved_first - 1], the second half the rest.
//
// Constants of a cell:
//   gates            how many gates it has; `saved`, `grads`: how many s and da
//   has_c            there is a state c beside h; then `carry` is the part of dL/dc_{t-1} described above
//   carries_h        `carry` is such a part of dL/dh_{t-1}
//   split_candidate  the last gate needs its input part and its recurrent part apart: x_n and a[gates - 1]
#pragma once

#include "kernels/math.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Elman 1990: h_t = tanh(a)        da = dh * (1 - h_t^2)
template <class T> struct ElmanTanh {
  static constexpr int gates = 1, saved = 0, grads = 1, mid_values = 0;
  static constexpr bool has_c = false, carries_h = false, split_candidate = false;
  template <class V> static FASTRNN_INLINE void forward(V &h, const V *a) { h = tanh<T>(a[0]); }
  template <class V>
  static FASTRNN_INLINE void backward(V *da, V &, const V &dh, const V *, const V &, const V &, const V &, const V &h) {
    da[0] = dh * fnma(h, h, constant<T>(1));
  }
};

// The same with a rectifier: h_t = max(0, a)        da = dh where h_t > 0, else 0 (NaN stays NaN)
template <class T> struct ElmanRelu {
  static constexpr int gates = 1, saved = 0, grads = 1, mid_values = 0;
  static constexpr bool has_c = false, carries_h = false, split_candidate = false;
  template <class V> static FASTRNN_INLINE void forward(V &h, const V *a) { h = max(constant<T>(0), a[0]); }
  template <class V>
  static FASTRNN_INLINE void backward(V *da, V &, const V &dh, const V *, const V &, const V &, const V &, const V &h) {
    da[0] = zero_unless_positive(h, dh);
  }
};

// LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000), gates i, f, g, o:
//   i = sigma(a_i)  f = sigma(a_f)  g = tanh(a_g)  o = sigma(a_o)
//   c_t = f * c_{t-1} + i * g              h_t = o * tanh(c_t)
//   dc = carry + dh * o * (1 - tanh(c_t)^2)
//   do = dh * tanh(c_t)    di = dc * g    df = dc * c_{t-1}    dg = dc * i    carry = dc * f
//   da of each gate is its derivative above times that of its activation.
template <class T> struct Lstm {
  static constexpr int gates = 4, saved = 4, grads = 4, mid_values = 1, saved_first = 3;
  static constexpr bool has_c = true, carries_h = false, split_candidate = false;
  template <class V> static FASTRNN_INLINE void first_half(V &c, V *mid, V *s, const V *a, const V &, const V &c_prev) {
    s[0] = sigmoid<T>(a[0]);
    s[1] = sigmoid<T>(a[1]);
    s[2] = tanh<T>(a[2]);
    mid[0] = sigmoid<T>(a[3]);
    c = fma(s[1], c_prev, s[0] * s[2]);
  }
  template <class V> static FASTRNN_INLINE void second_half(V &h, V *s, const V *mid, const V &c, const V &) {
    s[3] = mid[0];
    h = s[3] * tanh<T>(c);
  }
  template <class V>
  static FASTRNN_INLINE void backward(V *da, V &carry, const V &dh, const V *s, const V &c, const V &c_prev, const V &,
                                      const V &) {
    const V one = constant<T>(1);
    const V i = s[0], f = s[1], g = s[2], o = s[3];
    const V tanh_c = tanh<T>(c);
    const V dc = fma(dh * o, fnma(tanh_c, tanh_c, one), carry);
    da[0] = dc * g * (i * (one - i));
    da[1] = dc * c_prev * (f * (one - f));
    da[2] = dc * i * fnma(g, g, one);
    da[3] = dh * tanh_c * (o * (one - o));
    carry = dc * f;
  }
  // o * tanh(c_t): the output before the projection, which is not kept on the tape
  template <class V> static FASTRNN_INLINE V output(const V *s, const V &c) { return s[3] * tanh<T>(c); }
};

// GRU (Cho et al. 2014), reset applied after the recurrent product, as PyTorch and cuDNN have it:
//   r = sigma(a_r)  z = sigma(a_z)  u = R_n h_{t-1} + b_hn  n = tanh(x_n + r * u)
//   h_t = (1 - z) * n + z * h_{t-1}
//   dn = dh * (1 - z) * (1 - n^2)    dz = dh * (h_{t-1} - n) * z * (1 - z)    dr = dn * u * r * (1 - r)
//   du = dn * r    carry = dh * z
// Here dn, dz and dr are gradients of pre-activations. da = (dn, dr, dz, du): the input product reads (dn, dr, dz),
// the recurrent one (dr, dz, du).
template <class T> struct Gru {
  static constexpr int gates = 3, saved = 4, grads = 4, mid_values = 2, saved_first = 2;
  static constexpr bool has_c = false, carries_h = true, split_candidate = true;
  template <class V> static FASTRNN_INLINE void first_half(V &, V *mid, V *s, const V *a, const V &x_n, const V &) {
    s[0] = sigmoid<T>(a[0]);
    s[1] = a[2];
    mid[0] = fma(s[0], s[1], x_n);
    mid[1] = sigmoid<T>(a[1]);
  }
  template <class V> static FASTRNN_INLINE void second_half(V &h, V *s, const V *mid, const V &, const V &h_prev) {
    s[2] = mid[1];
    s[3] = tanh<T>(mid[0]);
    h = fma(s[2], h_prev - s[3], s[3]);
  }
  template <class V>
  static FASTRNN_INLINE void backward(V *da, V &carry, const V &dh, const V *s, const V &, const V &, const V &h_prev,
                                      const V &) {
    const V one = constant<T>(1);
    const V r = s[0], u = s[1], z = s[2], n = s[3];
    da[0] = dh * (one - z) * fnma(n, n, one);
    da[1] = da[0] * u * (r * (one - r));
    da[2] = dh * (h_prev - n) * (z * (one - z));
    da[3] = da[0] * r;
    carry = dh * z;
  }
};

// GRU, reset applied before the recurrent product, as in the first version of the paper:
//   n = tanh(x_n + R_n (r * h_{t-1}) + b_n), the rest as above.
// A step has two recurrent products, so it is computed in two passes over the units: the first gives r, z and
// r * h_{t-1}, the second n and h_t. Backward takes them in the opposite order: first dn, dz and carry; then, with
// v = R_n^T dn, dr = v * h_{t-1} * r * (1 - r) and carry += v * r.
template <class T> struct GruBefore {
  static constexpr int gates = 3, saved = 3, grads = 3;
  template <class V> static FASTRNN_INLINE void forward_gates(V &rh, V *s, const V *a, const V &h_prev) {
    s[0] = sigmoid<T>(a[0]);
    s[1] = sigmoid<T>(a[1]);
    rh = s[0] * h_prev;
  }
  template <class V>
  static FASTRNN_INLINE void forward_candidate(V &h, V &n, const V &z, const V &a_n, const V &h_prev) {
    n = tanh<T>(a_n);
    h = fma(z, h_prev - n, n);
  }
  // da = (dn, dr, dz)
  template <class V>
  static FASTRNN_INLINE void backward_candidate(V *da, V &carry, const V &dh, const V *s, const V &h_prev) {
    const V one = constant<T>(1);
    const V z = s[1], n = s[2];
    da[0] = dh * (one - z) * fnma(n, n, one);
    da[2] = dh * (h_prev - n) * (z * (one - z));
    carry = dh * z;
  }
  template <class V>
  static FASTRNN_INLINE void backward_gates(V &dr, V &carry, const V &v, const V *s, const V &h_prev) {
    const V one = constant<T>(1);
    const V r = s[0];
    dr = v * h_prev * (r * (one - r));
    carry = fma(v, r, carry);
  }
};

} // namespace FASTRNN_ISA
} // namespace fastrnn
