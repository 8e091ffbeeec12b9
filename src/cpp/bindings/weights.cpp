#include "bindings/weights.hpp"

#include "bindings/interpreter.hpp"
#include "kernels/dispatch.hpp"

namespace fastrnn {

namespace {

// The numbers of one parameter. The core reads as many as its shape says, so a wrong array must not get past here.
template <class T> const T *checked(py::handle object, size_t index, size_t rows, size_t columns) {
  const auto refuse = [&](const std::string &got) {
    const Sizes shape = columns == 1 ? Sizes{rows} : Sizes{rows, columns};
    throw py::value_error("weights[" + std::to_string(index) + "]: expected a C-contiguous, aligned array of " +
                          std::string(py::str(static_cast<py::object>(py::dtype::of<T>()))) + " of shape " +
                          shape_text(shape) + ", got " + got);
  };
  if (!py::isinstance<py::array>(object)) refuse("a " + std::string(py::str(py::type::of(object).attr("__name__"))));
  const auto *a = py::detail::array_proxy(object.ptr());
  const bool vector = a->nd == 1 && columns == 1 && size_t(a->dimensions[0]) == rows;
  const bool matrix = a->nd == 2 && size_t(a->dimensions[0]) == rows && size_t(a->dimensions[1]) == columns;
  constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (!is_plain<T>(object) || !(vector || matrix) || (a->flags & wanted) != wanted) {
    const py::array given = py::reinterpret_borrow<py::array>(object);
    const bool aligned = (a->flags & wanted) == wanted;
    refuse(std::string(py::str(static_cast<py::object>(given.dtype()))) + " of shape " + shape_text(given) +
           (aligned ? "" : ", not contiguous or not aligned"));
  }
  return reinterpret_cast<const T *>(a->data);
}

} // namespace

size_t PackedWeights::bytes() const {
  return std::visit([](const auto &p) { return p->bytes(); }, packed);
}

template <class T> std::vector<Parameters<const T>> parameters_of(const Shape &shape, py::handle weights) {
  if (!PyTuple_Check(weights.ptr()))
    throw py::type_error("weights: expected a tuple of arrays, got " +
                         std::string(py::str(py::type::of(weights).attr("__name__"))));
  const size_t given = size_t(PyTuple_GET_SIZE(weights.ptr()));
  std::vector<Parameters<const T>> all(shape.count());
  size_t index = 0;
  each_parameter<const T>(shape, [&](size_t i, auto member, size_t rows, size_t columns) {
    if (index < given)
      all[i].*member = checked<T>(PyTuple_GET_ITEM(weights.ptr(), Py_ssize_t(index)), index, rows, columns);
    ++index;
  });
  if (index != given)
    throw py::value_error("weights: expected " + std::to_string(index) + " arrays, got " + std::to_string(given));
  return all;
}

template <class T> PackedPointer<T> packed_of(const Shape &shape, py::handle weights) {
  if (!py::isinstance<PackedWeights>(weights))
    throw py::type_error("weights: expected a tuple of arrays or packed weights, got " +
                         std::string(py::str(py::type::of(weights).attr("__name__"))));
  const auto &packed = py::cast<const PackedWeights &>(weights).packed;
  const auto *pointer = std::get_if<PackedPointer<T>>(&packed);
  if (!pointer || !((*pointer)->shape() == shape))
    throw py::value_error("weights: expected the packed weights of this network, got those of another");
  return *pointer;
}

template <class T> PackedPointer<T> pack(const Shape &shape, py::handle weights) {
  auto packed = std::make_shared<Packed<T>>(kernels().of<T>(), shape, parameters_of<T>(shape, weights), true, true);
  without_interpreter([&] {
    const FlushSubnormals mode; // as in a call, which packs what is not frozen
    packed->pack({nullptr, 0, 0, 1});
    return true;
  });
  return packed;
}

template std::vector<Parameters<const float>> parameters_of<float>(const Shape &, py::handle);
template std::vector<Parameters<const double>> parameters_of<double>(const Shape &, py::handle);
template PackedPointer<float> packed_of<float>(const Shape &, py::handle);
template PackedPointer<double> packed_of<double>(const Shape &, py::handle);
template PackedPointer<float> pack<float>(const Shape &, py::handle);
template PackedPointer<double> pack<double>(const Shape &, py::handle);

} // namespace fastrnn
