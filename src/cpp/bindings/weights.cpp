#include "bindings/weights.hpp"

#include "bindings/interpreter.hpp"
#include "bindings/sequence.hpp"
#include "kernels/dispatch.hpp"

namespace fastrnn {

namespace {

template <class T> [[noreturn]] void refuse(py::handle object, size_t index, size_t rows, size_t columns) {
  std::string got = "a " + type_name(object);
  if (py::isinstance<py::array>(object)) {
    const py::array a = py::reinterpret_borrow<py::array>(object);
    got = std::string(py::str(static_cast<py::object>(a.dtype()))) + " of shape " + shape_text(a);
    if (!(a.flags() & py::array::c_style) || !(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
      got += ", not contiguous or not aligned";
  }
  throw py::value_error("weights[" + std::to_string(index) + "]: expected a C-contiguous, aligned array of " +
                        std::string(py::str(static_cast<py::object>(py::dtype::of<T>()))) + " of shape " +
                        shape_text(columns == 1 ? Sizes{rows} : Sizes{rows, columns}) + ", got " + got);
}

// The numbers of one parameter. The core reads as many as its shape says, so a wrong array must not get past here.
template <class T> const T *checked(py::handle object, size_t index, size_t rows, size_t columns) {
  const auto *a = py::detail::array_proxy(object.ptr());
  constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const bool fits = is_plain<T>(object) && (a->flags & wanted) == wanted &&
                    (a->nd == 1 ? columns == 1 : a->nd == 2 && size_t(a->dimensions[1]) == columns) &&
                    size_t(a->dimensions[0]) == rows;
  if (!fits) refuse<T>(object, index, rows, columns);
  return reinterpret_cast<const T *>(a->data);
}

} // namespace

size_t PackedWeights::bytes() const {
  return std::visit([](const auto &p) { return p->bytes(); }, packed);
}

template <class T> std::vector<Parameters<const T>> parameters_of(const Shape &shape, py::handle weights) {
  if (!PyTuple_Check(weights.ptr()))
    throw py::type_error("weights: expected a tuple of arrays, got " + type_name(weights));
  const size_t given = size_t(PyTuple_GET_SIZE(weights.ptr()));
  std::vector<Parameters<const T>> all(shape.count());
  size_t index = 0;
  each_parameter<const T>(shape, [&](size_t i, auto member, size_t rows, size_t columns) {
    if (index < given)
      all[i].*member = checked<T>(PyTuple_GET_ITEM(weights.ptr(), Py_ssize_t(index)), index, rows, columns);
    ++index;
  });
  if (shape.learned_state) index += shape.has_c() ? 2 : 1; // learned_state_of checks these
  if (index != given)
    throw py::value_error("weights: expected " + std::to_string(index) + " arrays, got " + std::to_string(given));
  return all;
}

template <class T> PackedPointer<T> packed_of(const Shape &shape, py::handle weights) {
  if (!py::isinstance<PackedWeights>(weights))
    throw py::type_error("weights: expected a tuple of arrays or packed weights, got " + type_name(weights));
  const auto &packed = py::cast<const PackedWeights &>(weights).packed;
  const auto *pointer = std::get_if<PackedPointer<T>>(&packed);
  if (!pointer || !((*pointer)->shape() == shape))
    throw py::value_error("weights: expected the packed weights of this network, got those of another");
  return *pointer;
}

template <class T> LearnedState<T> learned_state_of(const Shape &shape, py::handle weights) {
  if (are_packed(weights)) {
    const PackedPointer<T> packed = packed_of<T>(shape, weights);
    return {packed->h_0.data(), shape.has_c() ? packed->c_0.data() : nullptr};
  }
  const size_t states = shape.has_c() ? 2 : 1, given = size_t(PyTuple_GET_SIZE(weights.ptr()));
  if (given < states) throw py::value_error("weights: expected more arrays, got " + std::to_string(given));
  const auto array = [&](size_t index, size_t width) {
    return checked<T>(PyTuple_GET_ITEM(weights.ptr(), Py_ssize_t(index)), index, shape.count(), width);
  };
  const T *const h = array(given - states, shape.output());
  return {h, shape.has_c() ? array(given - 1, shape.hidden) : nullptr};
}

template <class T> PackedPointer<T> pack(const Shape &shape, py::handle weights) {
  auto packed = std::make_shared<Packed<T>>(kernels().of<T>(), shape, parameters_of<T>(shape, weights), true, true);
  without_interpreter([&] {
    const FlushSubnormals mode; // as in a call, which packs what is not frozen
    packed->pack({nullptr, 0, 0, 1});
    return true;
  });
  if (shape.learned_state) {
    const LearnedState<T> first = learned_state_of<T>(shape, weights);
    packed->h_0.assign(first.h, first.h + shape.count() * shape.output());
    if (first.c) packed->c_0.assign(first.c, first.c + shape.count() * shape.hidden);
  }
  return packed;
}

template std::vector<Parameters<const float>> parameters_of<float>(const Shape &, py::handle);
template std::vector<Parameters<const double>> parameters_of<double>(const Shape &, py::handle);
template PackedPointer<float> packed_of<float>(const Shape &, py::handle);
template PackedPointer<double> packed_of<double>(const Shape &, py::handle);
template LearnedState<float> learned_state_of<float>(const Shape &, py::handle);
template LearnedState<double> learned_state_of<double>(const Shape &, py::handle);
template PackedPointer<float> pack<float>(const Shape &, py::handle);
template PackedPointer<double> pack<double>(const Shape &, py::handle);

} // namespace fastrnn
