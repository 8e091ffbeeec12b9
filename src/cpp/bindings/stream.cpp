// stream: a layer that runs step by step, as Python sees it.
#include <atomic>
#include <variant>

#include "bindings/network.hpp"
#include "bindings/register.hpp"
#include "engine/stream.hpp"
#include "kernels/dispatch.hpp"

namespace fastrnn {

namespace {

// A stream has one state, so one call at a time. A second caller gets an error: waiting could deadlock, since the first
// may be waiting for the interpreter that the second one holds.
class InUse {
public:
  explicit InUse(std::atomic<bool> &busy) : busy_(busy) {
    if (busy.exchange(true, std::memory_order_acquire))
      throw std::runtime_error("stream: expected one call at a time, got a second one while another runs; "
                               "give every thread a stream of its own");
  }
  ~InUse() { busy_.store(false, std::memory_order_release); }
  InUse(const InUse &) = delete;
  InUse &operator=(const InUse &) = delete;

private:
  std::atomic<bool> &busy_;
};

// One step at a time (engine/stream.hpp). Arrays are [B, I] and [B, output], or [I] and [output] for one row.
class StreamHandle {
public:
  StreamHandle(const Network &network, py::handle weights, size_t rows) : shape_(network.shape()), rows_(rows) {
    if (shape_.directions != 1)
      throw py::value_error("stream: expected a network of one direction, got a bidirectional one");
    if (shape_.reverse) throw py::value_error("stream: expected a network that reads forward, got reverse=True");
    if (network.is_double())
      stream_ = std::make_unique<Stream<double>>(kernels().f64, shape_, packed_of<double>(shape_, weights), rows);
    else
      stream_ = std::make_unique<Stream<float>>(kernels().f32, shape_, packed_of<float>(shape_, weights), rows);
  }

