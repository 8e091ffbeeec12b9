// drawn: what Python has drawn at random for a training call, checked.
#pragma once

#include <vector>

#include "bindings/arrays.hpp"
#include "engine/layer.hpp"

namespace fastrnn {

// The masks of dropout between layers alone, or a tuple (masks, zoned_h, zoned_c, noise, dropped) of which some are
// None; see Arrays. Points `arrays` to them. The pointers live as long as this and the object that was given.
template <class T> class Drawn {
public:
  Drawn(const Shape &shape, py::handle given, size_t positions, size_t rows, Arrays<T> &arrays) {
    arrays.positions = positions;
    if (given.is_none()) return;
    const size_t width = shape.width();
    if (!PyTuple_Check(given.ptr())) {
      take_masks(given, shape.layers - 1, product(positions, width), arrays);
      return;
    }
    const py::tuple all = py::reinterpret_borrow<py::tuple>(given);
    if (all.size() != 5) throw py::value_error("masks: expected 5 entries, got " + std::to_string(all.size()));
    const size_t every_step = product(shape.count(), positions, shape.hidden);
    if (!all[0].is_none()) take_masks(all[0], shape.layers - 1, product(positions, width), arrays);
    arrays.zoned_h = numbers(all[1], every_step, is_general(shape.cell) && !shape.proj);
    arrays.zoned_c = numbers(all[2], every_step, shape.cell == Cell::lstm_general);
    arrays.noise = numbers(all[3], every_step, shape.cell == Cell::rnn_general);
    arrays.dropped = numbers(all[4], product(shape.count(), rows, shape.output()), is_general(shape.cell));
  }

private:
  // [layers][positions, width] flags
  void take_masks(py::handle masks, size_t layers, size_t size, Arrays<T> &arrays) {
    const bool flags = py::isinstance<py::array_t<bool>>(masks);
    if (!flags || !(py::reinterpret_borrow<py::array>(masks).flags() & py::array::c_style) ||
        size_t(py::reinterpret_borrow<py::array>(masks).nbytes()) != layers * size)
      throw py::value_error("masks: expected a C-contiguous array of " + std::to_string(layers * size) +
                            " flags, got something else");
    const auto *first = static_cast<const uint8_t *>(py::reinterpret_borrow<py::array>(masks).data());
    for (size_t l = 0; l < layers; ++l) by_layer_.push_back(first + l * size);
    if (layers) arrays.dropout = by_layer_.data();
  }
  static const T *numbers(py::handle given, size_t size, bool fits) {
    if (given.is_none()) return nullptr;
    constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if (!fits || !is_plain<T>(given) || (py::detail::array_proxy(given.ptr())->flags & wanted) != wanted ||
        size_t(py::reinterpret_borrow<py::array>(given).size()) != size)
      throw py::value_error("masks: expected a C-contiguous array of " + std::to_string(size) +
                            " numbers for a cell that takes them, got something else");
    return static_cast<const T *>(py::reinterpret_borrow<py::array>(given).data());
  }

  std::vector<const uint8_t *> by_layer_;
};

} // namespace fastrnn
