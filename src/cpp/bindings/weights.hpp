// weights: the parameters of a network as Python hands them over, checked, or packed.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "bindings/arrays.hpp"
#include "engine/network.hpp"

namespace fastrnn {

template <class T> using PackedPointer = std::shared_ptr<Packed<T>>;

// Frozen weights: packed once for any number of calls.
struct PackedWeights {
  std::variant<PackedPointer<float>, PackedPointer<double>> packed;
  size_t bytes() const;
};

// Calls f(direction of a layer, member of Parameters, rows, columns) for every parameter, in the order of a layer's
// arrays and of its flat buffer. Biases have one column.
template <class T, class F> void each_parameter(const Shape &shape, F &&f) {
  using P = Parameters<T>;
  const size_t GH = product(shape.gates(), shape.hidden);
  for (size_t i = 0; i < shape.count(); ++i) {
    f(i, &P::w_ih, GH, shape.layer_input(i / shape.directions));
    f(i, &P::w_hh, GH, shape.output());
    if (shape.bias) f(i, &P::b_ih, GH, size_t(1));
    if (shape.bias) f(i, &P::b_hh, GH, size_t(1));
    if (shape.proj) f(i, &P::w_hr, shape.proj, shape.hidden);
  }
}

// The layer's arrays in a tuple, each checked: how many, their dtype, shape, layout and alignment.
template <class T> std::vector<Parameters<const T>> parameters_of(const Shape &shape, py::handle weights);

// The learned initial states, [L D][output] and [L D][H] (null for cells without c): arrays of the tuple behind the
// parameters above, or copies in packed weights.
template <class T> struct LearnedState {
  const T *h = nullptr, *c = nullptr;
};
template <class T> LearnedState<T> learned_state_of(const Shape &shape, py::handle weights);

// Weights are the layer's arrays in a tuple, or packed.
inline bool are_packed(py::handle weights) { return !PyTuple_Check(weights.ptr()); }

// Packed weights of a network of this shape and number type.
template <class T> PackedPointer<T> packed_of(const Shape &shape, py::handle weights);

// Packs the layer's arrays for forward and backward passes.
template <class T> PackedPointer<T> pack(const Shape &shape, py::handle weights);

} // namespace fastrnn
