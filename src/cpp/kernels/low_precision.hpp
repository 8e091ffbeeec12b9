// low_precision: what a kernel set offers for inference with weights of 8 or 16 bits. Activations, biases and the state
// are float32, and the cells are those of the other kernels.
//
// A matrix of such weights consists of gate panels (panels.hpp) whose lines stand for several k: a word of 32 bits
// holds the weights of four neighbouring k (int8) or of two (bfloat16), so a panel is [word][W * lanes].
//
// int8. A row w of a matrix has one scale s: its integers are q = w / s, rounded to nearest even, from -127 to 127, and
// s is the largest |w| / 127, rounded up to 17 bits. The vectors that are multiplied, x_t or h_t of one sequence at one
// step, are quantized in the same way, each with a scale of its own. A product is then
//     float(sum over k of q_w[k] q_x[k]) * (s_x * s_w)
// The sum of integers is exact, so its bits depend neither on the instruction set nor on the other sequences. A vector
// or row whose numbers are all below 2^-100 becomes zeros with scale 1; one that contains NaN or infinity gets the
// scale NaN.
//
// bfloat16. The weights are rounded to nearest even and widened in registers, where they are float32 again.
#pragma once

#include "kernels/kernels.hpp"

namespace fastrnn {

enum class WeightsType { float32, bfloat16, int8 };

// The deepest product of int8 whose sums, and the offsets below, cannot exceed 32 bits.
constexpr size_t deepest_int8 = (size_t(1) << 31) / (128 * 127) - 8;

struct LowMatrix {
  const uint32_t *words = nullptr; // panels
  const float *scale = nullptr;    // int8, of every row of the weights: [block][gate][lane]
  const int32_t *offset = nullptr; // int8, -128 times the sum of the integers of every row, in the same order
};
struct PackedLowMatrix {
  uint32_t *words;
  float *scale;
  int32_t *offset;
};

// The kernels of one type of weights. They are called like those of Kernels<float>, but no input product is fused into
// a step. `scratch` has scratch_bytes(depth of the product) and belongs to the thread.
struct LowKernels {
  size_t k_per_word;
  size_t (*scratch_bytes)(size_t depth);
  // as Kernels::pack_gates
  void (*pack_gates)(const PackedLowMatrix &to, const float *w, size_t ld, size_t first, size_t count, size_t hidden,
                     size_t depth, size_t begin, size_t end);
  void (*gate_product)(const Product<float> &, const LowMatrix &, Cell, uint8_t *scratch);
  void (*plain_product)(const Product<float> &, const LowMatrix &, uint8_t *scratch);
  void (*forward[cell_count])(const ForwardStep<float> &, const LowMatrix &, uint8_t *scratch);
  void (*forward_candidate)(const ForwardStep<float> &, const LowMatrix &, uint8_t *scratch);
  // operations a second in registers alone, as Kernels::peak
  double (*peak)(size_t rounds);
};

} // namespace fastrnn
