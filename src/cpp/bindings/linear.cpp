// linear: linear layers and the softmax cross-entropy, by itself or fused with a linear layer, as Python sees them.
#include "bindings/pieces.hpp"
#include "bindings/register.hpp"
#include "engine/cross_entropy.hpp"

namespace fastrnn {

namespace {

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

} // namespace

void register_linear(py::module_ &m) {
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
}

} // namespace fastrnn
