#include "engine/update.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/memory.hpp"

namespace fastrnn {

namespace {

// Numbers a piece: some tens of microseconds at the speed of memory. Sums run over whole pieces, so their bits do not
// depend on how many threads there are.
constexpr size_t piece_numbers = size_t(1) << 16;

size_t pieces_of(size_t n) { return (n + piece_numbers - 1) / piece_numbers; }

// Where the pieces of each stretch begin among all.
template <class Stretches> std::vector<size_t> first_pieces(const Stretches &stretches) {
  std::vector<size_t> first(1, 0);
  for (const auto &s : stretches) first.push_back(first.back() + pieces_of(s.n));
  return first;
}
size_t stretch_of(const std::vector<size_t> &first, size_t piece) {
  return size_t(std::upper_bound(first.begin(), first.end(), piece) - first.begin()) - 1;
}

} // namespace

template <class T>
bool squared_norm(const Kernels<T> &k, const std::vector<Stretch<T>> &gradients, double *sum, PieceWork &work) {
  const std::vector<size_t> first = first_pieces(gradients);
  std::vector<double> sums(first.back());
  const bool done = work.run(first.back(), [&](size_t piece, int) {
    const size_t i = stretch_of(first, piece), begin = (piece - first[i]) * piece_numbers;
    sums[piece] = k.sum_of_squares(gradients[i].at + begin, std::min(piece_numbers, gradients[i].n - begin));
  });
  *sum = 0;
  for (const double s : sums) *sum += s;
  return done;
}

template <class T>
bool update(const Kernels<T> &k, Optimiser optimiser, const std::vector<Update<T>> &stretches, PieceWork &work) {
  const auto take = optimiser == Optimiser::adam ? k.adam : optimiser == Optimiser::rmsprop ? k.rmsprop : k.sgd;
  const std::vector<size_t> first = first_pieces(stretches);
  return work.run(
      first.back(),
      [&](size_t piece, int) {
        const size_t i = stretch_of(first, piece), begin = (piece - first[i]) * piece_numbers;
        Update<T> u = stretches[i];
        u.n = std::min(piece_numbers, u.n - begin);
        u.p += begin;
        u.g += begin;
        if (u.a) u.a += begin;
        if (u.b) u.b += begin;
        take(u);
      },
      PieceWork::keeps_subnormals);
}

template <class T>
bool gather(T *out, const T *table, const int64_t *ids, size_t count, size_t width, PieceWork &work) {
  const size_t rows = std::max<size_t>(piece_numbers / std::max<size_t>(width, 1), 1);
  return work.run((count + rows - 1) / rows, [&](size_t piece, int) {
    for (size_t i = piece * rows; i < std::min(count, (piece + 1) * rows); ++i)
      std::memcpy(out + i * width, table + size_t(ids[i]) * width, width * sizeof(T));
  });
}

template <class T>
bool gather_gradient(T *dtable, size_t rows, const T *dy, const int64_t *ids, size_t count, size_t width,
                     PieceWork &work) {
  // a stable counting sort: the lookups of a row, in their order
  Buffer<size_t> start = Buffer<size_t>::zeroed(rows + 1), lookups(count);
  for (size_t i = 0; i < count; ++i) ++start[size_t(ids[i]) + 1];
  for (size_t r = 0; r < rows; ++r) start[r + 1] += start[r];
  for (size_t i = 0; i < count; ++i) lookups[start[size_t(ids[i])]++] = i; // now start[r] is where row r ends
  const size_t each = std::max<size_t>(piece_numbers / 4 / std::max<size_t>(width, 1), 1);
  return work.run((rows + each - 1) / each, [&](size_t piece, int) {
    for (size_t r = piece * each; r < std::min(rows, (piece + 1) * each); ++r) {
      T *const sum = dtable + r * width;
      const size_t begin = r ? start[r - 1] : 0, end = start[r];
      if (begin == end) {
        std::memset(sum, 0, width * sizeof(T));
        continue;
      }
      std::memcpy(sum, dy + lookups[begin] * width, width * sizeof(T));
      for (size_t i = begin + 1; i < end; ++i) {
        const T *const term = dy + lookups[i] * width;
        for (size_t j = 0; j < width; ++j) sum[j] += term[j];
      }
    }
  });
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template bool squared_norm(const Kernels<T> &, const std::vector<Stretch<T>> &, double *, PieceWork &);              \
  template bool update(const Kernels<T> &, Optimiser, const std::vector<Update<T>> &, PieceWork &);                    \
  template bool gather(T *, const T *, const int64_t *, size_t, size_t, PieceWork &);                                  \
  template bool gather_gradient(T *, size_t, const T *, const int64_t *, size_t, size_t, PieceWork &);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
