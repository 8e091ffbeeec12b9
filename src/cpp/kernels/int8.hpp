// int8: quantizes vectors and weights, and multiplies them. low_precision.hpp says how they are rounded.
#pragma once

#include "kernels/low_products.hpp"
#include "kernels/simd_int8.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// The largest magnitude of n numbers, as bits: those of NaN are larger than those of any number.
inline int32_t largest_bits(const float *x, size_t n) {
  int32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const int32_t magnitude = int32_t(bits_of(x[i]) & 0x7fffffff);
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// The scale of numbers whose largest magnitude has these bits. It has 17 bits, so that q * scale is exact in float32,
// and quantizing these products again gives the same integers and the same scale.
inline float scale_of(int32_t largest) {
  constexpr int32_t infinity = 0x7f800000, least = (127 - 100) << 23; // 2^-100
  if (largest >= infinity) return of_bits(0x7fc00000);
  if (largest < least) return 1.0f;
  return of_bits((bits_of(of_bits(uint32_t(largest)) / 127.0f) + 0x7f) & ~uint32_t(0x7f));
}

// x / scale, rounded: adding 3 * 2^22 leaves the integer in the low bits of a float. `bias` is added to the integers.
inline void quantize(uint8_t *to, const float *x, size_t n, float scale, float bias) {
  const float inverse = 1.0f / scale, shift = 12582912.0f + bias;
  for (size_t i = 0; i < n; ++i) to[i] = uint8_t(bits_of(x[i] * inverse + shift));
}

constexpr size_t bytes_in_word = 4;
inline size_t int8_words(size_t depth) { return (depth + bytes_in_word - 1) / bytes_in_word; }

template <class Dot> struct Int8 {
  static constexpr size_t k_per_word = bytes_in_word;
  static constexpr bool pairs = false;
  static constexpr size_t tile_rows(size_t width) {
    const size_t rows = size_t(Dot::registers) / width;
    return rows < size_t(max_rows) ? rows : size_t(max_rows);
  }

  // Scratch: a scale for every row of a group, then the rows. Their distance is not a multiple of 1024 bytes, so that
  // they do not compete for the same sets of a cache.
  static size_t row_bytes(size_t depth) {
    const size_t n = (int8_words(depth) * bytes_in_word + 63) / 64 * 64;
    return n % 1024 == 0 ? n + 64 : n;
  }
  static size_t scratch_bytes(size_t depth) { return group_rows * (sizeof(float) + row_bytes(depth)); }

  Int8(const LowMatrix &matrix, size_t depth, uint8_t *scratch)
      : matrix_(matrix), depth_(depth), words_(int8_words(depth)), row_bytes_(row_bytes(depth)),
        scales_(reinterpret_cast<float *>(scratch)), rows_(scratch + group_rows * sizeof(float)) {}

  // The left rows of the tiles that follow.
  void take(const float *const *rows, size_t n) {
    for (size_t r = 0; r < n; ++r) {
      uint8_t *const to = rows_ + r * row_bytes_;
      scales_[r] = scale_of(largest_bits(rows[r], depth_));
      quantize(to, rows[r], depth_, scales_[r], Dot::unsigned_left ? 128.0f : 0.0f);
      for (size_t k = depth_; k < words_ * bytes_in_word; ++k) to[k] = 0; // times weights that are zero
    }
  }

  // to[r] = from[r] + the product, for MR rows and W registers of one panel.
  template <int MR, int W, int P> __attribute__((noinline)) void tile(const low_operands &o) const {
    static_assert(P == 1, "sums of integers may be split, so one panel has chains enough");
    constexpr int VL = lanes<float>;
    constexpr int U = MR * W >= Dot::chains ? 1 : MR * W * 2 >= Dot::chains ? 2 : 4; // independent sums of each element
    // Local variables hold what the loop needs of this object: through it, the compiler would keep the sums in memory.
    const size_t words = words_;
    typename Dot::sum sums[U][MR][W];
    const uint8_t *row[MR];
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      row[r] = rows_ + (o.row + r) * row_bytes_;
      unroll<U>([&](auto u) __attribute__((always_inline)) {
        unroll<W>([&](auto w) __attribute__((always_inline)) { sums[u][r][w] = typename Dot::sum{}; });
      });
    });
    const uint32_t *panel = matrix_.words + o.column * words;
    size_t word = 0;
    const auto add = [&](auto u) __attribute__((always_inline)) {
      const uint32_t *const at = panel + u * W * VL;
      vint32 weights[W];
      unroll<W>([&](auto w) __attribute__((always_inline)) { weights[w] = load_words(at + w * VL); });
      unroll<MR>([&](auto r) __attribute__((always_inline)) {
        const typename Dot::left x = Dot::broadcast(row[r] + (word + u) * bytes_in_word);
        unroll<W>([&](auto w) __attribute__((always_inline)) { Dot::add(sums[u][r][w], x, weights[w]); });
      });
    };
    for (; word + U <= words; word += U, panel += U * W * VL) unroll<U>(add);
    for (; word < words; ++word, panel += W * VL) add(index<0>{});
    unroll<MR>([&](auto r) __attribute__((always_inline)) {
      const vfloat x_scale = broadcast(scales_[o.row + r]);
      const float *const from = o.from[r] + o.from_at;
      float *const to = o.to[r] + o.to_at;
      unroll<W>([&](auto w) __attribute__((always_inline)) {
        vint32 total = Dot::total(sums[0][r][w]);
        unroll<U - 1>([&](auto u)
                          __attribute__((always_inline)) { total = add_words(total, Dot::total(sums[u + 1][r][w])); });
        if (Dot::unsigned_left && words > 0)
          total = add_words(total, load_words(reinterpret_cast<const uint32_t *>(matrix_.offset + o.column + w * VL)));
        const vfloat scale = x_scale * load(matrix_.scale + o.column + w * VL);
        store(to + w * VL, load(from + w * VL) + __builtin_convertvector(total, vfloat) * scale);
      });
    });
  }

  // Packs panel `place`: the integers of `lanes` rows at a time, piece by piece, and these transposed word by word.
  static void pack_panel(const PackedLowMatrix &to, const float *w, size_t ld, size_t first, size_t gates,
                         size_t hidden, const panel_place &place, size_t depth) {
    constexpr size_t VL = lanes<float>, piece = 128;
    const size_t words = int8_words(depth), column = place.block * VL * gates, width = place.width * VL;
    for (size_t v = 0; v < place.width; ++v) {
      const size_t gate = first + (gates > 1 ? v : 0), unit = (place.block + (gates > 1 ? 0 : v)) * VL;
      const size_t valid = least(VL, hidden - unit);
      const float *const rows = w + (gate * hidden + unit) * ld;
      float *const scale = to.scale + column + v * VL;
      int32_t *const offset = to.offset + column + v * VL;
      for (size_t lane = 0; lane < VL; ++lane) {
        scale[lane] = lane < valid ? scale_of(largest_bits(rows + lane * ld, depth)) : 1.0f;
        offset[lane] = 0;
      }
      alignas(64) uint8_t integers[VL * piece];
      for (size_t k = 0; k < depth; k += piece) {
        const size_t n = least(piece, depth - k), n_words = int8_words(n);
        for (size_t lane = 0; lane < valid; ++lane) {
          uint8_t *const row = integers + lane * piece;
          quantize(row, rows + lane * ld + k, n, scale[lane], 0.0f);
          for (size_t i = n; i < n_words * bytes_in_word; ++i) row[i] = 0;
          int32_t sum = 0;
          for (size_t i = 0; i < n; ++i) sum += int8_t(row[i]);
          offset[lane] -= 128 * sum;
        }
        pack_transposed(reinterpret_cast<float *>(to.words + column * words + k / bytes_in_word * width + v * VL),
                        width, reinterpret_cast<const float *>(integers), piece / bytes_in_word, valid, n_words);
      }
    }
  }

private:
  const LowMatrix &matrix_;
  const size_t depth_, words_, row_bytes_;
  float *const scales_;
  uint8_t *const rows_;
};

} // namespace FASTRNN_ISA
} // namespace fastrnn
