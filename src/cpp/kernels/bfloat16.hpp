// bfloat16: multiplies by weights that are the upper halves of float32.
//
// A word has the weight of an even k in its lower half and that of the next one in its upper half. The sums are those
// of a float32 layer whose weights are rounded: k ascending, one fma for each.
#pragma once

#include "kernels/low_products.hpp"
#include "kernels/simd_int8.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// The upper half, rounded to nearest even. A NaN stays one.
inline uint32_t bfloat16_bits(uint32_t bits) {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

struct Bfloat16 {
  static constexpr size_t k_per_word = 2;
  // A tile of few rows has too few chains of fma; two panels have twice as many.
  static constexpr bool pairs = true;
  static constexpr size_t tile_rows(size_t width) { return FASTRNN_ISA::tile_rows(width); }
  static size_t words_of(size_t depth) { return (depth + 1) / 2; }
  static size_t scratch_bytes(size_t) { return 0; }

  Bfloat16(const LowMatrix &matrix, size_t depth, uint8_t *) : matrix_(matrix), depth_(depth) {}
  void take(const float *const *rows, size_t) { rows_ = rows; }

  // to[r] = from[r] + the product, for MR rows and P neighbouring panels of W registers each.
  template <int MR, int W, int P> __attribute__((noinline)) void tile(const low_operands &o) const {
    constexpr int VL = lanes<float>;
    // Local variables hold what the loop needs of this object: through it, the compiler would keep the sums in memory.
    const size_t depth = depth_, words = words_of(depth), step = words * W * VL;
    vfloat sums[MR][P * W];
    const float *row[MR];
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      row[r] = rows_[o.row + r];
      const float *const from = o.from[r] + o.from_at;
      unroll<P * W>([&](auto i) __attribute__((always_inline)) { sums[r][i] = load(from + i * VL); });
    });
    const uint32_t *panel = matrix_.words + o.column * words;
    const vint32 upper = all_words(-65536);
    size_t k = 0;
    const auto add = [&](auto half) __attribute__((always_inline)) { // of every word
      vfloat x[MR];
      unroll<MR>([&](auto r) __attribute__((always_inline)) { x[r] = broadcast(row[r][k + half]); });
      unroll<P * W>([&](auto i) __attribute__((always_inline)) {
        const vint32 word = load_words(panel + i / W * step + i % W * VL);
        const vfloat weight = half == 0 ? (vfloat)(word << 16) : (vfloat)(word & upper);
        unroll<MR>([&](auto r) __attribute__((always_inline)) { accumulate(sums[r][i], x[r], weight); });
      });
    };
    for (; k + 2 <= depth; k += 2, panel += W * VL) unroll<2>(add);
    if (k < depth) add(index<0>{});
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      float *const to = o.to[r] + o.to_at;
      unroll<P * W>([&](auto i) __attribute__((always_inline)) { store(to + i * VL, sums[r][i]); });
    });
  }

  // Packs panel `place`: a piece in float32, and then its lines in twos.
  static void pack_panel(const PackedLowMatrix &to, const float *w, size_t ld, size_t first, size_t gates,
                         size_t hidden, const panel_place &place, size_t depth) {
    constexpr size_t VL = lanes<float>, piece = 64;
    const size_t width = place.width * VL;
    alignas(64) float lines[piece * max_width * VL];
    uint32_t *words = to.words + place.block * VL * gates * words_of(depth);
    for (size_t k = 0; k < depth; k += piece) {
      const size_t n = least(piece, depth - k);
      pack_gate_panel(lines, w, ld, first, gates, hidden, place, k, n);
      for (size_t j = 0; j < n; j += 2, words += width) {
        const float *const even = lines + j * width, *const odd = even + width;
        for (size_t i = 0; i < width; ++i) words[i] = bfloat16_bits(bits_of(even[i]));
        for (size_t i = 0; i < width && j + 1 < n; ++i) words[i] |= bfloat16_bits(bits_of(odd[i])) << 16;
      }
    }
  }

private:
  const LowMatrix &matrix_;
  const size_t depth_;
  const float *const *rows_ = nullptr;
};

} // namespace FASTRNN_ISA
} // namespace fastrnn
