// training: the rest of a training step, as Python sees it: attention, lookups in a table, and optimisers.
#include <cmath>

#include "bindings/pieces.hpp"
#include "bindings/register.hpp"
#include "engine/attention.hpp"
#include "engine/update.hpp"

namespace fastrnn {

namespace {

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
