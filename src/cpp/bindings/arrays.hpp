// arrays: from Python objects to views, with errors that name the argument, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "engine/batch.hpp"
#include "runtime/memory.hpp"

namespace fastrnn {

namespace py = pybind11;

using Sizes = SmallVector<size_t>; // of an array, by axis

inline std::string shape_text(const Sizes &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}
inline std::string shape_text(const py::array &a) { return shape_text(Sizes(a.shape(), a.shape() + a.ndim())); }
[[noreturn]] inline void wrong_shape(const std::string &name, const std::string &expected, const py::array &got) {
  throw py::value_error(name + ": expected shape " + expected + ", got " + shape_text(got));
}

// NumPy's own array type with native elements of T: what every fast path asks first.
template <class T> bool is_plain(py::handle object) {
  auto &api = py::detail::npy_api::get();
  if (Py_TYPE(object.ptr()) != api.PyArray_Type_) return false;
  const auto *type = py::detail::array_descriptor_proxy(py::detail::array_proxy(object.ptr())->descr);
  constexpr int number = sizeof(T) == 8 ? py::detail::npy_api::NPY_DOUBLE_ : py::detail::npy_api::NPY_FLOAT_;
  return type->type_num == number && (type->byteorder == '=' || type->byteorder == '|');
}

// An array of T as it is, or a converted copy (fastrnn._arrays.as_array: strings, integers, complex and objects
// are refused there by name). Rows are contiguous and aligned either way; other strides are kept.
template <class T> py::array real_array(const char *name, py::handle object) {
  if (is_plain<T>(object)) {
    const auto *a = py::detail::array_proxy(object.ptr());
    bool fits = reinterpret_cast<uintptr_t>(a->data) % alignof(T) == 0;
    if (a->nd > 0 && a->dimensions[a->nd - 1] > 1 && a->strides[a->nd - 1] != Py_ssize_t(sizeof(T))) fits = false;
    for (int i = 0; i + 1 < a->nd; ++i)
      if (a->strides[i] % Py_ssize_t(sizeof(T)) != 0) fits = false;
    if (fits) return py::reinterpret_borrow<py::array>(object);
  }
  return py::module_::import("fastrnn._arrays").attr("as_array")(name, object, py::dtype::of<T>());
}

// The same, C-contiguous and of the given shape.
template <class T> py::array state_array(const char *name, py::handle object, const Sizes &shape) {
  py::array a = real_array<T>(name, object);
  bool same = size_t(a.ndim()) == shape.size();
  for (size_t i = 0; same && i < shape.size(); ++i) same = size_t(a.shape(py::ssize_t(i))) == shape[i];
  if (!same) wrong_shape(name, shape_text(shape), a);
  if (!(a.flags() & py::array::c_style)) a = py::array_t<T, py::array::c_style | py::array::forcecast>(a);
  return a;
}

// How the time and row of a sequence array are laid out.
struct Layout {
  bool batch_first = false, batched = true;
  bool ragged = false;
  size_t steps = 0, rows = 0; // steps: the array's own
  std::vector<size_t> starts; // ragged
  size_t time_axis() const { return batched && batch_first ? 1 : 0; }
  Sizes shape(size_t width) const {
    if (ragged) return {starts.empty() ? 0 : starts.back(), width};
    if (!batched) return {steps, width};
    return batch_first ? Sizes{rows, steps, width} : Sizes{steps, rows, width};
  }
};

template <class T> View<T> view_of(const py::array &a, const Layout &layout) {
  View<T> view;
  view.base = static_cast<T *>(const_cast<void *>(a.data()));
  const auto stride = [&](size_t axis) { return a.strides(py::ssize_t(axis)) / ptrdiff_t(sizeof(T)); };
  view.row.assign(layout.rows, 0);
  if (layout.ragged) {
    view.time = stride(0);
    for (size_t b = 0; b < layout.rows; ++b) view.row[b] = ptrdiff_t(layout.starts[b]) * stride(0);
  } else {
    view.time = stride(layout.time_axis());
    if (layout.batched)
      for (size_t b = 0; b < layout.rows; ++b) view.row[b] = ptrdiff_t(b) * stride(1 - layout.time_axis());
  }
  // an empty array may have no memory at all, but "no array" means something else
  static T nothing;
  if (!view.base) view.base = const_cast<T *>(&nothing);
  return view;
}

// A new C-contiguous array, not initialised.
//
// A large one lies in memory of the pool. An array over it owns that memory through a capsule, and what the caller gets
// is a view of that array: its base is an array, as code that follows bases expects (PyTorch's tracing does).
template <class T> py::array new_array(const size_t *shape, size_t dimensions) {
  Py_intptr_t sizes[8];
  size_t n = 1;
  for (size_t i = 0; i < dimensions; ++i) n = product(n, shape[i]), sizes[i] = Py_intptr_t(shape[i]);
  auto &api = py::detail::npy_api::get();
  const auto over = [&](int count, const Py_intptr_t *extents, void *at) {
    const int flags = at ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0;
    PyObject *a = api.PyArray_NewFromDescr_(api.PyArray_Type_, py::dtype::of<T>().release().ptr(), count, extents,
                                            nullptr, at, flags, nullptr);
    if (!a) throw py::error_already_set();
    return py::reinterpret_steal<py::array>(a);
  };
  if (!pooled(product(n, sizeof(T)))) return over(int(dimensions), sizes, nullptr);
  auto memory = std::make_unique<Buffer<T>>(n);
  T *const at = memory->get();
  py::capsule holder(memory.get(), [](void *p) { delete static_cast<Buffer<T> *>(p); });
  memory.release();
  const auto count = Py_intptr_t(n);
  py::array owner = over(1, &count, at), view = over(int(dimensions), sizes, at);
  api.PyArray_SetBaseObject_(owner.ptr(), holder.release().ptr());
  api.PyArray_SetBaseObject_(view.ptr(), owner.release().ptr());
  return view;
}
template <class T> py::array new_array(const Sizes &shape) { return new_array<T>(shape.data(), shape.size()); }
template <class T> T *data(const py::array &a) { return static_cast<T *>(const_cast<void *>(a.data())); }

} // namespace fastrnn
