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
    const size_t words = words_of(depth_), step = words * W * VL;
    vfloat sums[MR][P * W];
    const float *row[MR];
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      row[r] = rows_[o.row + r];
      const float *const from = o.from[r] + o.from_at;
      unroll<P * W>([&](auto i) __attribute__((always_inline)) { sums[r][i] = load(from + i * VL); });
    });
    const uint32_t *panel = matrix_.words + o.column * words;
    const auto word_of = [&](auto i)
                             __attribute__((always_inline)) { return load_words(panel + i / W * step + i % W * VL); };
    const auto even = [](vint32 word) __attribute__((always_inline)) { return (vfloat)(word << 16); };
    const auto odd = [](vint32 word) __attribute__((always_inline)) { return (vfloat)(word & all_words(-65536)); };
    size_t k = 0;
    for (; k + 2 <= depth_; k += 2, panel += W * VL) {
      if constexpr (MR <= 2) {
        vfloat x[MR][2];
        unroll<MR>([&](auto r) __attribute__((always_inline)) {
          x[r][0] = broadcast(row[r][k]);
          x[r][1] = broadcast(row[r][k + 1]);
        });
        unroll<P * W>([&](auto i) __attribute__((always_inline)) {
          const vint32 word = word_of(i);
          const vfloat first = even(word), second = odd(word);
          unroll<MR>([&](auto r) __attribute__((always_inline)) { accumulate(sums[r][i], x[r][0], first); });
          unroll<MR>([&](auto r) __attribute__((always_inline)) { accumulate(sums[r][i], x[r][1], second); });
        });
      } else { // the sums leave no registers for both halves at once
        unroll<2>([&](auto half) __attribute__((always_inline)) {
          vfloat weights[P * W];
          unroll<P * W>([&](auto i) __attribute__((always_inline)) {
            weights[i] = half == 0 ? even(word_of(i)) : odd(word_of(i));
          });
          unroll<MR>([&](auto r) __attribute__((always_inline)) {
            const vfloat x = broadcast(row[r][k + half]);
            unroll<P * W>([&](auto i) __attribute__((always_inline)) { accumulate(sums[r][i], x, weights[i]); });
          });
        });
      }
    }
    if (k < depth_)
      unroll<P * W>([&](auto i) __attribute__((always_inline)) {
        const vfloat first = even(word_of(i));
        unroll<MR>([&](auto r) __attribute__((always_inline)) { accumulate(sums[r][i], broadcast(row[r][k]), first); });
      });
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
