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

} // namespace fastrnn
