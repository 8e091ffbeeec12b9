// sequence: which steps and sequences a call has. Builds Layout and Batch from x, lengths, reset and steps.
#pragma once

#include "bindings/arrays.hpp"
#include "engine/network.hpp"

namespace fastrnn {

// The arguments of a call that say so; None where they were not given.
struct Sequence {
  py::object lengths, reset, steps;
  bool ragged = false;
};

std::string type_name(py::handle object);

// Whether an object may stand for the state (h, c) of an LSTM.
bool is_pair(py::handle object);

// How the arrays of a call are laid out: from x, or, where there is no input, from the state, the lengths and `steps`.
template <class T>
Layout layout_of(const Shape &shape, bool batch_first, const py::object &x, const Sequence &sequence, py::handle h0,
                 py::handle c0);

// The batch of a call. Checks lengths and reset; fills in what a ragged layout takes from its lengths.
Batch batch_of(const Shape &shape, Layout &layout, const Sequence &sequence, const py::object &x);

// An output laid out as x. Steps that no sequence has are zero.
template <class T> py::array new_sequence(const Layout &layout, const Batch &batch, size_t width) {
  py::array a = new_array<T>(layout.shape(width));
  if (!batch.uniform || batch.steps < layout.steps) std::memset(data<T>(a), 0, size_t(a.nbytes()));
  return a;
}

// The outputs of the layers below the last, which a call returns.
template <class T> struct HiddenLayers {
  std::vector<py::array> arrays;
  std::vector<View<T>> views;
  py::list list_with(const py::array &last) const {
    py::list all;
    for (const py::array &a : arrays) all.append(a);
    all.append(last);
    return all;
  }
};
template <class T> HiddenLayers<T> new_hidden_layers(const Shape &shape, const Layout &layout, const Batch &batch) {
  HiddenLayers<T> hidden;
  for (size_t l = 0; l + 1 < shape.layers; ++l) {
    const py::array a = new_sequence<T>(layout, batch, shape.width());
    hidden.views.push_back(view_of<T>(a, layout));
    hidden.arrays.push_back(a);
  }
  return hidden;
}
} // namespace fastrnn
