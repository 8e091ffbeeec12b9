// network: a recurrent network as Python sees it. Calls check their arguments, allocate outputs, leave the interpreter
// and run the engine.
#pragma once

#include <string>

#include "bindings/sequence.hpp"
#include "bindings/tape.hpp"
#include "bindings/weights.hpp"
#include "engine/layer.hpp"

namespace fastrnn {

class Network {
public:
  Network(const std::string &cell, size_t input, size_t hidden, size_t proj, size_t layers, bool bidirectional,
          bool bias, bool batch_first, bool is_double, bool reverse, const std::string &merge, bool learned_state);

  // y and the final state; with `keep` the tape as well. checkpoint: steps between checkpoints, 0 for none, negative
  // for about the square root of all. masks: None, or a function that draws dropout masks for so many positions.
  py::tuple forward(py::object weights, py::object x, py::object state, py::object lengths, py::object reset,
                    py::object steps, bool ragged, bool keep, long checkpoint, py::object masks, double scale) const;
  // The same, with a list of the outputs of all layers behind the other results.
  py::tuple forward_layers(py::object weights, py::object x, py::object state, py::object lengths, py::object reset,
                           py::object steps, bool ragged, bool keep, long checkpoint, py::object masks,
                           double scale) const;
  // Inference with the few arguments that most calls have: converting arguments is a good part of a call of one step.
  py::tuple infer(py::object weights, py::object x, py::object state, py::object reset, py::object steps) const;
  // dx (None where it is not needed or there is no x), the gradient of the initial state, and that of all parameters.
  // dy is of all steps, dy_last of each sequence's last one; at most one of them is given.
  py::tuple backward(TapeHandle &tape, py::object dy, py::object dstate, bool need_dx, py::object dy_last) const;
  // The same with a list of the gradients of the outputs of the layers below the last, any of them None.
  py::tuple backward_layers(TapeHandle &tape, py::object dy, py::object dstate, bool need_dx, py::object dy_last,
                            py::object dlayers) const;
  PackedWeights pack(py::object weights) const;

  const Shape &shape() const { return shape_; }
  bool is_double() const { return is_double_; }

private:
  py::tuple run(py::object weights, py::object x, py::object state, const Sequence &sequence, bool keep,
                long checkpoint, py::object masks, double scale, bool layers) const;
  template <class T>
  py::tuple forward_as(py::object weights, py::object x, py::object state, const Sequence &sequence, bool keep,
                       long checkpoint, py::object masks, double scale, bool layers) const;
  template <class T>
  py::tuple backward_as(TapeHandle &handle, py::object dy, py::object dstate, bool need_dx, py::object dy_last,
                        py::object dlayers) const;
  template <class T> void use_learned_state(Arrays<T> &arrays, const Sequence &sequence, py::handle weights) const;

  Shape shape_;
  bool batch_first_, is_double_;
};

} // namespace fastrnn
