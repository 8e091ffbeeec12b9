// pieces: what the bindings of linear layers, losses, attention, lookups and optimisers share: calls whose work threads
// take piece by piece, and checks of arguments. fastrnn names arguments in Python; what could read or write out of
// bounds is checked here again.
#pragma once

#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/interpreter.hpp"
#include "engine/dense.hpp"
#include "kernels/dispatch.hpp"
#include "runtime/callers.hpp"

namespace fastrnn {

// ---- threads of a call --------------------------------------------------------------------------------

// Operations of a call from which on helpers pay.
constexpr double worth_sharing = 4e6;
// What an optimiser does to one parameter takes as long as so many operations: it waits for memory.
constexpr double work_of_a_number = 40;

struct PieceCall {
  std::optional<ActiveCall> active;
  Lease lease;
  explicit PieceCall(double work) {
    const int threads = num_threads();
    if (threads == 1 || work < worth_sharing) return;
    if (work < time_slice && cores_are_contended(Waits::seldom)) return;
    active.emplace();
    lease = Lease(active->share_of(threads) - 1, work >= worth_waking);
  }
};

// Runs f(work) with the interpreter released.
template <class F> void run_pieces(double work, F &&f, bool may_interrupt = true) {
  PieceCall call(work);
  PieceWork pieces(call.lease, may_interrupt ? interruption_hook() : nullptr);
  without_interpreter([&] { return f(pieces); });
}

// ---- arguments ----------------------------------------------------------------------------------------

template <class F> auto with_type(const char *name, py::handle object, F &&f) {
  if (is_plain<float>(object)) return f(float());
  if (is_plain<double>(object)) return f(double());
  throw py::type_error(std::string(name) + ": expected an array of float32 or float64");
}

inline const py::array &checked_shape(const char *name, const py::array &a, const Sizes &shape) {
  const Sizes given(a.shape(), a.shape() + a.ndim());
  if (!(given == shape)) wrong_shape(name, shape_text(shape), a);
  return a;
}

// A C-contiguous, aligned array of T and this shape, writable if asked.
template <class T> T *numbers(const char *name, py::handle object, const Sizes &shape, bool writable = false) {
  constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const int flags = wanted | (writable ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0);
  if (!is_plain<T>(object) || (py::detail::array_proxy(object.ptr())->flags & flags) != flags)
    throw py::value_error(std::string(name) + ": expected a C-contiguous" + (writable ? ", writable" : "") +
                          " array of " + std::string(py::str(static_cast<py::object>(py::dtype::of<T>()))));
  return data<T>(checked_shape(name, py::reinterpret_borrow<py::array>(object), shape));
}

inline const int64_t *indices(const char *name, py::handle object, size_t count) {
  if (!py::isinstance<py::array_t<int64_t>>(object))
    throw py::type_error(std::string(name) + ": expected an array of int64");
  const py::array a = py::reinterpret_borrow<py::array>(object);
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + ": expected a C-contiguous array");
  return data<int64_t>(checked_shape(name, a, {count}));
}

// Every index below `limit`, else an error; those of weight 0 do not count.
inline void check_below(const char *name, const int64_t *ids, size_t count, size_t limit,
                        const double *weights = nullptr) {
  for (size_t i = 0; i < count; ++i)
    if ((ids[i] < 0 || size_t(ids[i]) >= limit) && !(weights && weights[i] == 0))
      throw py::value_error(std::string(name) + ": expected values from 0 to " + std::to_string(limit - 1) + ", got " +
                            std::to_string(ids[i]));
}

inline double work_of(size_t rows, size_t inputs, size_t outputs) {
  return 2.0 * double(rows) * double(inputs) * double(outputs);
}

} // namespace fastrnn
