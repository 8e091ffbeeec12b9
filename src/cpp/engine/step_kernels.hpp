// step_kernels: the products and steps of one call, whatever the type of its weights.
#pragma once

#include <algorithm>
#include <type_traits>

#include "engine/network.hpp"

namespace fastrnn {

// `scratch` has scratch_bytes() and belongs to the thread.
template <class T> class StepKernels {
public:
  StepKernels(const Kernels<T> &kernels, const Packed<T> &weights)
      : k_(kernels), shape_(weights.shape()), low_(weights.low()) {
    if (!low_) return;
    size_t deepest = std::max(shape_.hidden, shape_.output());
    for (size_t l = 0; l < shape_.layers; ++l) deepest = std::max(deepest, shape_.layer_input(l));
    scratch_bytes_ = low_->scratch_bytes(deepest);
  }
  size_t scratch_bytes() const { return scratch_bytes_; }
  // Whether a step computes the input product too, if it is given one. Otherwise that is a product of its own.
  bool fuses_input() const { return !low_; }

  // W x + b
  void input_product(Product<T> q, const PackedDirection<T> &weights, uint8_t *scratch) const {
    if constexpr (is_float)
      if (low_) return low_->gate_product(q, weights.low->w.matrix(), shape_.cell, scratch);
    q.b = weights.w.get();
    q.b_rows = weights.w_rows;
    k_.gate_product(q, shape_.cell);
  }
  void forward(const ForwardStep<T> &s, const PackedDirection<T> &weights, uint8_t *scratch) const {
    if constexpr (is_float)
      if (low_) return low_->forward[int(shape_.cell)](s, weights.low->r.matrix(), scratch);
    k_.forward[int(shape_.cell)](s);
  }
  // Reset-before GRU: the candidate and h.
  void forward_candidate(ForwardStep<T> s, const PackedDirection<T> &weights, uint8_t *scratch) const {
    if constexpr (is_float)
      if (low_) return low_->forward_candidate(s, weights.low->r_n.matrix(), scratch);
    s.r = weights.r_n.get();
    (shape_.settings ? k_.forward_candidate_general : k_.forward_candidate)(s);
  }
  // W_hr m
  void project(Product<T> q, const PackedDirection<T> &weights, uint8_t *scratch) const {
    if constexpr (is_float)
      if (low_) return low_->plain_product(q, weights.low->project.matrix(), scratch);
    q.b = weights.project.get();
    k_.plain_product(q);
  }

private:
  static constexpr bool is_float = std::is_same_v<T, float>;
  const Kernels<T> &k_;
  const Shape &shape_;
  const LowKernels *low_;
  size_t scratch_bytes_ = 0;
};

} // namespace fastrnn
