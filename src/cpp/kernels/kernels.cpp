// The table of functions of one kernel set for one number type. This file is compiled once for each of them, with
// FASTRNN_ISA as the set's name and FASTRNN_NUMBER as the type.
#include "kernels/kernels.hpp"
#include "kernels/product.hpp"
#include "kernels/softmax.hpp"
#include "kernels/step.hpp"
#include "kernels/update.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

template <class T> void add_general_cells(Kernels<T> &); // general.cpp

namespace {

size_t gate_slots(Cell cell) { return gate_count(cell) + (resets_after(cell) ? 1 : 0); } // the candidate's two parts
size_t saved_slots(Cell cell) {
  return cell == Cell::rnn_tanh || cell == Cell::rnn_relu ? 0 : gate_slots(cell); // Elman: y is enough
}

template <class T> size_t gate_panels(size_t gates, size_t hidden) {
  return gate_panel_count(gates, blocks<T>(hidden));
}
template <class T> size_t plain_panels(size_t columns) { return gate_panel_count(1, blocks<T>(columns)); }

template <class T>
void pack_gates(T *to, const T *w, size_t ld, size_t first, size_t count, size_t hidden, size_t depth, size_t begin,
                size_t end) {
  for (size_t p = begin; p < end; ++p) {
    const panel_place place = gate_panel(p, count, blocks<T>(hidden));
    pack_gate_panel(to + place.block * count * lanes<T> * depth, w, ld, first, count, hidden, place, 0, depth);
  }
}

template <class T> void pack_bias(T *to, const T *b_ih, const T *b_hh, Cell cell, size_t hidden) {
  constexpr size_t VL = lanes<T>;
  const size_t gates = gate_count(cell), slots = gate_slots(cell);
  for (size_t block = 0; block < blocks<T>(hidden); ++block) {
    const size_t unit = block * VL, valid = least(VL, hidden - unit);
    for (size_t g = 0; g < slots; ++g) {
      vec<T> sum = {};
      if (g < gates) {
        if (b_ih) sum = load_first(b_ih + g * hidden + unit, valid);
        // b_hn of the GRU is multiplied by r together with the recurrent sum, so that sum starts from it
        if (b_hh && !(resets_after(cell) && g == 2)) sum = sum + load_first(b_hh + g * hidden + unit, valid);
      }
      store(to + (block * slots + g) * VL, sum);
    }
  }
}

template <class T> void pack_unit_row(T *to, const T *from, size_t hidden) {
  constexpr size_t VL = lanes<T>;
  for (size_t unit = 0; unit < hidden; unit += VL) store(to + unit, load_first(from + unit, least(VL, hidden - unit)));
}

// Reads row after row from end to end, the order in which the hardware prefetches.
template <class T> void pack_plain(T *to, const T *b, size_t ld, size_t at, size_t rows, size_t depth, size_t columns) {
  constexpr size_t full = max_width * lanes<T>;
  for (size_t k = 0; k < rows; ++k)
    for (size_t column = 0; column < columns; column += full) {
      const size_t valid = least(full, columns - column);
      pack_row<T, max_width>(to + column * depth + (at + k) * blocks<T>(valid) * lanes<T>, b + k * ld + column, valid);
    }
}

template <class T> void gate_product_of(const Product<T> &q, Cell cell) {
  gate_product(q, gate_count(cell), gate_slots(cell));
}

template <class T> void tanh_array(T *out, const T *in, size_t n) {
  for (size_t i = 0; i < n; i += lanes<T>) {
    const size_t valid = least(lanes<T>, n - i);
    store_first(out + i, tanh<T>(vecs<T, 1>(load_first(in + i, valid))).at[0], valid);
  }
}
template <class T> void sigmoid_array(T *out, const T *in, size_t n) {
  for (size_t i = 0; i < n; i += lanes<T>) {
    const size_t valid = least(lanes<T>, n - i);
    store_first(out + i, sigmoid<T>(vecs<T, 1>(load_first(in + i, valid))).at[0], valid);
  }
}
template <class T> void scale_mask(T *out, const T *in, const uint8_t *mask, T scale, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = mask[i] ? in[i] * scale : T(0);
}

// 12 independent chains of fma, enough to keep a core's fma units busy.
template <class T> double peak(size_t rounds) {
  vec<T> sums[12];
  unroll<12>([&](auto i) __attribute__((always_inline)) { sums[i] = constant<T>(0.5 + i); });
  vec<T> a = constant<T>(0.999999), b = constant<T>(1e-9);
  for (size_t k = 0; k < rounds; ++k) {
    asm volatile("" : "+m"(rounds)); // keeps the loop
    unroll<12>([&](auto i) __attribute__((always_inline)) { sums[i] = fma(sums[i], a, b); });
  }
  vec<T> total = sums[0];
  unroll<12>([&](auto i) __attribute__((always_inline)) { total = total + sums[i]; });
  double sum = 0;
  for (int i = 0; i < lanes<T>; ++i) sum += double(total[i]);
  return sum > 0 ? double(rounds) * 12 * 2 * lanes<T> : 0;
}

size_t step_tile_rows(Cell cell) { return tile_rows(gate_count(cell) == 1 ? max_width : gate_count(cell)); }

template <class T> T read(const T *from, size_t n, size_t rounds) {
  vec<T> sums[8] = {};
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i + 8 * lanes<T> <= n; i += 8 * lanes<T>)
      unroll<8>([&](auto j) __attribute__((always_inline)) { sums[j] = max(sums[j], load(from + i + j * lanes<T>)); });
    asm volatile("" ::: "memory");
  }
  unroll<8>([&](auto j) __attribute__((always_inline)) { sums[0] = max(sums[0], sums[j]); });
  return sums[0][0];
}

} // namespace