  py::object step(py::handle x, py::handle out) {
    const InUse in_use(busy_);
    return std::visit([&](auto &stream) { return step_as(*stream, x, out); }, stream_);
  }
  py::object state() {
    const InUse in_use(busy_);
    return std::visit([&](const auto &stream) { return state_as(*stream); }, stream_);
  }
  void set_state(py::handle state) {
    const InUse in_use(busy_);
    std::visit([&](auto &stream) { set_state_as(*stream, state); }, stream_);
  }
  void reset(py::handle rows) {
    const InUse in_use(busy_);
    std::visit(
        [&](auto &stream) {
          if (rows.is_none()) return stream->reset();
          const py::array which = py::module_::import("fastrnn._arrays").attr("as_rows")(rows, rows_);
          for (py::ssize_t i = 0; i < which.shape(0); ++i)
            stream->reset_row(size_t(static_cast<const int64_t *>(which.data())[i]));
        },
        stream_);
  }

private:
  template <class T> py::object step_as(Stream<T> &stream, py::handle x_object, py::handle out_object) {
    py::object x = py::reinterpret_borrow<py::object>(x_object);
    const T *from = rows_of<T>(x, shape_.input);
    if (!from) { // not as it is needed: a list, strided, of another type, or wrong
      py::array a = real_array<T>("x", x);
      if (!(a.flags() & py::array::c_style)) a = py::array_t<T, py::array::c_style>(a);
      from = rows_of<T>(a, shape_.input);
      if (!from)
        wrong_shape(
            "x", shape_text(Sizes{rows_, shape_.input}) + (rows_ == 1 ? " or " + shape_text(Sizes{shape_.input}) : ""),
            a);
      x = a;
    }
    const bool flat = py::detail::array_proxy(x.ptr())->nd == 1;
    py::object out;
    T *to;
    if (out_object.is_none()) {
      const size_t shape[2] = {rows_, shape_.output()};
      out = flat ? new_array<T>(shape + 1, 1) : new_array<T>(shape, 2);
      to = data<T>(py::reinterpret_borrow<py::array>(out));
    } else {
      out = py::reinterpret_borrow<py::object>(out_object);
      to = const_cast<T *>(rows_of<T>(out_object, shape_.output()));
      if (!to || !(py::detail::array_proxy(out.ptr())->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
        to = check_out<T>(out, flat);
    }
    if (stream.work() < (size_t(1) << 17)) { // below some 10 us releasing the interpreter costs more than it gives
      const FlushSubnormals mode;
      stream.step(to, from);
    } else {
      py::gil_scoped_release release;
      const FlushSubnormals mode;
      stream.step(to, from);
    }
    return out;
  }

  // the numbers of an array that is exactly [B, width] (or [width] for one row), contiguous and aligned; else null
  template <class T> const T *rows_of(py::handle object, size_t width) const {
    if (!is_plain<T>(object)) return nullptr;
    const auto *a = py::detail::array_proxy(object.ptr());
    constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    const bool fits = a->nd == 2   ? size_t(a->dimensions[0]) == rows_ && size_t(a->dimensions[1]) == width
                      : a->nd == 1 ? rows_ == 1 && size_t(a->dimensions[0]) == width
                                   : false;
    return fits && (a->flags & wanted) == wanted ? reinterpret_cast<const T *>(a->data) : nullptr;
  }

  template <class T> T *check_out(const py::object &out, bool flat) const {
    const std::string dtype = py::str(static_cast<py::object>(py::dtype::of<T>()));
    if (!py::isinstance<py::array_t<T>>(out))
      throw py::type_error("out: expected an array of " + dtype + ", got " +
                           (py::isinstance<py::array>(out)
                                ? "an array of " + std::string(py::str(static_cast<py::object>(
                                                       py::reinterpret_borrow<py::array>(out).dtype())))
                                : type_name(out)));
    const py::array a = py::reinterpret_borrow<py::array>(out);
    const size_t n = size_t(a.ndim());
    const bool fits = flat ? n == 1 && size_t(a.shape(0)) == shape_.output()
                           : n == 2 && size_t(a.shape(0)) == rows_ && size_t(a.shape(1)) == shape_.output();
    if (!fits) wrong_shape("out", shape_text(flat ? Sizes{shape_.output()} : Sizes{rows_, shape_.output()}), a);
    if (!a.writeable() || !(a.flags() & py::array::c_style) || reinterpret_cast<uintptr_t>(a.data()) % alignof(T))
      throw py::value_error("out: expected a writable, aligned, C-contiguous array, got one that is not");
    return data<T>(a);
  }

  template <class T> py::object state_as(const Stream<T> &stream) const {
    py::array h = new_array<T>({shape_.layers, rows_, shape_.output()});
    if (!shape_.has_c()) {
      stream.get_state(data<T>(h), nullptr);
      return h;
    }
    py::array c = new_array<T>({shape_.layers, rows_, shape_.hidden});
    stream.get_state(data<T>(h), data<T>(c));
    return py::make_tuple(h, c);
  }

  template <class T> void set_state_as(Stream<T> &stream, py::handle state) {
    py::object h = py::reinterpret_borrow<py::object>(state), c = py::none();
    if (shape_.has_c()) {
      if (!is_pair(state)) throw py::type_error("state: expected a pair (h, c), got " + type_name(state));
      const py::sequence pair = py::reinterpret_borrow<py::sequence>(state);
      h = pair[0];
      c = state_array<T>("state[1]", pair[1], {shape_.layers, rows_, shape_.hidden});
    }
    h = state_array<T>(shape_.has_c() ? "state[0]" : "state", h, {shape_.layers, rows_, shape_.output()});
    stream.set_state(data<T>(py::reinterpret_borrow<py::array>(h)),
                     c.is_none() ? nullptr : data<T>(py::reinterpret_borrow<py::array>(c)));
  }

  const Shape shape_;
  const size_t rows_;
  std::atomic<bool> busy_{false};
  std::variant<std::unique_ptr<Stream<float>>, std::unique_ptr<Stream<double>>> stream_;
};

} // namespace

void register_stream(py::module_ &m) {
  py::class_<StreamHandle>(m, "Stream")
      .def(py::init<const Network &, py::handle, size_t>())
      .def("step", &StreamHandle::step, py::arg("x"), py::arg("out") = py::none())
      .def_property("state", &StreamHandle::state, &StreamHandle::set_state)
      .def("reset", &StreamHandle::reset, py::arg("rows") = py::none());
}

} // namespace fastrnn
