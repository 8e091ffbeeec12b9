// The tables of low_precision.hpp of one kernel set. Compiled once for each set, with FASTRNN_ISA as its name.
#include "kernels/low_precision.hpp"
#include "kernels/bfloat16.hpp"
#include "kernels/int8.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {
namespace {

size_t slots_of(Cell cell) { return gate_count(cell) + (cell == Cell::gru ? 1 : 0); }

template <class M>
void pack_gates(const PackedLowMatrix &to, const float *w, size_t ld, size_t first, size_t count, size_t hidden,
                size_t depth, size_t begin, size_t end) {
  for (size_t p = begin; p < end; ++p)
    M::pack_panel(to, w, ld, first, count, hidden, gate_panel(p, count, blocks<float>(hidden)), depth);
}

template <class M> void gate_product(const Product<float> &q, const LowMatrix &matrix, Cell cell, uint8_t *scratch) {
  low_gate_product<M>(q, matrix, gate_count(cell), slots_of(cell), scratch);
}

// As `peak` in kernels.cpp: nothing but dot products in registers.
template <class Dot> double dot_peak(size_t rounds) {
  typename Dot::sum sums[Dot::registers / 2] = {};
  alignas(64) uint32_t words[lanes<float>] = {0x01020304};
  const vint32 w = load_words(words);
  const typename Dot::left x = Dot::broadcast(reinterpret_cast<const uint8_t *>(words));
  for (size_t k = 0; k < rounds; ++k) {
    asm volatile("" : "+m"(rounds)); // keeps the loop
    unroll<Dot::registers / 2>([&](auto i) __attribute__((always_inline)) { Dot::add(sums[i], x, w); });
  }
  vint32 total = Dot::total(sums[0]);
  unroll<Dot::registers / 2>([&](auto i)
                                 __attribute__((always_inline)) { total = add_words(total, Dot::total(sums[i])); });
  return total[0] ? double(rounds) * (Dot::registers / 2) * 2 * 4 * lanes<float> : 1;
}

template <class M> LowKernels table() {
  LowKernels k = {};
  k.k_per_word = M::k_per_word;
  k.scratch_bytes = M::scratch_bytes;
  k.pack_gates = pack_gates<M>;
  k.gate_product = gate_product<M>;
  k.plain_product = low_plain_product<M>;
  k.forward[int(Cell::rnn_tanh)] = low_forward_steps<M, CellForward<float, ElmanTanh<float>>>;
  k.forward[int(Cell::rnn_relu)] = low_forward_steps<M, CellForward<float, ElmanRelu<float>>>;
  k.forward[int(Cell::lstm)] = low_forward_steps<M, CellForward<float, Lstm<float>>>;
  k.forward[int(Cell::gru)] = low_forward_steps<M, CellForward<float, Gru<float>>>;
  k.forward[int(Cell::gru_before)] = low_forward_steps<M, BeforeGatesForward<float>>;
  k.forward_candidate = low_forward_steps<M, BeforeCandidateForward<float>>;
  return k;
}
template <class Dot> LowKernels int8_table() {
  LowKernels k = table<Int8<Dot>>();
  k.peak = dot_peak<Dot>;
  return k;
}

} // namespace

// dot_instruction: the CPU has the set's instruction for dot products of bytes, where there is one.
LowKernels int8_kernels(bool dot_instruction) {
#if defined(FASTRNN_HAS_DOT_INSTRUCTION)
  if (dot_instruction) return int8_table<DotInstruction>();
#endif
  (void)dot_instruction;
  return int8_table<DotProducts>();
}
LowKernels bfloat16_kernels() { return table<Bfloat16>(); }

} // namespace FASTRNN_ISA
} // namespace fastrnn