template <class T> Kernels<T> kernels_of() {
  Kernels<T> k;
  k.lanes = lanes<T>;
  k.gate_slots = gate_slots;
  k.saved_slots = saved_slots;
  k.pack_gates = pack_gates<T>;
  k.pack_bias = pack_bias<T>;
  k.pack_unit_row = pack_unit_row<T>;
  k.pack_plain = pack_plain<T>;
  k.gate_panels = gate_panels<T>;
  k.plain_panels = plain_panels<T>;
  k.tile_rows = step_tile_rows;
  k.gate_product = gate_product_of<T>;
  k.plain_product = plain_product<T>;
  k.forward[int(Cell::rnn_tanh)] = forward_steps<T, CellForward<T, ElmanTanh<T>>>;
  k.forward[int(Cell::rnn_relu)] = forward_steps<T, CellForward<T, ElmanRelu<T>>>;
  k.forward[int(Cell::lstm)] = forward_steps<T, CellForward<T, Lstm<T>>>;
  k.forward[int(Cell::gru)] = forward_steps<T, CellForward<T, Gru<T>>>;
  k.forward[int(Cell::gru_before)] = forward_steps<T, BeforeGatesForward<T>>;
  k.forward_candidate = forward_steps<T, BeforeCandidateForward<T>>;
  k.backward[int(Cell::rnn_tanh)] = backward_steps<T, CellBackward<T, ElmanTanh<T>>>;
  k.backward[int(Cell::rnn_relu)] = backward_steps<T, CellBackward<T, ElmanRelu<T>>>;
  k.backward[int(Cell::lstm)] = backward_steps<T, CellBackward<T, Lstm<T>>>;
  k.backward[int(Cell::gru)] = backward_steps<T, CellBackward<T, Gru<T>>>;
  k.backward[int(Cell::gru_before)] = backward_steps<T, BeforeCandidateBackward<T>>;
  k.backward_gates = backward_steps<T, BeforeGatesBackward<T>>;
  k.backward_store = backward_steps<T, StoreBackward<T>>;
  k.backward_store_carried = backward_steps<T, StoreCarriedBackward<T>>;
  add_general_cells(k);
  k.outer_scratch = outer_scratch<T>;
  k.outer_rows = tile_rows(outer_width);
  k.outer = outer_product<T>;
  k.outer_fold = outer_fold<T>;
  k.tanh = tanh_array<T>;
  k.sigmoid = sigmoid_array<T>;
  k.scale_mask = scale_mask<T>;
  k.softmax_exponentials = softmax_exponentials<T>;
  k.row_sum = row_sum<T>;
  k.scale_row = scale_row<T>;
  k.adam = adam<T>;
  k.rmsprop = rmsprop<T>;
  k.sgd = sgd<T>;
  k.sum_of_squares = sum_of_squares<T>;
  k.peak = peak<T>;
  k.read = read<T>;
  return k;
}
template Kernels<FASTRNN_NUMBER> kernels_of();

} // namespace FASTRNN_ISA
} // namespace fastrnn
