#include "engine/attention.hpp"

#include <algorithm>
#include <cstring>

namespace fastrnn {

namespace {

constexpr int natural_order[1] = {0};

// What a thread needs for one sequence.
template <class T> struct Room {
  Buffer<const T *> a, b;
  Buffer<T *> out;
  Buffer<T> scores, row, scratch; // [T][S], one row and what the sums over time take

  Room() = default;
  Room(const Kernels<T> &k, const Attention<T> &x)
      : a(std::max(x.steps, x.places)), b(std::max(x.steps, x.places)), out(std::max(x.steps, x.places)),
        scores(product(x.steps, std::max<size_t>(x.places, 1))), row(round_up(x.places, sum_ways) + sum_ways),
        scratch(k.outer_scratch(x.width, x.steps)) {}
};

template <class T> std::vector<Room<T>> rooms(const Kernels<T> &k, const Attention<T> &x, const PieceWork &work) {
  std::vector<Room<T>> all;
  for (int i = 0; i < work.n_threads(); ++i) all.emplace_back(k, x);
  return all;
}

// Rows at + t * step for t = 0, 1, ...
template <class U, class V> void list(Buffer<U *> &to, V *at, size_t step, size_t count) {
  for (size_t t = 0; t < count; ++t) to[t] = at + t * step;
}

// out[t] = a[t] B for all steps
template <class T>
void multiply_rows(const Kernels<T> &k, const Room<T> &room, size_t steps, size_t depth, size_t columns,
                   const RowMajor<T> &b) {
  Product<T> q;
  q.rows = steps;
  q.depth = depth;
  q.last_panel = k.plain_panels(columns);
  q.a = room.a.get();
  q.out = const_cast<T *const *>(room.out.get());
  q.b_rows = b;
  q.columns = columns;
  k.plain_product(q);
}

} // namespace

template <class T> bool attend(const Kernels<T> &k, const Attention<T> &x, T *context, T *p, PieceWork &work) {
  std::vector<Room<T>> own = rooms(k, x, work);
  const size_t step = x.rows * x.width;
  return work.run(x.rows, [&](size_t b, int thread) {
    Room<T> &room = own[size_t(thread)];
    const size_t length = size_t(x.lengths[b]), offset = b * x.width;
    T *const weights = p + b * x.steps * x.places;
    if (!length) {
      std::memset(weights, 0, x.steps * x.places * sizeof(T));
      for (size_t t = 0; t < x.steps; ++t) std::memset(context + t * step + offset, 0, x.width * sizeof(T));
      return;
    }
    list(room.a, x.query + offset, step, x.steps);
    list(room.out, weights, x.places, x.steps);
    multiply_rows(k, room, x.steps, x.width, length, {x.memory + offset, step, 0, true});
    for (size_t t = 0; t < x.steps; ++t) {
      T *const row = weights + t * x.places;
      T greatest, sum;
      std::memcpy(room.row.get(), row, length * sizeof(T));
      k.softmax_exponentials(room.row.get(), length, &greatest, &sum);
      k.scale_row(room.row.get(), length, T(1) / sum, T(0));
      std::memcpy(row, room.row.get(), length * sizeof(T));
      std::memset(row + length, 0, (x.places - length) * sizeof(T));
    }
    list(room.a, weights, x.places, x.steps);
    list(room.out, context + offset, step, x.steps);
    multiply_rows(k, room, x.steps, length, x.width, {x.memory + offset, step});
  });
}

template <class T>
bool attend_backward(const Kernels<T> &k, const Attention<T> &x, const T *p, const T *dcontext, T *dquery, T *dmemory,
                     PieceWork &work) {
  std::vector<Room<T>> own = rooms(k, x, work);
  const size_t step = x.rows * x.width;
  return work.run(x.rows, [&](size_t b, int thread) {
    Room<T> &room = own[size_t(thread)];
    const size_t length = size_t(x.lengths[b]), offset = b * x.width;
    for (size_t s = length; s < x.places; ++s) std::memset(dmemory + s * step + offset, 0, x.width * sizeof(T));
    if (!length || !x.steps) {
      for (size_t t = 0; t < x.steps; ++t) std::memset(dquery + t * step + offset, 0, x.width * sizeof(T));
      for (size_t s = 0; s < length; ++s) std::memset(dmemory + s * step + offset, 0, x.width * sizeof(T));
      return;
    }
    const T *const weights = p + b * x.steps * x.places;
    T *const scores = room.scores.get(); // dp, then ds
    list(room.a, dcontext + offset, step, x.steps);
    list(room.out, scores, x.places, x.steps);
    multiply_rows(k, room, x.steps, x.width, length, {x.memory + offset, step, 0, true});
    for (size_t t = 0; t < x.steps; ++t) {
      T *const ds = scores + t * x.places, *const product = room.row.get();
      const T *const row = weights + t * x.places;
      for (size_t s = 0; s < length; ++s) product[s] = ds[s] * row[s];
      const T mean = k.row_sum(product, length);
      for (size_t s = 0; s < length; ++s) ds[s] = row[s] * (ds[s] - mean);
    }
    list(room.a, scores, x.places, x.steps);
    list(room.out, dquery + offset, step, x.steps);
    multiply_rows(k, room, x.steps, length, x.width, {x.memory + offset, step});
    // the memory's gradient: two sums over time
    OuterProduct<T> q;
    q.depth = x.steps;
    q.columns = x.width;
    q.last = length;
    q.hidden = length;
    q.order = natural_order;
    q.c = dmemory + offset;
    q.ld = step;
    q.scratch = room.scratch.get();
    for (const bool second : {false, true}) {
      if (second)
        list(room.b, x.query + offset, step, x.steps);
      else
        list(room.b, dcontext + offset, step, x.steps);
      list(room.a, second ? static_cast<const T *>(scores) : weights, x.places, x.steps);
      q.a = room.a.get();
      q.b = room.b.get();
      q.overwrite = !second;
      k.outer(q);
    }
  });
}

#define FASTRNN_INSTANTIATE(T)                                                                                         \
  template bool attend(const Kernels<T> &, const Attention<T> &, T *, T *, PieceWork &);                               \
  template bool attend_backward(const Kernels<T> &, const Attention<T> &, const T *, const T *, T *, T *, PieceWork &);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

} // namespace fastrnn
