// stream: one step at a time with a state that stays in place. No allocation, no lock, one thread.
#pragma once

#include <memory>

#include "engine/network.hpp"

namespace fastrnn {

template <class T> class Stream {
public:
  Stream(const Kernels<T> &, const Shape &, std::shared_ptr<const Packed<T>>, size_t rows);
  void step(T *y, const T *x); // [B, R], [B, I]
  void reset();                // to zero, or to the learned state
  void reset_row(size_t row);
  void get_state(T *h, T *c) const; // [L, B, R], [L, B, H]
  void set_state(const T *h, const T *c);
  // operations of one step: whether releasing the interpreter pays
  size_t work() const;

private:
  T *h(size_t layer, unsigned buffer) { return h_.get() + (layer * 2 + buffer) * rows_ * shape_.output(); }
  const Kernels<T> &k_;
  const Shape shape_;
  const std::shared_ptr<const Packed<T>> weights_;
  const size_t rows_, Hp_, row_;
  unsigned buffer_ = 0; // which of the two h of every layer is the current one
  Buffer<T> h_, c_, gates_, m_, zeros_;
  Buffer<const T *> from_;
  Buffer<T *> to_;
  Buffer<ptrdiff_t> at_input_, at_hidden_, at_output_; // row offsets for [B, I], [B, H], [B, R]
};

} // namespace fastrnn
