#include "bindings/network.hpp"

#include <cmath>
#include <optional>

#include "bindings/gradients.hpp"
#include "bindings/interpreter.hpp"
#include "bindings/register.hpp"
#include "engine/layer.hpp"
#include "kernels/dispatch.hpp"
#include "runtime/callers.hpp"

namespace fastrnn {

namespace {

Cell cell_named(const std::string &name) {
  const std::pair<const char *, Cell> names[] = {{"rnn_tanh", Cell::rnn_tanh},
                                                 {"rnn_relu", Cell::rnn_relu},
                                                 {"lstm", Cell::lstm},
                                                 {"gru", Cell::gru},
                                                 {"gru_before", Cell::gru_before}};
  for (const auto &[known, cell] : names)
    if (name == known) return cell;
  throw py::value_error("cell: expected a cell of the core, got '" + name + "'");
}

Merge merge_named(const std::string &name) {
  const std::pair<const char *, Merge> names[] = {
      {"concat", Merge::concat}, {"sum", Merge::sum}, {"mul", Merge::mul}, {"ave", Merge::ave}};
  for (const auto &[known, merge] : names)
    if (name == known) return merge;
  throw py::value_error("merge: expected 'concat', 'sum', 'mul' or 'ave', got '" + name + "'");
}

// How the threads of a call share it, and the helpers that it has leased. Lives as long as the call.
struct SharedCall {
  std::optional<ActiveCall> active;
  Execution how;
  // whole_layers: something is done with the outputs of whole layers between them
  template <class T>
  void choose(const Shape &shape, const Batch &batch, bool whole_layers, bool packed, bool backward) {
    Problem p;
    p.cell = shape.cell;
    p.total = batch.total();
    p.steps = batch.steps;
    p.rows = batch.rows;
    p.input = shape.layers > 1 ? std::max(shape.input, shape.layer_input(1)) : shape.input;
    p.hidden = shape.hidden;
    p.recurrent = shape.output();
    p.number = sizeof(T);
    p.gates = shape.gates();
    p.threads = num_threads();
    p.l2 = caches().l2;
    p.layers = shape.layers;
    p.directions = shape.directions;
    p.dropout = whole_layers;
    p.backward = backward;
    p.packed = packed;
    p.one_product = shape.one_product();
    p.panels = kernels().of<T>().gate_panels(shape.step_gates(), p.hidden);
    Plan plan = schedule(p);
    if (plan.threads > 1) {
      active.emplace();
      p.threads = active->share_of(p.threads);
      p.contended = cores_are_contended(Waits::often);
      p.cores_taken = cores_are_contended(Waits::seldom);
      plan = schedule(p);
    }
    Lease lease;
    if (plan.threads > 1) {
      lease = Lease(plan.threads - 1, plan.work * (backward ? 3 : 1) >= worth_waking);
      if (lease.size() + 1 < plan.threads) {
        p.threads = lease.size() + 1;
        plan = schedule(p);
        lease.keep(plan.threads - 1);
      }
    }
    if (shares_are_shuffled()) plan.paced = plan.has_shares(); // for tests
    how = {plan, p.l2, interruption_hook(), std::move(lease)};
  }
};

// The weights of one call: packed ones as they are, or a set that the call packs for itself.
template <class T> struct CallWeights {
  PackedPointer<T> weights;
  bool pack;
  CallWeights(const Shape &shape, py::handle given, const Plan &plan, bool forward, bool backward)
      : pack(!are_packed(given)) {
    if (pack)
      weights = std::make_shared<Packed<T>>(kernels().of<T>(), shape, parameters_of<T>(shape, given), forward, backward,
                                            plan.in_pieces, plan.w_in_pieces);
    else
      weights = packed_of<T>(shape, given);
  }
};

Sizes state_shape(const Shape &shape, const Layout &layout, size_t width) {
  if (layout.batched) return {shape.count(), layout.rows, width};
  return {shape.count(), width};
}

// Whether the state of a cell without c is a pair (h, c). A tuple of two layers' h is none.
bool is_pair_of_states(const Shape &shape, py::handle state) {
  if (!PyTuple_Check(state.ptr()) || !is_pair(state)) return false;
  const py::object first = py::reinterpret_borrow<py::sequence>(state)[0];
  if (!py::isinstance<py::array>(first)) return false;
  const auto dimensions = py::reinterpret_borrow<py::array>(first).ndim();
  return dimensions == 3 || (dimensions == 2 && shape.count() != 2);
}

// (h, c) of an LSTM, h of the others. Entries that are None stay None.
std::pair<py::object, py::object> state_parts(const Shape &shape, const char *name, py::handle state) {
  if (state.is_none()) return {py::none(), py::none()};
  if (!shape.has_c() && is_pair_of_states(shape, state))
    throw py::type_error(std::string(name) + ": expected an array h, got a pair (h, c), which only an LSTM has");
  if (!shape.has_c()) return {py::reinterpret_borrow<py::object>(state), py::none()};
  if (!is_pair(state)) throw py::type_error(std::string(name) + ": expected a pair (h, c), got " + type_name(state));
  const py::sequence pair = py::reinterpret_borrow<py::sequence>(state);
  return {pair[0], pair[1]};
}

// Replaces `a` by an array of the state's shape and returns its numbers; null where it is None.
template <class T>
const T *state_numbers(const Shape &shape, const char *name, py::object &a, const Layout &layout, size_t width) {
  if (a.is_none()) return nullptr;
  a = state_array<T>(name, a, state_shape(shape, layout, width));
  return data<T>(py::reinterpret_borrow<py::array>(a));
}

// h and c of a state that a call writes; c is None for cells that have none.
template <class T> struct NewState {
  py::array h;
  py::object c = py::none();
  NewState(const Shape &shape, const Layout &layout) : h(new_array<T>(state_shape(shape, layout, shape.output()))) {
    if (shape.has_c()) c = new_array<T>(state_shape(shape, layout, shape.hidden));
  }
  T *h_numbers() const { return data<T>(h); }
  T *c_numbers() const { return c.is_none() ? nullptr : data<T>(py::reinterpret_borrow<py::array>(c)); }
  py::object joined() const { return c.is_none() ? py::object(h) : py::object(py::make_tuple(h, c)); }
};

// The byte count of an output, checked before NumPy sees it: an absurd size becomes MemoryError.
template <class T> void check_size(const Layout &layout, size_t width) {
  if (!layout.ragged)
    product(product(std::max<size_t>(layout.steps, 1), std::max<size_t>(layout.rows, 1)), width, sizeof(T));
}

size_t positions_of(const Layout &layout) {
  return layout.ragged ? layout.starts.back() : product(layout.steps, layout.rows);
}

// The masks [L - 1, positions, width] of dropout between layers, by layer.
std::vector<const uint8_t *> mask_pointers(const Shape &shape, const py::object &masks, size_t size) {
  std::vector<const uint8_t *> by_layer;
  if (masks.is_none()) return by_layer;
  const bool flags = py::isinstance<py::array_t<bool>>(masks);
  if (!flags || !(py::reinterpret_borrow<py::array>(masks).flags() & py::array::c_style) ||
      size_t(py::reinterpret_borrow<py::array>(masks).nbytes()) != (shape.layers - 1) * size)
    throw py::value_error("masks: expected a C-contiguous array of " + std::to_string((shape.layers - 1) * size) +
                          " flags, got something else");
  const auto *first = static_cast<const uint8_t *>(py::reinterpret_borrow<py::array>(masks).data());
  for (size_t l = 0; l + 1 < shape.layers; ++l) by_layer.push_back(first + l * size);
  return by_layer;
}

} // namespace

Network::Network(const std::string &cell, size_t input, size_t hidden, size_t proj, size_t layers, bool bidirectional,
                 bool bias, bool batch_first, bool is_double, bool reverse, const std::string &merge,
                 bool learned_state)
    : batch_first_(batch_first), is_double_(is_double) {
  shape_.cell = cell_named(cell);
  if (proj && shape_.cell != Cell::lstm) throw py::value_error("proj_size: expected 0 for this cell, which has none");
  if (!hidden || !layers) throw py::value_error("hidden_size and num_layers: expected at least 1, got 0");
  shape_.input = input;
  shape_.hidden = hidden;
  shape_.proj = proj;
  shape_.layers = layers;
  shape_.directions = bidirectional ? 2 : 1;
  shape_.bias = bias;
  if (bidirectional && reverse) throw py::value_error("reverse: expected False for a bidirectional network, got True");
  shape_.reverse = reverse;
  shape_.merge = merge_named(merge);
  if (shape_.merges() && !bidirectional)
    throw py::value_error("merge: expected 'concat' for a network of one direction, got '" + merge + "'");
  shape_.learned_state = learned_state;
}

py::tuple Network::forward(py::object weights, py::object x, py::object state, py::object lengths, py::object reset,
                           py::object steps, bool ragged, bool keep, long checkpoint, py::object masks,
                           double scale) const {
  return run(weights, x, state, {lengths, reset, steps, ragged}, keep, checkpoint, masks, scale, false);
}

py::tuple Network::forward_layers(py::object weights, py::object x, py::object state, py::object lengths,
                                  py::object reset, py::object steps, bool ragged, bool keep, long checkpoint,
                                  py::object masks, double scale) const {
  return run(weights, x, state, {lengths, reset, steps, ragged}, keep, checkpoint, masks, scale, true);
}

py::tuple Network::run(py::object weights, py::object x, py::object state, const Sequence &sequence, bool keep,
                       long checkpoint, py::object masks, double scale, bool layers) const {
  return is_double_ ? forward_as<double>(weights, x, state, sequence, keep, checkpoint, masks, scale, layers)
                    : forward_as<float>(weights, x, state, sequence, keep, checkpoint, masks, scale, layers);
}

py::tuple Network::infer(py::object weights, py::object x, py::object state, py::object reset, py::object steps) const {
  return run(weights, x, state, {py::none(), reset, steps, false}, false, 0, py::none(), 1.0, false);
}

py::tuple Network::backward(TapeHandle &tape, py::object dy, py::object dstate, bool need_dx,
                            py::object dy_last) const {
  return is_double_ ? backward_as<double>(tape, dy, dstate, need_dx, dy_last, py::none())
                    : backward_as<float>(tape, dy, dstate, need_dx, dy_last, py::none());
}

py::tuple Network::backward_layers(TapeHandle &tape, py::object dy, py::object dstate, bool need_dx, py::object dy_last,
                                   py::object dlayers) const {
  return is_double_ ? backward_as<double>(tape, dy, dstate, need_dx, dy_last, dlayers)
                    : backward_as<float>(tape, dy, dstate, need_dx, dy_last, dlayers);
}

PackedWeights Network::pack(py::object weights) const {
  if (is_double_) return {fastrnn::pack<double>(shape_, weights)};
  return {fastrnn::pack<float>(shape_, weights)};
}

template <class T>
py::tuple Network::forward_as(py::object weights, py::object x, py::object state, const Sequence &sequence, bool keep,
                              long checkpoint, py::object masks, double scale, bool layers) const {
  if (!x.is_none()) x = real_array<T>(sequence.ragged ? "x.values" : "x", x);
  auto [h0, c0] = state_parts(shape_, "state", state);
  Layout layout = layout_of<T>(shape_, batch_first_, x, sequence, h0, c0);
  const size_t width = shape_.width();
  check_size<T>(layout, width); // before lists of all sequences are made, which may take half a minute
  const Batch batch = batch_of(shape_, layout, sequence, x);

  Arrays<T> arrays;
  if (!x.is_none()) arrays.x = read_only(view_of<T>(py::reinterpret_borrow<py::array>(x), layout));
  arrays.h0 = state_numbers<T>(shape_, shape_.has_c() ? "state[0]" : "state", h0, layout, shape_.output());
  arrays.c0 = state_numbers<T>(shape_, "state[1]", c0, layout, shape_.hidden);
  if (shape_.learned_state) use_learned_state(arrays, sequence, weights);
  const py::array y = new_sequence<T>(layout, batch, width);
  const NewState<T> last(shape_, layout);
  arrays.y = view_of<T>(y, layout);
  arrays.h_n = last.h_numbers();
  arrays.c_n = last.c_numbers();
  if (layout.ragged) arrays.starts = layout.starts.data();
  const size_t positions = positions_of(layout);
  if (!masks.is_none()) masks = masks(positions); // drawn now that nothing is wrong with the other arguments
  const std::vector<const uint8_t *> mask_by_layer = mask_pointers(shape_, masks, positions * width);
  if (keep && !mask_by_layer.empty()) arrays.dropout = mask_by_layer.data();
  arrays.dropout_scale = T(scale);
  HiddenLayers<T> hidden;
  if (layers) {
    hidden = new_hidden_layers<T>(shape_, layout, batch);
    arrays.layers = hidden.views.data();
  }

  SharedCall threads;
  threads.choose<T>(shape_, batch, arrays.dropout != nullptr, are_packed(weights), false);
  Execution &how = threads.how;
  const CallWeights<T> use(shape_, weights, how.plan, true, false);
  const Kernels<T> &k = kernels().of<T>();
  TapePointer<T> tape;
  if (keep) {
    const auto root = size_t(std::ceil(std::sqrt(double(batch.steps))));
    tape = std::make_unique<Tape<T>>(batch, checkpoint < 0 ? root : std::min(size_t(checkpoint), batch.steps));
    allocate(*tape, k, shape_, positions, !mask_by_layer.empty());
  }
  without_interpreter([&] {
    return fastrnn::forward(k, shape_, *use.weights, use.pack, keep ? tape->batch : batch, arrays, tape.get(), how);
  });
  if (!keep && !layers) return py::make_tuple(y, last.joined());
  if (!keep) return py::make_tuple(y, last.joined(), hidden.list_with(y));

  // BPTT reads the hidden states from y
  py::detail::array_proxy(y.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  auto handle = std::make_unique<TapeHandle>();
  handle->tape = std::move(tape);
  handle->weights = weights;
  handle->x = x;
  handle->h0 = h0;
  handle->y = y;
  handle->masks = masks;
  handle->shape = shape_;
  handle->layout = layout;
  handle->scale = scale;
  handle->learned_h = arrays.one_h0;
  handle->learned_c = arrays.one_c0;
  py::object kept = py::cast(std::move(handle));
  if (layers) return py::make_tuple(y, last.joined(), kept, hidden.list_with(y));
  return py::make_tuple(y, last.joined(), kept);
}

// The parameters h_0 and c_0 in place of those parts of the state that were not given.
template <class T>
void Network::use_learned_state(Arrays<T> &arrays, const Sequence &sequence, py::handle weights) const {
  if (!sequence.reset.is_none())
    throw py::value_error("reset: expected None for a layer with learned_state=True, got an array: a reset would begin "
                          "at zero and not at the learned state. Run each segment as a sequence of its own");
  const LearnedState<T> first = learned_state_of<T>(shape_, weights);
  arrays.one_h0 = !arrays.h0;
  arrays.one_c0 = !arrays.c0 && first.c;
  if (arrays.one_h0) arrays.h0 = first.h;
  if (arrays.one_c0) arrays.c0 = first.c;
}

template <class T>
py::tuple Network::backward_as(TapeHandle &handle, py::object dy, py::object dstate, bool need_dx, py::object dy_last,
                               py::object dlayers) const {
  if (!(handle.shape == shape_) || (handle.layout.batched && handle.layout.batch_first != batch_first_))
    throw py::value_error("tape: expected a tape of this layer, got one of another network");
  TakenTape<T> tape(handle);
  const Layout &layout = handle.layout;
  const Batch &batch = tape->batch;
  const size_t width = shape_.width();

  Arrays<T> arrays;
  if (!handle.x.is_none()) arrays.x = read_only(view_of<T>(py::reinterpret_borrow<py::array>(handle.x), layout));
  if (!handle.h0.is_none()) arrays.h0 = data<T>(py::reinterpret_borrow<py::array>(handle.h0));
  if (handle.learned_h) arrays.h0 = learned_state_of<T>(shape_, handle.weights).h;
  arrays.one_h0 = handle.learned_h;
  arrays.y = view_of<T>(py::reinterpret_borrow<py::array>(handle.y), layout);
  if (layout.ragged) arrays.starts = layout.starts.data();
  const auto mask_by_layer = mask_pointers(shape_, handle.masks, positions_of(layout) * width);
  if (!mask_by_layer.empty()) arrays.dropout = mask_by_layer.data();
  arrays.dropout_scale = T(handle.scale);

  Gradients<T> g;
  py::array dy_kept;
  if (!dy.is_none() && !dy_last.is_none())
    throw py::value_error("dy_last: expected None where dy is given, got an array");
  if (!dy.is_none()) dy_kept = take_dy<T>(g, dy, layout, width);
  if (!dy_last.is_none()) dy_kept = take_dy_last<T>(g, dy_last, layout, width);
  const std::vector<py::object> dlayers_kept = take_dlayers(g, shape_, dlayers, layout);
  auto [dh, dc] = state_parts(shape_, "dstate", dstate);
  g.dh_n = state_numbers<T>(shape_, shape_.has_c() ? "dstate[0]" : "dstate", dh, layout, shape_.output());
  g.dc_n = state_numbers<T>(shape_, "dstate[1]", dc, layout, shape_.hidden);
  py::object dx = py::none();
  if (arrays.x && need_dx) {
    const py::array a = new_sequence<T>(layout, batch, shape_.input);
    g.dx = view_of<T>(a, layout);
    dx = a;
  }
  const NewState<T> first(shape_, layout);
  g.dh0 = first.h_numbers();
  g.dc0 = first.c_numbers();
  const py::array flat = new_parameter_gradients<T>(g, shape_, bool(arrays.x));

  SharedCall threads;
  threads.choose<T>(shape_, batch, arrays.dropout || !g.dlayers.empty(), are_packed(handle.weights), true);
  Execution &how = threads.how;
  const CallWeights<T> use(shape_, handle.weights, how.plan, tape->segment > 0, true);
  const TapePointer<T> serving = tape.use_up();
  without_interpreter(
      [&] { return fastrnn::backward(kernels().of<T>(), shape_, *use.weights, use.pack, *serving, arrays, g, how); });
  if (shape_.learned_state) {
    const size_t count = shape_.count(),
                 sizes[2] = {count * shape_.output(), first.c.is_none() ? 0 : count * shape_.hidden};
    T *const to = data<T>(flat) + size_t(flat.size()) - sizes[0] - sizes[1];
    add_up_state<T>(to, g.dh0, handle.learned_h, count, layout.rows, shape_.output());
    if (sizes[1]) add_up_state<T>(to + sizes[0], g.dc0, handle.learned_c, count, layout.rows, shape_.hidden);
  }
  handle.x = handle.h0 = handle.y = handle.masks = py::none();
  handle.exchange_weights(py::none());
  return py::make_tuple(dx, first.joined(), flat);
}

void register_network(py::module_ &m) {
  py::class_<PackedWeights>(m, "PackedWeights").def_property_readonly("nbytes", &PackedWeights::bytes);
  // A layer makes a new tuple of its arrays when their numbers change, so the tape's tells whether they have.
  py::class_<TapeHandle>(m, "Tape")
      .def_property_readonly("nbytes", &TapeHandle::bytes)
      .def_property_readonly("weights", &TapeHandle::current_weights);
  py::class_<Network>(m, "Network")
      .def(py::init<const std::string &, size_t, size_t, size_t, size_t, bool, bool, bool, bool, bool,
                    const std::string &, bool>(),
           py::arg("cell"), py::arg("input_size"), py::arg("hidden_size"), py::arg("proj_size"), py::arg("num_layers"),
           py::arg("bidirectional"), py::arg("bias"), py::arg("batch_first"), py::arg("is_double"),
           py::arg("reverse") = false, py::arg("merge") = "concat", py::arg("learned_state") = false)
      .def("forward", &Network::forward)
      .def("forward_layers", &Network::forward_layers)
      .def("infer", &Network::infer)
      .def("backward", &Network::backward, py::arg("tape"), py::arg("dy"), py::arg("dstate"), py::arg("need_dx") = true,
           py::arg("dy_last") = py::none())
      .def("backward_layers", &Network::backward_layers)
      .def("pack", &Network::pack);
}

} // namespace fastrnn
