// gradients: what a backward pass is given and what it returns, from and to Python's arrays.
#pragma once

#include "bindings/sequence.hpp"
#include "bindings/weights.hpp"
#include "engine/layer.hpp"

namespace fastrnn {

// dL/dy of each sequence's last step. Returns what must live as long as the call.
template <class T> py::array take_dy_last(Gradients<T> &g, const py::object &dy, const Layout &layout, size_t width) {
  const Sizes last = layout.batched ? Sizes{layout.rows, width} : Sizes{width};
  const py::array a = state_array<T>("dy_last", dy, last);
  g.dy_last = data<T>(a);
  return a;
}

// dL/dy of every step. Returns what must live as long as the call.
template <class T> py::array take_dy(Gradients<T> &g, const py::object &dy, const Layout &layout, size_t width) {
  py::array a = real_array<T>("dy", dy);
  const Sizes whole = layout.shape(width);
  const Sizes last = layout.batched ? Sizes{layout.rows, width} : Sizes{width};
  const Sizes given(a.shape(), a.shape() + a.ndim());
  if (given == whole) {
    g.dy = read_only(view_of<T>(a, layout));
  } else if (given ==
             last) { // the old way. The user's frame is the third: Recurrent._backward, what calls it, the user
    if (PyErr_WarnEx(PyExc_DeprecationWarning, "dy: dL/dy of the last step of each sequence is called dy_last now", 3))
      throw py::error_already_set();
    return take_dy_last<T>(g, a, layout, width);
  } else {
    wrong_shape("dy", shape_text(whole) + ", or dy_last of shape " + shape_text(last), a);
  }
  return a;
}

// The gradients of the outputs of the layers below the last. Returns what must live as long as the call.
template <class T>
std::vector<py::object> take_dlayers(Gradients<T> &g, const Shape &shape, py::handle dlayers, const Layout &layout) {
  std::vector<py::object> kept;
  if (dlayers.is_none()) return kept;
  const bool listed = PyTuple_Check(dlayers.ptr()) || PyList_Check(dlayers.ptr());
  if (!listed || py::len(dlayers) != shape.layers - 1)
    throw py::value_error("dlayers: expected a list of " + std::to_string(shape.layers - 1) + " gradients, got " +
                          (listed ? std::to_string(py::len(dlayers)) : "a " + type_name(dlayers)));
  const py::sequence given = py::reinterpret_borrow<py::sequence>(dlayers);
  const Sizes whole = layout.shape(shape.width());
  for (size_t l = 0; l + 1 < shape.layers; ++l) {
    const std::string name = "dlayers[" + std::to_string(l) + "]";
    py::object one = given[l];
    View<const T> view;
    if (!one.is_none()) {
      const py::array a = real_array<T>(name.c_str(), one);
      if (!(Sizes(a.shape(), a.shape() + a.ndim()) == whole)) wrong_shape(name, shape_text(whole), a);
      view = read_only(view_of<T>(a, layout));
      one = a;
    }
    kept.push_back(one);
    g.dlayers.push_back(std::move(view));
  }
  return kept;
}

// The sum over the batch of the gradients of an initial state [L D][B][width], for the parameter [L D][width]; zeros
// where that was not the initial state.
template <class T> void add_up_state(T *to, const T *d, bool used, size_t count, size_t rows, size_t width) {
  std::memset(to, 0, count * width * sizeof(T));
  for (size_t i = 0; used && i < count; ++i)
    for (size_t b = 0; b < rows; ++b, d += width)
      for (size_t j = 0; j < width; ++j) to[i * width + j] += d[j];
}

// A flat array for the gradients of all parameters, and where each of them goes. Those of a learned state are the last.
template <class T> py::array new_parameter_gradients(Gradients<T> &g, const Shape &shape, bool has_input) {
  size_t numbers = 0;
  each_parameter<T>(shape, [&](size_t, auto, size_t rows, size_t columns) { numbers += rows * columns; });
  if (shape.learned_state) numbers += shape.count() * (shape.output() + (shape.has_c() ? shape.hidden : 0));
  py::array flat = new_array<T>({numbers});
  g.parameters.resize(shape.count());
  T *next = data<T>(flat);
  each_parameter<T>(shape, [&](size_t i, auto member, size_t rows, size_t columns) {
    g.parameters[i].*member = next;
    next += rows * columns;
  });
  for (size_t d = 0; d < shape.directions && !has_input; ++d)
    std::memset(g.parameters[d].w_ih, 0, shape.gates() * shape.hidden * shape.input * sizeof(T));
  return flat;
}

} // namespace fastrnn
