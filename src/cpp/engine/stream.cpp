#include "engine/stream.hpp"

namespace fastrnn {

template <class T>
Stream<T>::Stream(const Kernels<T> &kernels, const Shape &shape, std::shared_ptr<const Packed<T>> weights, size_t rows)
    : k_(kernels), shape_(shape), weights_(std::move(weights)), kernels_(kernels, *weights_), rows_(rows),
      Hp_(round_up(shape.hidden, kernels.lanes)), row_(kernels.gate_slots(shape.cell) * Hp_) {
  const size_t R = shape.output();
  h_ = Buffer<T>::zeroed(product(2 * shape.layers, rows, R));
  c_ = Buffer<T>::zeroed(product(shape.layers, rows, Hp_));
  gates_ = Buffer<T>::zeroed(product(rows, row_));
  m_ = Buffer<T>::zeroed(product(rows, shape.hidden));
  zeros_ = Buffer<T>::zeroed(std::max(Hp_, R) + kernels.lanes);
  low_scratch_ = Buffer<uint8_t>(kernels_.scratch_bytes());
  from_ = Buffer<const T *>(rows);
  to_ = Buffer<T *>(rows);
  at_input_ = Buffer<ptrdiff_t>(rows);
  at_hidden_ = Buffer<ptrdiff_t>(rows);
  at_output_ = Buffer<ptrdiff_t>(rows);
  for (size_t r = 0; r < rows; ++r) {
    at_input_[r] = ptrdiff_t(r * shape.input);
    at_hidden_[r] = ptrdiff_t(r * shape.hidden);
    at_output_[r] = ptrdiff_t(r * R);
  }
  if (shape.learned_state) reset();
}

template <class T> void Stream<T>::step(T *y, const T *x) {
  const size_t R = shape_.output();
  const bool before = resets_before(shape_.cell);
  for (size_t l = 0; l < shape_.layers; ++l) {
    const PackedDirection<T> &w = (*weights_)(l, 0);
    const Rows<const T> input =
        l ? Rows<const T>{h(l - 1, buffer_ ^ 1), at_output_.get()} : Rows<const T>{x, at_input_.get()};
    const Rows<const T> h_prev = {h(l, buffer_), at_output_.get()};
    const Rows<T> h_next = {h(l, buffer_ ^ 1), at_output_.get()};
    ForwardStep<T> s;
    s.rows = rows_;
    s.hidden = shape_.hidden;
    s.last_panel = k_.gate_panels(shape_.step_gates(), shape_.hidden);
    s.init = w.bias.get();
    if (before ||
        !kernels_.fuses_input()) { // the two halves of a GRU that resets before its product share the input part
      for (size_t r = 0; r < rows_; ++r) {
        from_[r] = input[r];
        to_[r] = gates_.get() + r * row_;
      }
      Product<T> q;
      q.rows = rows_;
      q.depth = shape_.layer_input(l);
      q.last_panel = k_.gate_panels(shape_.gates(), shape_.hidden);
      q.a = from_.get();
      q.out = to_.get();
      q.init = w.bias.get();
      q.columns = shape_.hidden;
      kernels_.input_product(q, w, low_scratch_.get());
      s.init = gates_.get();
      s.ld_init = row_;
      if (before) {
        s.gates = gates_.get();
        s.ld_gates = row_;
        s.rh = m_.get();
        s.ld_rh = shape_.hidden;
      }
    } else {
      s.x = input;
      s.input = shape_.layer_input(l);
      s.w = w.w.get();
    }
    s.h_prev = h_prev;
    s.recurrent = R;
    s.r = w.r.get();
    if (shape_.settings)
      s.options = w.options.get();
    else
      s.bias_n = w.bias_n.get();
    s.zeros = zeros_.get();
    if (shape_.has_c()) {
      s.c = c_.get() + l * rows_ * Hp_;
      s.c_prev = s.c;
      s.ld_c = Hp_;
    }
    s.h = shape_.proj ? Rows<T>{m_.get(), at_hidden_.get()} : h_next;
    kernels_.forward(s, w, low_scratch_.get());
    if (before) {
      s.last_panel = k_.gate_panels(1, shape_.hidden);
      s.recurrent = shape_.hidden;
      kernels_.forward_candidate(s, w, low_scratch_.get());
    }
    if (shape_.proj) {
      for (size_t r = 0; r < rows_; ++r) {
        from_[r] = m_.get() + r * shape_.hidden;
        to_[r] = h_next[r];
      }
      Product<T> q;
      q.rows = rows_;
      q.depth = shape_.hidden;
      q.last_panel = k_.plain_panels(R);
      q.a = from_.get();
      q.out = to_.get();
      q.columns = R;
      kernels_.project(q, w, low_scratch_.get());
    }
  }
  buffer_ ^= 1;
  std::memcpy(y, h(shape_.layers - 1, buffer_), rows_ * R * sizeof(T));
}

template <class T> void Stream<T>::reset() {
  std::memset(h_.get(), 0, h_.bytes());
  std::memset(c_.get(), 0, c_.bytes());
  for (size_t r = 0; r < rows_ && shape_.learned_state; ++r) reset_row(r);
}

template <class T> void Stream<T>::reset_row(size_t row) {
  const size_t R = shape_.output();
  for (size_t l = 0; l < shape_.layers; ++l) {
    T *const to_h = h(l, buffer_) + row * R, *const to_c = c_.get() + (l * rows_ + row) * Hp_;
    std::memset(to_h, 0, R * sizeof(T));
    std::memset(to_c, 0, Hp_ * sizeof(T));
    if (!weights_->h_0.empty()) std::memcpy(to_h, weights_->h_0.data() + l * R, R * sizeof(T));
    if (!weights_->c_0.empty()) std::memcpy(to_c, weights_->c_0.data() + l * shape_.hidden, shape_.hidden * sizeof(T));
  }
}

template <class T> void Stream<T>::get_state(T *h_out, T *c_out) const {
  const size_t R = shape_.output(), H = shape_.hidden;
  for (size_t l = 0; l < shape_.layers; ++l) {
    std::memcpy(h_out + l * rows_ * R, h_.get() + (l * 2 + buffer_) * rows_ * R, rows_ * R * sizeof(T));
    if (c_out)
      for (size_t r = 0; r < rows_; ++r)
        std::memcpy(c_out + (l * rows_ + r) * H, c_.get() + (l * rows_ + r) * Hp_, H * sizeof(T));
  }
}

template <class T> void Stream<T>::set_state(const T *h_in, const T *c_in) {
  const size_t R = shape_.output(), H = shape_.hidden;
  for (size_t l = 0; l < shape_.layers; ++l) {
    std::memcpy(h(l, buffer_), h_in + l * rows_ * R, rows_ * R * sizeof(T));
    if (c_in)
      for (size_t r = 0; r < rows_; ++r)
        std::memcpy(c_.get() + (l * rows_ + r) * Hp_, c_in + (l * rows_ + r) * H, H * sizeof(T));
  }
}

template <class T> size_t Stream<T>::work() const {
  size_t n = 0;
  for (size_t l = 0; l < shape_.layers; ++l)
    n += rows_ * shape_.gates() * shape_.hidden * (shape_.layer_input(l) + shape_.output());
  return n;
}

template class Stream<float>;
template class Stream<double>;

} // namespace fastrnn
