// training: what stands around a recurrent layer in a training step, as Python sees it: linear layers, the fused
// cross-entropy, lookups in a table, and optimisers. fastrnn checks shapes and names arguments in Python; what could
// read or write out of bounds is checked here again.
#include <cmath>
#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/interpreter.hpp"
#include "bindings/register.hpp"
#include "engine/attention.hpp"
#include "engine/cross_entropy.hpp"
#include "engine/update.hpp"
#include "kernels/dispatch.hpp"
#include "runtime/callers.hpp"

namespace fastrnn {

namespace {

// ---- threads of a call --------------------------------------------------------------------------------

// Floating-point operations (or bytes of memory) of a call from which on helpers pay, and from which on those that
// sleep are woken.
constexpr double worth_sharing = 4e6, worth_waking = 1e7;
// What an optimiser does to one parameter takes as long as so many operations: it waits for memory.
constexpr double work_of_a_number = 40;

struct PieceCall {
  std::optional<ActiveCall> active;
  Lease lease;
  explicit PieceCall(double work) {
    const int threads = num_threads();
    if (threads == 1 || work < worth_sharing) return;
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

const py::array &checked_shape(const char *name, const py::array &a, const Sizes &shape) {
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

const int64_t *indices(const char *name, py::handle object, size_t count) {
  if (!py::isinstance<py::array_t<int64_t>>(object))
    throw py::type_error(std::string(name) + ": expected an array of int64");
  const py::array a = py::reinterpret_borrow<py::array>(object);
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + ": expected a C-contiguous array");
  return data<int64_t>(checked_shape(name, a, {count}));
}

// Every index below `limit`, else an error; those of weight 0 do not count.
void check_below(const char *name, const int64_t *ids, size_t count, size_t limit, const double *weights = nullptr) {
  for (size_t i = 0; i < count; ++i)
    if ((ids[i] < 0 || size_t(ids[i]) >= limit) && !(weights && weights[i] == 0))
      throw py::value_error(std::string(name) + ": expected values from 0 to " + std::to_string(limit - 1) + ", got " +
                            std::to_string(ids[i]));
}

Activation activation_named(const std::string &name) {
  if (name.empty()) return Activation::none;
  if (name == "tanh") return Activation::tanh;
  if (name == "relu") return Activation::relu;
  if (name == "sigmoid") return Activation::sigmoid;
  throw py::value_error("activation: expected None, 'tanh', 'relu' or 'sigmoid', got '" + name + "'");
}

// x [rows, inputs], weight [outputs, inputs], bias [outputs] or None. Rows of x may lie apart; their numbers not.
template <class T> Dense<T> dense_of(const py::array &x, const py::array &weight, py::handle bias) {
  if (x.ndim() != 2 || weight.ndim() != 2) throw py::value_error("x and weight: expected two dimensions");
  Dense<T> d;
  d.rows = size_t(x.shape(0));
  d.inputs = size_t(x.shape(1));
  d.outputs = size_t(weight.shape(0));
  d.weight = numbers<T>("weight", weight, {d.outputs, d.inputs});
  if (!bias.is_none()) d.bias = numbers<T>("bias", bias, {d.outputs});
  const py::array rows = real_array<T>("x", x);
  d.x = {data<const T>(rows), ptrdiff_t(rows.strides(0)) / ptrdiff_t(sizeof(T))};
  return d;
}
double work_of(size_t rows, size_t inputs, size_t outputs) {
  return 2.0 * double(rows) * double(inputs) * double(outputs);
}

// ---- linear layers ------------------------------------------------------------------------------------

template <class T>
py::array linear_as(const py::object &x_object, const py::array &weight, const py::object &bias,
                    const std::string &activation) {
  const py::array x = real_array<T>("x", x_object);
  Dense<T> d = dense_of<T>(x, weight, bias);
  d.activation = activation_named(activation);
  const py::array y = new_array<T>({d.rows, d.outputs});
  run_pieces(work_of(d.rows, d.inputs, d.outputs),
             [&](PieceWork &work) { return dense_forward(kernels().of<T>(), d, data<T>(y), work); });
  return y;
}

// dx (None where it is not needed), and the gradients of weight and bias in one flat array.
template <class T>
py::tuple linear_backward_as(const py::object &x_object, const py::array &weight, bool has_bias,
                             const std::string &activation, const py::object &y, const py::object &dy_object,
                             bool need_dx) {
  const py::array x = real_array<T>("x", x_object), dy = real_array<T>("dy", dy_object);
  Dense<T> d = dense_of<T>(x, weight, py::none());
  d.activation = activation_named(activation);
  checked_shape("dy", dy, {d.rows, d.outputs});
  Matrix<const T> outputs;
  if (d.activation != Activation::none) outputs = {numbers<T>("y", y, {d.rows, d.outputs}), ptrdiff_t(d.outputs)};
  const Matrix<const T> dy_rows{data<const T>(dy), ptrdiff_t(dy.strides(0)) / ptrdiff_t(sizeof(T))};
  const size_t weights = product(d.outputs, d.inputs);
  const py::array flat = new_array<T>({weights + (has_bias ? d.outputs : 0)});
  DenseGradients<T> g;
  g.dweight = data<T>(flat);
  g.dbias = has_bias ? g.dweight + weights : nullptr;
  py::object dx = py::none();
  if (need_dx) {
    const py::array a = new_array<T>({d.rows, d.inputs});
    g.dx = data<T>(a);
    dx = a;
  }
  run_pieces(2 * work_of(d.rows, d.inputs, d.outputs),
             [&](PieceWork &work) { return dense_backward(kernels().of<T>(), d, dy_rows, outputs, g, work); });
  return py::make_tuple(dx, flat);
}

// ---- cross-entropy of a linear layer ------------------------------------------------------------------

// What every row of a cross-entropy has: its target and its weight.
struct RowTerms {
  std::vector<int64_t> targets; // copied, then checked: another thread may write to the caller's array
  template <class T>
  RowTerms(CrossEntropy<T> &c, const py::array &given, const py::object &weights, double row_weight,
           double label_smoothing, double z_loss) {
    const size_t rows = c.layer.rows;
    if (!weights.is_none()) c.weights = numbers<double>("weights", weights, {rows});
    const int64_t *first = indices("targets", given, rows);
    targets.assign(first, first + rows);
    check_below("targets", targets.data(), rows, c.layer.outputs, c.weights);
    c.targets = targets.data();
    c.weight = row_weight;
    c.label_smoothing = label_smoothing;
    c.z_loss = z_loss;
  }
};

// The loss; with gradients also dx and the gradients of weight and bias in one flat array. weights: None, or what every
// row counts, the reduction included; `weight` counts for all where they are None.
template <class T>
py::tuple cross_entropy_as(const py::object &x_object, const py::array &weight, const py::object &bias,
                           const py::array &targets, const py::object &weights, double row_weight,
                           double label_smoothing, double z_loss, bool gradients, bool need_dx) {
  const py::array x = real_array<T>("x", x_object);
  CrossEntropy<T> c;
  c.layer = dense_of<T>(x, weight, bias);
  const Dense<T> &d = c.layer;
  if (!d.outputs) throw py::value_error("weight: expected at least one class, got none");
  const RowTerms terms(c, targets, weights, row_weight, label_smoothing, z_loss);
  DenseGradients<T> g;
  py::object dx = py::none(), flat = py::none();
  if (gradients) {
    const size_t all = product(d.outputs, d.inputs);
    const py::array a = new_array<T>({all + (d.bias ? d.outputs : 0)});
    g.dweight = data<T>(a);
    g.dbias = d.bias ? g.dweight + all : nullptr;
    flat = a;
    if (need_dx) {
      const py::array b = new_array<T>({d.rows, d.inputs});
      g.dx = data<T>(b);
      dx = b;
    }
  }
  double loss = 0;
  run_pieces(work_of(d.rows, d.inputs, d.outputs) * (gradients ? 3 : 1), [&](PieceWork &work) {
    return cross_entropy(kernels().of<T>(), c, &loss, gradients ? &g : nullptr, work);
  });
  return py::make_tuple(loss, dx, flat);
}

// The loss of logits [rows, classes] and, where it is wanted, its gradient with respect to them.
template <class T>
py::tuple softmax_cross_entropy_as(const py::object &logits, const py::array &targets, const py::object &weights,
                                   double row_weight, double label_smoothing, double z_loss, bool gradient) {
  const py::array z = real_array<T>("logits", logits);
  if (z.ndim() != 2 || z.shape(1) == 0) throw py::value_error("logits: expected two dimensions and at least one class");
  LogitsCrossEntropy<T> c;
  c.loss.layer.rows = size_t(z.shape(0));
  c.loss.layer.outputs = size_t(z.shape(1));
  c.logits = {data<const T>(z), ptrdiff_t(z.strides(0)) / ptrdiff_t(sizeof(T))};
  const RowTerms terms(c.loss, targets, weights, row_weight, label_smoothing, z_loss);
  const size_t rows = c.loss.layer.rows, classes = c.loss.layer.outputs;
  py::object dz = py::none();
  T *to = nullptr;
  if (gradient) {
    const py::array a = new_array<T>({rows, classes});
    to = data<T>(a);
    dz = a;
  }
  double loss = 0;
  run_pieces(20.0 * double(rows) * double(classes),
             [&](PieceWork &work) { return cross_entropy(kernels().of<T>(), c, &loss, to, work); });
  return py::make_tuple(loss, dz);
}

// ---- attention ----------------------------------------------------------------------------------------

// query [T, B, H], memory [S, B, H], lengths [B].
template <class T> struct AttentionArguments {
  Attention<T> a;
  std::vector<int64_t> lengths; // copied, then checked
  AttentionArguments(const py::array &query, const py::array &memory, const py::array &given) {
    if (query.ndim() != 3 || memory.ndim() != 3) throw py::value_error("query and memory: expected three dimensions");
    a.steps = size_t(query.shape(0));
    a.rows = size_t(query.shape(1));
    a.width = size_t(query.shape(2));
    a.places = size_t(memory.shape(0));
    a.query = numbers<T>("query", query, {a.steps, a.rows, a.width});
    a.memory = numbers<T>("memory", memory, {a.places, a.rows, a.width});
    const int64_t *first = indices("lengths", given, a.rows);
    lengths.assign(first, first + a.rows);
    check_below("lengths", lengths.data(), a.rows, a.places + 1);
    a.lengths = lengths.data();
  }
  double work() const { return 4.0 * double(a.rows * a.steps) * double(a.places) * double(a.width); }
};

template <class T> py::tuple attend_as(const py::array &query, const py::array &memory, const py::array &lengths) {
  const AttentionArguments<T> args(query, memory, lengths);
  const Attention<T> &a = args.a;
  const py::array context = new_array<T>({a.steps, a.rows, a.width}), p = new_array<T>({a.rows, a.steps, a.places});
  run_pieces(args.work(),
             [&](PieceWork &work) { return attend(kernels().of<T>(), a, data<T>(context), data<T>(p), work); });
  return py::make_tuple(context, p);
}

template <class T>
py::tuple attend_backward_as(const py::array &query, const py::array &memory, const py::array &lengths,
                             const py::array &p, const py::array &dcontext) {
  const AttentionArguments<T> args(query, memory, lengths);
  const Attention<T> &a = args.a;
  const T *const weights = numbers<T>("p", p, {a.rows, a.steps, a.places});
  const T *const d = numbers<T>("dcontext", dcontext, {a.steps, a.rows, a.width});
  const py::array dquery = new_array<T>({a.steps, a.rows, a.width}),
                  dmemory = new_array<T>({a.places, a.rows, a.width});
  run_pieces(2 * args.work(), [&](PieceWork &work) {
    return attend_backward(kernels().of<T>(), a, weights, d, data<T>(dquery), data<T>(dmemory), work);
  });
  return py::make_tuple(dquery, dmemory);
}

// ---- lookups ------------------------------------------------------------------------------------------

template <class T> py::array gather_as(const py::array &table, const py::array &ids) {
  if (table.ndim() != 2 || ids.ndim() != 1) throw py::value_error("table and ids: expected two dimensions and one");
  const size_t rows = size_t(table.shape(0)), width = size_t(table.shape(1)), count = size_t(ids.shape(0));
  const T *const from = numbers<T>("table", table, {rows, width});
  const int64_t *given = indices("ids", ids, count);
  const std::vector<int64_t> wanted(given, given + count);
  check_below("ids", wanted.data(), count, rows);
  const py::array out = new_array<T>({count, width});
  run_pieces(4 * double(count) * double(width),
             [&](PieceWork &work) { return gather(data<T>(out), from, wanted.data(), count, width, work); });
  return out;
}

template <class T> py::array gather_gradient_as(size_t rows, const py::array &dy, const py::array &ids) {
  if (dy.ndim() != 2 || ids.ndim() != 1) throw py::value_error("dy and ids: expected two dimensions and one");
  const size_t count = size_t(dy.shape(0)), width = size_t(dy.shape(1));
  const T *const from = numbers<T>("dy", dy, {count, width});
  const int64_t *given = indices("ids", ids, count);
  const std::vector<int64_t> looked_up(given, given + count);
  check_below("ids", looked_up.data(), count, rows);
  const py::array table = new_array<T>({rows, width});
  run_pieces(4 * double(rows + count) * double(width), [&](PieceWork &work) {
    return gather_gradient(data<T>(table), rows, from, looked_up.data(), count, width, work);
  });
  return table;
}

// ---- optimisers ---------------------------------------------------------------------------------------

template <class T> std::vector<Stretch<T>> stretches_of(const py::sequence &gradients) {
  std::vector<Stretch<T>> all;
  for (const py::handle g : gradients) {
    const size_t n = py::isinstance<py::array>(g) ? size_t(py::reinterpret_borrow<py::array>(g).size()) : 0;
    all.push_back({numbers<T>("gradients", g, {n}), n});
  }
  return all;
}

// The sum of the squares of all numbers of one-dimensional arrays of one dtype.
double squared_norm_of(const py::sequence &gradients) {
  if (!py::len(gradients)) return 0;
  return with_type("gradients", py::object(gradients[0]), [&](auto zero) {
    using T = decltype(zero);
    const std::vector<Stretch<T>> all = stretches_of<T>(gradients);
    double n = 0, sum = 0;
    for (const auto &s : all) n += double(s.n);
    run_pieces(8 * n, [&](PieceWork &work) { return squared_norm(kernels().of<T>(), all, &sum, work); });
    return sum;
  });
}

struct StepOptions {
  double decay, keep, first, second, eps, rate;
  bool nesterov;
};

// One step over flat buffers of one dtype, each with its gradient and its buffers a and b, which may be None. clip: the
// greatest norm of all gradients together, or negative for none. Returns the norm before clipping, 0 where none is
// asked for. Where it is not finite, nothing is updated. The update itself is not interrupted halfway.
template <class T>
double step_as(Optimiser kind, const py::sequence &parameters, const py::sequence &gradients, const py::sequence &a,
               const py::sequence &b, const StepOptions &options, double clip) {
  const size_t count = py::len(parameters);
  if (py::len(gradients) != count || py::len(a) != count || py::len(b) != count)
    throw py::value_error("gradients and buffers: expected as many as parameters");
  std::vector<Update<T>> all;
  double numbers_in_all = 0;
  for (size_t i = 0; i < count; ++i) {
    const py::object p = parameters[i], a_i = a[i], b_i = b[i];
    if (kind != Optimiser::sgd && (a_i.is_none() || (kind == Optimiser::adam && b_i.is_none())))
      throw py::value_error("buffers: expected those of the optimiser, got None");
    Update<T> u;
    u.n = py::isinstance<py::array>(p) ? size_t(py::reinterpret_borrow<py::array>(p).size()) : 0;
    u.p = numbers<T>("parameters", p, {u.n}, true);
    u.g = numbers<T>("gradients", py::object(gradients[i]), {u.n});
    if (!a_i.is_none()) u.a = numbers<T>("buffers", a_i, {u.n}, true);
    if (!b_i.is_none()) u.b = numbers<T>("buffers", b_i, {u.n}, true);
    u.decay = T(options.decay);
    u.keep = T(options.keep);
    u.first = T(options.first);
    u.second = T(options.second);
    u.eps = T(options.eps);
    u.rate = T(options.rate);
    u.nesterov = options.nesterov;
    all.push_back(u);
    numbers_in_all += double(u.n);
  }
  double norm = 0;
  run_pieces(
      numbers_in_all * work_of_a_number,
      [&](PieceWork &work) {
        if (clip >= 0) {
          std::vector<Stretch<T>> stretches;
          for (const Update<T> &u : all) stretches.push_back({u.g, u.n});
          squared_norm(kernels().of<T>(), stretches, &norm, work);
          norm = std::sqrt(norm);
          if (!std::isfinite(norm)) return true;
          if (norm > clip)
            for (Update<T> &u : all) u.scale = T(clip / norm);
        }
        return update(kernels().of<T>(), kind, all, work);
      },
      false);
  return norm;
}

Optimiser optimiser_named(const std::string &name) {
  if (name == "adam") return Optimiser::adam;
  if (name == "rmsprop") return Optimiser::rmsprop;
  if (name == "sgd") return Optimiser::sgd;
  throw py::value_error("optimiser: expected adam, rmsprop or sgd, got '" + name + "'");
}

} // namespace

void register_training(py::module_ &m) {
  m.def(
      "linear",
      [](const py::object &x, const py::array &weight, const py::object &bias, const std::string &activation) {
        return with_type("weight", weight, [&](auto zero) -> py::array {
          return linear_as<decltype(zero)>(x, weight, bias, activation);
        });
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("activation") = "");
  m.def(
      "linear_backward",
      [](const py::object &x, const py::array &weight, bool has_bias, const py::object &dy,
         const std::string &activation, const py::object &y, bool need_dx) {
        return with_type("weight", weight, [&](auto zero) {
          return linear_backward_as<decltype(zero)>(x, weight, has_bias, activation, y, dy, need_dx);
        });
      },
      py::arg("x"), py::arg("weight"), py::arg("has_bias"), py::arg("dy"), py::arg("activation") = "",
      py::arg("y") = py::none(), py::arg("need_dx") = true);
  m.def(
      "linear_cross_entropy",
      [](const py::object &x, const py::array &weight, const py::object &bias, const py::array &targets,
         const py::object &weights, double row_weight, double label_smoothing, double z_loss, bool gradients,
         bool need_dx) {
        return with_type("weight", weight, [&](auto zero) {
          return cross_entropy_as<decltype(zero)>(x, weight, bias, targets, weights, row_weight, label_smoothing,
                                                  z_loss, gradients, need_dx);
        });
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("targets"), py::arg("weights"), py::arg("row_weight"),
      py::arg("label_smoothing") = 0.0, py::arg("z_loss") = 0.0, py::arg("gradients") = true,
      py::arg("need_dx") = true);
  m.def(
      "softmax_cross_entropy",
      [](const py::array &logits, const py::array &targets, const py::object &weights, double row_weight,
         double label_smoothing, double z_loss, bool gradient) {
        return with_type("logits", logits, [&](auto zero) {
          return softmax_cross_entropy_as<decltype(zero)>(logits, targets, weights, row_weight, label_smoothing, z_loss,
                                                          gradient);
        });
      },
      py::arg("logits"), py::arg("targets"), py::arg("weights"), py::arg("row_weight"),
      py::arg("label_smoothing") = 0.0, py::arg("z_loss") = 0.0, py::arg("gradient") = true);
  m.def("attend", [](const py::array &query, const py::array &memory, const py::array &lengths) {
    return with_type("query", query, [&](auto zero) { return attend_as<decltype(zero)>(query, memory, lengths); });
  });
  m.def("attend_backward", [](const py::array &query, const py::array &memory, const py::array &lengths,
                              const py::array &p, const py::array &dcontext) {
    return with_type("query", query, [&](auto zero) {
      return attend_backward_as<decltype(zero)>(query, memory, lengths, p, dcontext);
    });
  });
  m.def("gather", [](const py::array &table, const py::array &ids) {
    return with_type("table", table, [&](auto zero) { return gather_as<decltype(zero)>(table, ids); });
  });
  m.def("gather_gradient", [](size_t rows, const py::array &dy, const py::array &ids) {
    return with_type("dy", dy, [&](auto zero) { return gather_gradient_as<decltype(zero)>(rows, dy, ids); });
  });
  m.def("squared_norm", &squared_norm_of);
  m.def(
      "optimiser_step",
      [](const std::string &optimiser, const py::sequence &parameters, const py::sequence &gradients,
         const py::sequence &a, const py::sequence &b, double clip, double decay, double keep, double first,
         double second, double eps, double rate, bool nesterov) {
        const Optimiser kind = optimiser_named(optimiser);
        if (!py::len(parameters)) return 0.0;
        const StepOptions options{decay, keep, first, second, eps, rate, nesterov};
        return with_type("parameters", py::object(parameters[0]), [&](auto zero) {
          return step_as<decltype(zero)>(kind, parameters, gradients, a, b, options, clip);
        });
      },
      py::arg("optimiser"), py::arg("parameters"), py::arg("gradients"), py::arg("a"), py::arg("b"), py::arg("clip"),
      py::arg("decay") = 0.0, py::arg("keep") = 1.0, py::arg("first") = 0.0, py::arg("second") = 0.0,
      py::arg("eps") = 0.0, py::arg("rate") = 0.0, py::arg("nesterov") = false);
}

} // namespace fastrnn
