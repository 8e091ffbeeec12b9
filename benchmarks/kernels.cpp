// Microkernels, cells and math of one kernel set, alone, against the peak measured beside them.
//
// For work on the kernels, not for comparison with anybody: what a change to gemm.hpp, cells.hpp or math.hpp
// does shows here without the layers above. Prints, for float and double:
//   tile R x W      GFLOP/s and share of the FMA peak of the recurrent microkernel by depth; x2: two panels at once
//   outer R x W     the same of the weight-gradient microkernel
//   cell            nanoseconds a register of units, forward and backward
//   math            nanoseconds a register of numbers
//
//   cmake -S . -B build/kernels -DFASTRNN_KERNELS=ON -DFASTRNN_MODULE=OFF
//   cmake --build build/kernels && build/kernels/measure_avx512
#include <chrono>
#include <cstdio>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/step.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {
namespace {

// Seconds a call: the least of many rounds, since others share the machine.
template <class F> double best_seconds(F &&call) {
  using clock = std::chrono::steady_clock;
  size_t calls = 1;
  double best = 1e9;
  for (int round = 0; round < 40; ++round) {
    const auto start = clock::now();
    for (size_t i = 0; i < calls; ++i) call();
    const double seconds = std::chrono::duration<double>(clock::now() - start).count();
    if (seconds < 1e-3) {
      calls *= 2;
      round = 0;
      continue;
    }
    const double each = seconds / double(calls);
    if (each < best) best = each;
  }
  return best;
}

// One cache line after the other, as the layer's own memory.
template <class T> struct Aligned {
  explicit Aligned(size_t n) : memory(n + 2 * line, T(0)) {
    at = memory.data();
    while (reinterpret_cast<uintptr_t>(at) % 64) ++at;
    end_ = at + n;
  }
  T *data() const { return at; }
  T *begin() const { return at; }
  T *end() const { return end_; }
  static constexpr size_t line = 64 / sizeof(T);

private:
  std::vector<T> memory;
  T *at, *end_;
};

template <class T> Aligned<T> numbers(size_t n) {
  Aligned<T> v(n);
  unsigned state = 1;
  for (T &x : v) {
    state = state * 1664525u + 1013904223u;
    x = T(int(state >> 16) - 32768) / T(1 << 20); // |x| < 1 / 32: sums stay finite
  }
  return v;
}

template <class T> double peak_gflops() {
  vec<T> sums[12];
  const vec<T> a = broadcast(T(0.999999)), b = broadcast(T(1e-9));
  for (auto &s : sums) s = b;
  constexpr size_t rounds = 2000;
  const double seconds = best_seconds([&] {
    for (size_t k = 0; k < rounds; ++k) {
      unroll<12>([&](auto i) __attribute__((always_inline)) { sums[i] = fma(sums[i], a, b); });
      asm volatile("" : "+r"(k)); // keeps the loop
    }
  });
  volatile T sink = 0;
  for (auto &s : sums) sink = sink + s[0];
  return double(rounds) * 12 * 2 * lanes<T> / seconds * 1e-9;
}

template <class T> void show_tiles(double peak) {
  constexpr size_t VL = lanes<T>;
  const size_t depths[] = {32, 128, 512, 1024};
  std::printf("%-14s", "depth");
  for (size_t depth : depths) std::printf("%22zu", depth);
  std::printf("\n");
  for (int width = max_width; width >= 1; --width)
    for (int rows = 1; rows <= int(tile_rows(width)); ++rows)
      for (int pairs = 1; pairs <= (rows == 2 && pairs_two_rows(size_t(width)) ? 2 : 1); ++pairs) {
        std::printf("tile %dx%d%-7s", rows, width, pairs == 2 ? " x2" : "");
        for (size_t depth : depths) {
          const auto a = numbers<T>(8 * depth), panel = numbers<T>(size_t(width * pairs) * VL * depth);
          auto c = numbers<T>(8 * 8 * VL);
          const T *row[8], *init[8];
          T *to[8];
          for (int r = 0; r < 8; ++r) {
            row[r] = a.data() + size_t(r) * depth;
            init[r] = to[r] = c.data() + size_t(r) * 8 * VL;
          }
          tile_operands<T> o;
          o.to = to, o.from = init, o.a = row;
          o.step = size_t(width) * VL;
          o.depth = depth;
          o.panel = panel.data();
          o.panel_step = o.step * depth;
          const auto tile = pairs == 2 ? tiles<T>.paired[width - 1] : tiles<T>.single[width - 1][rows - 1];
          const double seconds = best_seconds([&] { tile(o); });
          const double rate = 2.0 * rows * width * pairs * VL * double(depth) / seconds * 1e-9;
          std::printf("  %8.1f GF/s %4.0f %%", rate, 100 * rate / peak);
        }
        std::printf("\n");
      }
  for (int width = outer_width; width >= outer_width - 1; --width)
    for (int packed = 0; packed <= (width == outer_width ? 1 : 0); ++packed) {
      const int rows = int(tile_rows(width));
      std::printf("outer %dx%d%-6s", rows, width, packed ? " left" : "");
      for (size_t depth : depths) {
        const auto a = numbers<T>(8 * (depth + prefetch_distance)), b = numbers<T>(size_t(width) * VL * depth);
        auto c = numbers<T>(8 * 8 * VL);
        std::vector<const T *> left;
        for (size_t k = 0; k < depth + prefetch_distance; ++k) left.push_back(a.data() + k * 8);
        T *to[16]; // and the sums of the next tile
        for (int r = 0; r < 16; ++r) to[r] = c.data() + size_t(r % 8) * 8 * VL;
        tile_operands<T> o;
        o.to = to, o.from = to, o.a = left.data();
        o.depth = depth;
        o.panel = b.data();
        const auto tile = packed ? tiles<T>.outer_packed[rows - 1] : tiles<T>.outer[width - 1][rows - 1];
        const double seconds = best_seconds([&] { tile(o); });
        const double rate = 2.0 * rows * width * VL * double(depth) / seconds * 1e-9;
        std::printf("  %8.1f GF/s %4.0f %%", rate, 100 * rate / peak);
      }
      std::printf("\n");
    }
}

// N registers of units at once, as the steps take them
template <class T, class C, int N> void show_cell(const char *name) {
  constexpr size_t VL = lanes<T>, units = 64;
  typedef vecs<T, N> V;
  const auto a = numbers<T>(units * 4 * VL), state = numbers<T>(units * VL);
  const Aligned<T> out(units * 8 * VL);
  const auto read = [](const T *p, size_t step) { return V::each([&](auto i) { return load(p + i * step); }); };
  const auto write = [&](size_t u, size_t slot, const V &v) {
    unroll<N>([&](auto i) { store(out.data() + ((u + i) * 8 + slot) * VL, v.at[i]); });
  };
  const double forward = best_seconds([&] {
    for (size_t u = 0; u < units; u += N) {
      V pre[C::gates], saved[C::gates + 1] = {}, h = {}, c = {};
      for (int g = 0; g < C::gates; ++g) pre[g] = read(a.data() + (u * 4 + size_t(g)) * VL, 4 * VL);
      const V s = read(state.data() + u * VL, VL);
      if constexpr (C::mid_values > 0) {
        V mid[C::mid_values];
        C::first_half(c, mid, saved, pre, s, s);
        C::second_half(h, saved, mid, c, s);
      } else {
        C::forward(h, pre);
      }
      write(u, 0, h);
      write(u, 1, c);
      for (int g = 0; g < C::saved; ++g) write(u, 2 + size_t(g), saved[g]);
    }
    asm volatile("" ::: "memory");
  });
  const double backward = best_seconds([&] {
    for (size_t u = 0; u < units; u += N) {
      V da[C::grads], saved[C::saved + 1] = {}, carry = read(state.data() + u * VL, VL);
      for (int g = 0; g < C::saved; ++g) saved[g] = read(a.data() + (u * 4 + size_t(g)) * VL, 4 * VL);
      const V s = read(state.data() + u * VL, VL);
      C::backward(da, carry, s, saved, s, s, s, s);
      write(u, 0, carry);
      for (int g = 0; g < C::grads; ++g) write(u, 1 + size_t(g), da[g]);
    }
    asm volatile("" ::: "memory");
  });
  std::printf("%-10s %d at once: forward %6.2f ns   backward %6.2f ns   a register of units\n", name, N,
              forward / units * 1e9, backward / units * 1e9);
}

template <class T, class F> void show_math(const char *name, F &&f) {
  constexpr size_t VL = lanes<T>, n = 256;
  const auto in = numbers<T>(n * VL);
  const Aligned<T> out(n * VL);
  const double seconds = best_seconds([&] {
    for (size_t i = 0; i < n * VL; i += VL) store(out.data() + i, f(load(in.data() + i)));
    asm volatile("" ::: "memory");
  });
  std::printf("%-10s %6.2f ns a register\n", name, seconds / n * 1e9);
}

template <class T> void show(const char *name) {
  const double peak = peak_gflops<T>();
  std::printf("\n%s, %s: %d lanes, FMA peak %.1f GFLOP/s\n", FASTRNN_ISA_NAME, name, lanes<T>, peak);
  show_tiles<T>(peak);
  show_cell<T, ElmanTanh<T>, 1>("rnn_tanh");
  show_cell<T, ElmanTanh<T>, 2>("rnn_tanh");
  show_cell<T, Lstm<T>, 1>("lstm");
  show_cell<T, Lstm<T>, 2>("lstm");
  show_cell<T, Gru<T>, 1>("gru");
  show_cell<T, Gru<T>, 2>("gru");
  show_math<T>("tanh", [](vec<T> x) __attribute__((always_inline)) { return tanh<T>(vecs<T, 1>(x)).at[0]; });
  show_math<T>("sigmoid", [](vec<T> x) __attribute__((always_inline)) { return sigmoid<T>(vecs<T, 1>(x)).at[0]; });
}

} // namespace
} // namespace FASTRNN_ISA
} // namespace fastrnn

int main() {
  fastrnn::FASTRNN_ISA::show<float>("float");
  fastrnn::FASTRNN_ISA::show<double>("double");
}
