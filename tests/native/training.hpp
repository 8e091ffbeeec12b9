// The rest of a training step: lookups, attention, a linear layer, the fused cross-entropy, clipping and optimisers.
#pragma once

#include "engine/attention.hpp"
#include "engine/cross_entropy.hpp"
#include "engine/update.hpp"
#include "kernels/dispatch.hpp"
#include "results.hpp"

namespace driver {

struct StepSizes {
  size_t steps, rows, inputs, outputs, classes;
};
// from one number to several chunks of logits
constexpr StepSizes step_sizes[] = {
    {1, 1, 1, 1, 1}, {3, 2, 5, 7, 3}, {7, 5, 17, 33, 50}, {20, 9, 40, 24, 700}, {60, 13, 16, 9, 2100}};

template <class T> std::string step_name(const StepSizes &s) {
  std::string name = std::string("step") + (sizeof(T) == 8 ? "-f64" : "-f32");
  for (const size_t n : {s.steps, s.rows, s.inputs, s.outputs, s.classes}) name += "-" + std::to_string(n);
  return name;
}

// All of it once, each part on numbers of its own.
template <class T> Results<T> run_step(const StepSizes &s, int threads) {
  using namespace fastrnn;
  const Kernels<T> &k = kernels().of<T>();
  Lease lease(threads - 1, true);
  PieceWork work(lease, nullptr);
  Random random{s.rows * 1000 + s.classes};
  Results<T> out;
  auto array = [&](const char *name, size_t n) { return (out[name] = std::vector<T>(n)).data(); };
  const size_t n = s.steps * s.rows;

  std::vector<int64_t> ids(n);
  for (auto &id : ids) id = int64_t(random.next() % s.classes);
  const std::vector<T> table = random.array<T>(s.classes * s.inputs);
  T *const x = array("x", n * s.inputs);
  gather(x, table.data(), ids.data(), n, s.inputs, work);

  const std::vector<T> memory = random.array<T>(s.steps * s.rows * s.inputs);
  std::vector<int64_t> lengths(s.rows);
  for (auto &length : lengths) length = int64_t(random.next() % s.steps) + 1;
  const Attention<T> attention{s.steps, s.steps, s.rows, s.inputs, x, memory.data(), lengths.data()};
  T *const context = array("context", n * s.inputs), *const p = array("p", s.rows * s.steps * s.steps);
  attend(k, attention, context, p, work);

  Dense<T> linear;
  linear.rows = n;
  linear.inputs = s.inputs;
  linear.outputs = s.outputs;
  const std::vector<T> weight = random.array<T>(s.outputs * s.inputs), bias = random.array<T>(s.outputs);
  linear.x = {context, ptrdiff_t(s.inputs)};
  linear.weight = weight.data();
  linear.bias = bias.data();
  linear.activation = Activation::tanh;
  T *const y = array("y", n * s.outputs);
  dense_forward(k, linear, y, work);

  CrossEntropy<T> loss;
  const std::vector<T> head = random.array<T>(s.classes * s.outputs), head_bias = random.array<T>(s.classes);
  std::vector<double> weights(n);
  for (auto &w : weights) w = random.next() % 4 ? random.uniform() + 1.5 : 0;
  loss.layer.rows = n;
  loss.layer.inputs = s.outputs;
  loss.layer.outputs = s.classes;
  loss.layer.x = {y, ptrdiff_t(s.outputs)};
  loss.layer.weight = head.data();
  loss.layer.bias = head_bias.data();
  loss.targets = ids.data();
  loss.weights = weights.data();
  loss.label_smoothing = 0.1;
  loss.z_loss = 1e-3;
  const DenseGradients<T> g{array("dy", n * s.outputs), array("dhead", head.size()), array("dhead_bias", s.classes)};
  double value = 0;
  cross_entropy(k, loss, &value, &g, work);
  *array("loss", 1) = T(value);
  const LogitsCrossEntropy<T> of_logits{loss, {x, ptrdiff_t(s.inputs)}};
  if (s.inputs == s.classes) cross_entropy(k, of_logits, &value, array("dlogits", n * s.classes), work);

  const DenseGradients<T> below{array("dcontext", n * s.inputs), array("dweight", weight.size()),
                                array("dbias", s.outputs)};
  dense_backward(k, linear, Matrix<const T>{g.dx, ptrdiff_t(s.outputs)}, Matrix<const T>{y, ptrdiff_t(s.outputs)},
                 below, work);
  T *const dx = array("dx", n * s.inputs);
  attend_backward(k, attention, p, below.dx, dx, array("dmemory", memory.size()), work);
  T *const dtable = array("dtable", table.size());
  gather_gradient(dtable, s.classes, dx, ids.data(), n, s.inputs, work);

  double sum = 0;
  squared_norm(k, std::vector<Stretch<T>>{{g.dweight, head.size()}, {dtable, table.size()}}, &sum, work);
  *array("norm", 1) = T(std::sqrt(sum));
  const char *const names[3][3] = {{"sgd", "sgd_a", "sgd_b"}, {"adam", "adam_a", "adam_b"}, {"rms", "rms_a", "rms_b"}};
  for (const Optimiser kind : {Optimiser::sgd, Optimiser::adam, Optimiser::rmsprop}) {
    Update<T> u;
    u.n = head.size();
    u.p = array(names[int(kind)][0], u.n);
    std::copy(head.begin(), head.end(), u.p);
    u.a = array(names[int(kind)][1], u.n);
    u.b = array(names[int(kind)][2], u.n);
    u.g = g.dweight;
    u.scale = T(0.5);
    u.decay = T(0.01);
    u.first = T(0.1);
    u.second = T(0.01);
    u.eps = T(1e-6);
    u.rate = T(0.01);
    for (int i = 0; i < 2; ++i) update(k, kind, std::vector<Update<T>>{u}, work);
  }
  return out;
}

} // namespace driver
