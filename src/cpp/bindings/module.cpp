// Bindings: check, allocate, release the interpreter, call, return. No arithmetic here.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <variant>

#include "bindings/arrays.hpp"
#include "kernels/dispatch.hpp"
#include "engine/layer.hpp"
#include "engine/stream.hpp"

namespace fastrnn {
namespace {

unsigned long main_thread = 0;
// a forked child has another one where another thread forked
void in_child() { main_thread = PyThread_get_thread_ident(); }

// Asked by the calling thread of a long call, which has released the interpreter.
bool interrupted() {
  const PyGILState_STATE gil = PyGILState_Ensure();
  const bool stop = PyErr_CheckSignals() != 0;
  PyGILState_Release(gil);
  return stop;
}
auto interruption_hook() { return PyThread_get_thread_ident() == main_thread ? &interrupted : nullptr; }

// Runs a pass without the interpreter; KeyboardInterrupt (or what a signal handler raised) comes out of it.
template <class F> void without_interpreter(F &&pass) {
  bool done;
  {
    py::gil_scoped_release release;
    done = pass();
  }
  if (!done) {
    if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    throw py::error_already_set();
  }
}

std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }
// what may stand for the state of an LSTM
bool is_pair(py::handle object) {
  return (PyTuple_Check(object.ptr()) || PyList_Check(object.ptr())) && py::len(object) == 2;
}

template <class T> using PackedPointer = std::shared_ptr<Packed<T>>;

struct PackedWeights {
  std::variant<PackedPointer<float>, PackedPointer<double>> of;
  size_t bytes() const {
    return std::visit([](const auto &p) { return p->bytes(); }, of);
  }
};

struct TapeHandle {
  std::variant<std::unique_ptr<Tape<float>>, std::unique_ptr<Tape<double>>> of;
  py::object weights, x, h0, y, masks; // kept alive; y is what the caller got
  Shape shape;
  Layout layout;
  double scale = 1;
  size_t bytes() const {
    return std::visit([](const auto &t) { return t ? t->bytes() : size_t(0); }, of);
  }
};

// Which steps and rows a call has.
struct Sequence {
  py::object lengths, reset, steps; // None where not given
  bool ragged = false;
};

class Network {
public:
  Network(const std::string &cell, size_t input, size_t hidden, size_t proj, size_t layers, bool bidirectional,
          bool bias, bool batch_first, bool is_double)
      : batch_first_(batch_first), is_double_(is_double) {
    const std::pair<const char *, Cell> names[] = {{"rnn_tanh", Cell::rnn_tanh},
                                                   {"rnn_relu", Cell::rnn_relu},
                                                   {"lstm", Cell::lstm},
                                                   {"gru", Cell::gru},
                                                   {"gru_before", Cell::gru_before}};
    bool found = false;
    for (const auto &[name, value] : names)
      if (cell == name) {
        shape_.cell = value;
        found = true;
      }
    if (!found) throw py::value_error("cell: expected a cell of the core, got '" + cell + "'");
    if (proj && shape_.cell != Cell::lstm) throw py::value_error("proj_size: expected 0 for this cell, which has none");
    shape_.input = input;
    shape_.hidden = hidden;
    shape_.proj = proj;
    shape_.layers = layers;
    shape_.directions = bidirectional ? 2 : 1;
    shape_.bias = bias;
  }

  py::tuple forward(py::object weights, py::object x, py::object state, py::object lengths, py::object reset,
                    py::object steps, bool ragged, bool keep, long checkpoint, py::object masks, double scale) const {
    const Sequence sequence{lengths, reset, steps, ragged};
    return is_double_ ? forward_as<double>(weights, x, state, sequence, keep, checkpoint, masks, scale)
                      : forward_as<float>(weights, x, state, sequence, keep, checkpoint, masks, scale);
  }
  // The same without what most calls leave away: arguments are a good part of a call of one step.
  py::tuple infer(py::object weights, py::object x, py::object state, py::object reset, py::object steps) const {
    return forward(weights, x, state, py::none(), reset, steps, false, false, 0, py::none(), 1.0);
  }
  py::tuple backward(TapeHandle &tape, py::object dy, py::object dstate) const {
    return is_double_ ? backward_as<double>(tape, dy, dstate) : backward_as<float>(tape, dy, dstate);
  }
  PackedWeights pack(py::object weights) const {
    if (is_double_) return {pack_as<double>(weights)};
    return {pack_as<float>(weights)};
  }

  const Shape &shape() const { return shape_; }
  bool is_double() const { return is_double_; }

private:
  // f(direction of a layer, which of its parameters, numbers) for all there are, in the order of a layer's arrays.
  template <class T, class F> void each_parameter(F &&f) const {
    typedef Parameters<T> P;
    const size_t GH = shape_.gates() * shape_.hidden;
    for (size_t i = 0; i < shape_.count(); ++i) {
      f(i, &P::w_ih, GH * shape_.layer_input(i / shape_.directions));
      f(i, &P::w_hh, GH * shape_.output());
      if (shape_.bias) f(i, &P::b_ih, GH);
      if (shape_.bias) f(i, &P::b_hh, GH);
      if (shape_.proj) f(i, &P::w_hr, shape_.proj * shape_.hidden);
    }
  }
  template <class T> std::vector<Parameters<const T>> parameters(py::handle weights) const {
    const py::tuple arrays = py::cast<py::tuple>(weights);
    std::vector<Parameters<const T>> all(shape_.count());
    size_t at = 0;
    each_parameter<const T>([&](size_t i, auto which, size_t) {
      all[i].*which = static_cast<const T *>(py::reinterpret_borrow<py::array>(arrays[at++]).data());
    });
    return all;
  }

  template <class T> PackedPointer<T> pack_as(py::handle weights) const {
    auto packed = std::make_shared<Packed<T>>(kernels().of<T>(), shape_, parameters<T>(weights), true, true);
    without_interpreter([&] {
      const FlushSubnormals mode; // as in a call, which packs what is not frozen
      packed->pack({nullptr, 0, 0, 1});
      return true;
    });
    return packed;
  }

  // Weights are the layer's arrays in a tuple, or packed.
  static bool are_frozen(py::handle weights) { return !PyTuple_Check(weights.ptr()); }
  // Frozen weights as they are; else a fresh set that the call packs for itself.
  template <class T>
  PackedPointer<T> weights_of(py::handle weights, const Plan &plan, bool forward, bool backward, bool &pack) const {
    pack = !are_frozen(weights);
    if (!pack) return std::get<PackedPointer<T>>(py::cast<const PackedWeights &>(weights).of);
    return std::make_shared<Packed<T>>(kernels().of<T>(), shape_, parameters<T>(weights), forward, backward,
                                       plan.in_pieces, plan.w_in_pieces);
  }

  template <class T> Execution execution(const Batch &batch, bool dropout, py::handle weights, bool backward) const {
    Problem p;
    p.cell = shape_.cell;
    p.total = batch.total();
    p.steps = batch.steps;
    p.rows = batch.rows;
    p.input = shape_.layers > 1 ? std::max(shape_.input, shape_.layer_input(1)) : shape_.input;
    p.hidden = shape_.hidden;
    p.recurrent = shape_.output();
    p.number = sizeof(T);
    p.gates = shape_.gates();
    p.threads = num_threads();
    p.l2 = caches().l2;
    p.layers = shape_.layers;
    p.directions = shape_.directions;
    p.dropout = dropout;
    p.backward = backward;
    p.packed = are_frozen(weights);
    p.one_product = shape_.one_product();
    p.panels = kernels().of<T>().gate_panels(shape_.step_gates(), p.hidden);
    Plan plan = schedule(p);
    if (shares_are_shuffled()) plan.paced = plan.has_shares(); // for tests
    return {plan, p.l2, interruption_hook()};
  }

  // Sizes from x, or, without input, from the state, the lengths and `steps`.
  template <class T>
  Layout layout_of(const py::object &x, const Sequence &sequence, py::handle h0, py::handle c0) const {
    Layout layout;
    layout.batch_first = batch_first_;
    const auto width = [&] { return std::to_string(shape_.input); };
    if (x.is_none()) {
      if (sequence.steps.is_none())
        throw py::value_error("steps: expected a number of steps where x is None, got None");
      const long long steps = py::cast<long long>(sequence.steps);
      if (steps < 0) throw py::value_error("steps: expected at least 0, got " + std::to_string(steps));
      layout.steps = size_t(steps);
      layout.rows = 1;
      if (!h0.is_none() || !c0.is_none()) {
        const char *const name = h0.is_none() ? "c0" : "h0";
        const py::array a = real_array<T>(name, h0.is_none() ? c0 : h0);
        const size_t width = h0.is_none() ? shape_.hidden : shape_.output();
        if (a.ndim() == 2)
          layout.batched = false;
        else if (a.ndim() == 3)
          layout.rows = size_t(a.shape(1));
        else
          wrong_shape(name, "(" + std::to_string(shape_.count()) + ", B, " + std::to_string(width) + ")", a);
      } else if (!sequence.lengths.is_none()) {
        if (!py::hasattr(sequence.lengths, "__len__"))
          throw py::type_error("lengths: expected an array of integers, got " + type_name(sequence.lengths));
        layout.rows = py::len(sequence.lengths);
      }
      return layout;
    }
    const py::array a = py::reinterpret_borrow<py::array>(x);
    const auto size = [&](size_t axis) { return size_t(a.shape(py::ssize_t(axis))); };
    if (!sequence.steps.is_none())
      throw py::value_error("steps: expected None where x is given, got " + std::string(py::str(sequence.steps)));
    if (sequence.ragged) {
      if (a.ndim() != 2 || size(1) != shape_.input) wrong_shape("x.values", "(total, " + width() + ")", a);
      layout.ragged = true;
      return layout;
    }
    if ((a.ndim() != 2 && a.ndim() != 3) || size(size_t(a.ndim()) - 1) != shape_.input)
      wrong_shape("x", (batch_first_ ? "(B, T, " : "(T, B, ") + width() + ") or (T, " + width() + ")", a);
    layout.batched = a.ndim() == 3;
    layout.steps = size(layout.time_axis());
    layout.rows = layout.batched ? size(1 - layout.time_axis()) : 1;
    return layout;
  }

  // lengths and reset, checked by Python where they are given
  Batch batch_of(Layout &layout, const Sequence &sequence, const py::object &x) const {
    const auto checks = [] { return py::module_::import("fastrnn._arrays"); };
    py::object lengths;
    const int64_t *length = nullptr;
    if (layout.ragged && sequence.lengths.is_none()) // an attribute of Ragged, which can be assigned
      throw py::type_error("x.lengths: expected an array of integers, got None");
    if (!sequence.lengths.is_none()) {
      if (!layout.batched) throw py::value_error("lengths: expected None for an unbatched sequence, got an array");
      if (layout.ragged) {
        // Ragged has checked them, but its attributes can be assigned and its arrays changed
        const size_t total = size_t(py::reinterpret_borrow<py::array>(x).shape(0));
        layout.rows = py::len(sequence.lengths);
        lengths = checks().attr("as_lengths")(sequence.lengths, layout.rows, total, "x.lengths");
        const auto *row_lengths = data<const int64_t>(py::reinterpret_borrow<py::array>(lengths));
        layout.starts.assign(layout.rows + 1, 0);
        for (size_t b = 0; b < layout.rows; ++b) {
          const size_t n = size_t(row_lengths[b]);
          if (n > total - layout.starts[b])
            throw py::value_error("x.lengths: expected a sum of " + std::to_string(total) + ", got more");
          layout.starts[b + 1] = layout.starts[b] + n;
          layout.steps = std::max(layout.steps, n);
        }
        if (layout.starts.back() != total)
          throw py::value_error("x.lengths: expected a sum of " + std::to_string(total) + ", got " +
                                std::to_string(layout.starts.back()));
      } else {
        lengths = checks().attr("as_lengths")(sequence.lengths, layout.rows, layout.steps);
      }
      length = data<int64_t>(py::reinterpret_borrow<py::array>(lengths));
    }
    Batch batch(layout.steps, layout.rows, length);
    if (!sequence.reset.is_none()) {
      const Sizes shape = layout.shape(0);
      py::list expected; // as x, without its last axis
      for (size_t i = 0; i + 1 < shape.size(); ++i) expected.append(shape[i]);
      const py::array flags = checks().attr("as_reset")(sequence.reset, expected);
      const bool *flag = static_cast<const bool *>(flags.data());
      const size_t time = !layout.ragged && layout.batched && !layout.batch_first ? layout.rows : 1;
      const size_t row = layout.batch_first ? layout.steps : 1;
      batch.set_reset(
          [&](size_t t, size_t b) {
            return layout.ragged ? flag[layout.starts[b] + t] : flag[t * time + (layout.batched ? b * row : 0)];
          },
          int(shape_.directions));
    }
    return batch;
  }

  Sizes state_shape(const Layout &layout, size_t width) const {
    if (layout.batched) return {shape_.count(), layout.rows, width};
    return {shape_.count(), width};
  }

  // (h, c) of an LSTM, h of the others; None entries stay None
  std::pair<py::object, py::object> state_parts(const char *name, py::handle state) const {
    if (state.is_none()) return {py::none(), py::none()};
    if (!shape_.has_c()) return {py::reinterpret_borrow<py::object>(state), py::none()};
    if (!is_pair(state)) throw py::type_error(std::string(name) + ": expected a pair (h, c), got " + type_name(state));
    const py::sequence pair = py::reinterpret_borrow<py::sequence>(state);
    return {pair[0], pair[1]};
  }
  template <class T>
  const T *state_array_of(const char *name, py::object &a, const Layout &layout, size_t width) const {
    if (a.is_none()) return nullptr;
    a = state_array<T>(name, a, state_shape(layout, width));
    return data<T>(py::reinterpret_borrow<py::array>(a));
  }

  template <class T>
  py::tuple forward_as(py::object weights, py::object x, py::object state, const Sequence &sequence, bool keep,
                       long checkpoint, py::object masks, double scale) const {
    const Kernels<T> &k = kernels().of<T>();
    if (!x.is_none()) x = real_array<T>(sequence.ragged ? "x.values" : "x", x);
    auto [h0, c0] = state_parts("state", state);
    Layout layout = layout_of<T>(x, sequence, h0, c0);
    const size_t width = product(shape_.directions, shape_.output());
    checked_size<T>(layout, width); // first: lists of 2**29 rows take half a minute
    const Batch batch = batch_of(layout, sequence, x);

    Arrays<T> arrays;
    if (!x.is_none()) arrays.x = read_only(view_of<T>(py::reinterpret_borrow<py::array>(x), layout));
    arrays.h0 = state_array_of<T>("h0", h0, layout, shape_.output());
    arrays.c0 = state_array_of<T>("c0", c0, layout, shape_.hidden);
    py::array y = fresh<T>(layout.shape(width));
    if (!batch.uniform || batch.steps < layout.steps) std::memset(data<T>(y), 0, size_t(y.nbytes()));
    py::array h_n = fresh<T>(state_shape(layout, shape_.output()));
    py::object c_n = py::none();
    arrays.y = view_of<T>(y, layout);
    arrays.h_n = data<T>(h_n);
    if (shape_.has_c()) {
      c_n = fresh<T>(state_shape(layout, shape_.hidden));
      arrays.c_n = data<T>(py::reinterpret_borrow<py::array>(c_n));
    }
    if (layout.ragged) arrays.starts = layout.starts.data();
    const size_t positions = layout.ragged ? layout.starts.back() : product(layout.steps, layout.rows);
    if (!masks.is_none()) masks = masks(positions); // drawn now that nothing is wrong with the other arguments
    std::vector<const uint8_t *> mask_rows = mask_pointers(masks, positions * width);
    if (!mask_rows.empty()) arrays.dropout = mask_rows.data();
    arrays.dropout_scale = T(scale);

    const Execution how = execution<T>(batch, !mask_rows.empty(), weights, false);
    bool pack;
    const PackedPointer<T> packed = weights_of<T>(weights, how.plan, true, false, pack);
    std::unique_ptr<Tape<T>> tape;
    if (keep) {
      const auto root = size_t(std::ceil(std::sqrt(double(batch.steps))));
      tape = std::make_unique<Tape<T>>(batch, checkpoint < 0 ? root : std::min(size_t(checkpoint), batch.steps));
      allocate(*tape, k, shape_, positions, !mask_rows.empty());
    }
    without_interpreter([&] {
      return fastrnn::forward(k, shape_, *packed, pack, keep ? tape->batch : batch, arrays, tape.get(), how);
    });

    const py::object state_n = shape_.has_c() ? py::object(py::make_tuple(h_n, c_n)) : py::object(h_n);
    if (!keep) return py::make_tuple(y, state_n);
    // BPTT reads the hidden states from y
    py::detail::array_proxy(y.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    auto handle = std::make_unique<TapeHandle>();
    handle->of = std::move(tape);
    handle->weights = weights;
    handle->x = x;
    handle->h0 = h0;
    handle->y = y;
    handle->masks = masks;
    handle->shape = shape_;
    handle->layout = layout;
    handle->scale = scale;
    return py::make_tuple(y, state_n, py::cast(std::move(handle)));
  }

  // A tape in use: another backward, from another thread or from within the conversion of this one's arguments, finds
  // none. It goes back where the call fails before it has changed anything.
  template <class T> struct Taken {
    std::unique_ptr<Tape<T>> &home, tape;
    explicit Taken(std::unique_ptr<Tape<T>> &from) : home(from), tape(std::move(from)) {}
    ~Taken() {
      if (tape) home = std::move(tape);
    }
  };

  template <class T> py::tuple backward_as(TapeHandle &handle, py::object dy, py::object dstate) const {
    const Kernels<T> &k = kernels().of<T>();
    if (!std::holds_alternative<std::unique_ptr<Tape<T>>>(handle.of))
      throw py::type_error("tape: expected a tape of this layer, got one of another dtype");
    auto &tape = std::get<std::unique_ptr<Tape<T>>>(handle.of);
    if (!tape) throw py::value_error("tape: expected a fresh tape, got one that already served a backward");
    if (!(handle.shape == shape_) || (handle.layout.batched && handle.layout.batch_first != batch_first_))
      throw py::value_error("tape: expected a tape of this layer, got one of another network");
    Taken<T> taken(tape);
    const Layout &layout = handle.layout;
    const Batch &batch = taken.tape->batch;
    const size_t width = shape_.directions * shape_.output();

    Arrays<T> arrays;
    if (!handle.x.is_none()) arrays.x = read_only(view_of<T>(py::reinterpret_borrow<py::array>(handle.x), layout));
    if (!handle.h0.is_none()) arrays.h0 = data<T>(py::reinterpret_borrow<py::array>(handle.h0));
    arrays.y = view_of<T>(py::reinterpret_borrow<py::array>(handle.y), layout);
    if (layout.ragged) arrays.starts = layout.starts.data();
    const size_t positions = layout.ragged ? layout.starts.back() : layout.steps * layout.rows;
    std::vector<const uint8_t *> mask_rows = mask_pointers(handle.masks, positions * width);
    if (!mask_rows.empty()) arrays.dropout = mask_rows.data();
    arrays.dropout_scale = T(handle.scale);

    Gradients<T> g;
    py::array dy_kept;
    if (!dy.is_none()) {
      dy_kept = real_array<T>("dy", dy);
      const Sizes whole = layout.shape(width);
      const Sizes last = layout.batched ? Sizes{layout.rows, width} : Sizes{width};
      const Sizes got(dy_kept.shape(), dy_kept.shape() + dy_kept.ndim());
      if (got == whole) {
        g.dy = read_only(view_of<T>(dy_kept, layout));
      } else if (got == last) {
        dy_kept = state_array<T>("dy", dy_kept, last);
        g.dy_last = data<T>(dy_kept);
      } else {
        wrong_shape("dy", shape_text(whole) + " or, for the last step only, " + shape_text(last), dy_kept);
      }
    }
    auto [dh, dc] = state_parts("dstate", dstate);
    g.dh_n = state_array_of<T>(shape_.has_c() ? "dstate[0]" : "dstate", dh, layout, shape_.output());
    g.dc_n = state_array_of<T>("dstate[1]", dc, layout, shape_.hidden);

    py::object dx = py::none();
    if (arrays.x) {
      py::array a = fresh<T>(layout.shape(shape_.input));
      if (!batch.uniform || batch.steps < layout.steps) std::memset(data<T>(a), 0, size_t(a.nbytes()));
      g.dx = view_of<T>(a, layout);
      dx = a;
    }
    py::array dh0 = fresh<T>(state_shape(layout, shape_.output()));
    py::object dc0 = py::none();
    g.dh0 = data<T>(dh0);
    if (shape_.has_c()) {
      dc0 = fresh<T>(state_shape(layout, shape_.hidden));
      g.dc0 = data<T>(py::reinterpret_borrow<py::array>(dc0));
    }
    size_t numbers = 0;
    each_parameter<T>([&](size_t, auto, size_t n) { numbers += n; });
    py::array flat = fresh<T>({numbers});
    g.parameters.resize(shape_.count());
    T *next = data<T>(flat);
    each_parameter<T>([&](size_t i, auto which, size_t n) {
      g.parameters[i].*which = next;
      next += n;
    });
    for (size_t d = 0; d < shape_.directions && !arrays.x; ++d)
      std::memset(g.parameters[d].w_ih, 0, shape_.gates() * shape_.hidden * shape_.input * sizeof(T));

    const Execution how = execution<T>(batch, !mask_rows.empty(), handle.weights, true);
    bool pack;
    const PackedPointer<T> packed = weights_of<T>(handle.weights, how.plan, taken.tape->segment > 0, true, pack);
    // From here on it does not go back, an interruption or not: BPTT changes its memory.
    const std::unique_ptr<Tape<T>> serving = std::move(taken.tape);
    without_interpreter([&] { return fastrnn::backward(k, shape_, *packed, pack, *serving, arrays, g, how); });
    handle.x = handle.h0 = handle.y = handle.masks = handle.weights = py::none();
    const py::object dstate0 = shape_.has_c() ? py::object(py::make_tuple(dh0, dc0)) : py::object(dh0);
    return py::make_tuple(dx, dstate0, flat);
  }

  // the byte count of an output, checked before NumPy sees it: MemoryError rather than a surprise
  template <class T> static void checked_size(const Layout &layout, size_t width) {
    if (!layout.ragged)
      product(product(std::max<size_t>(layout.steps, 1), std::max<size_t>(layout.rows, 1)), width, sizeof(T));
  }

  std::vector<const uint8_t *> mask_pointers(const py::object &masks, size_t size) const {
    std::vector<const uint8_t *> rows;
    if (masks.is_none()) return rows;
    const py::array a = py::reinterpret_borrow<py::array>(masks); // [L - 1, positions, width], made by the layer
    if (size_t(a.nbytes()) != (shape_.layers - 1) * size)
      throw py::value_error("masks: expected " + std::to_string((shape_.layers - 1) * size) + " flags, got " +
                            std::to_string(a.nbytes()));
    for (size_t l = 0; l + 1 < shape_.layers; ++l) rows.push_back(static_cast<const uint8_t *>(a.data()) + l * size);
    return rows;
  }

  Shape shape_;
  bool batch_first_, is_double_;
};

// One step at a time; see stream.hpp. Arrays are [B, I] and [B, output], or [I] and [output] for one row.
class StreamHandle {
public:
  StreamHandle(const Network &network, const PackedWeights &weights, size_t rows)
      : shape_(network.shape()), rows_(rows) {
    if (network.is_double())
      of_ = std::make_unique<Stream<double>>(kernels().f64, shape_, std::get<PackedPointer<double>>(weights.of), rows);
    else
      of_ = std::make_unique<Stream<float>>(kernels().f32, shape_, std::get<PackedPointer<float>>(weights.of), rows);
  }

  py::object step(py::handle x, py::handle out) {
    return std::visit([&](auto &stream) { return step_as(*stream, x, out); }, of_);
  }
  py::object state() const {
    return std::visit([&](const auto &stream) { return state_as(*stream); }, of_);
  }
  void set_state(py::handle state) {
    std::visit([&](auto &stream) { set_state_as(*stream, state); }, of_);
  }
  void reset(py::handle rows) {
    std::visit(
        [&](auto &stream) {
          if (rows.is_none()) return stream->reset();
          const py::array which = py::module_::import("fastrnn._arrays").attr("as_rows")(rows, rows_);
          for (py::ssize_t i = 0; i < which.shape(0); ++i)
            stream->reset_row(size_t(static_cast<const int64_t *>(which.data())[i]));
        },
        of_);
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
      out = flat ? fresh<T>(shape + 1, 1) : fresh<T>(shape, 2);
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
    py::array h = fresh<T>({shape_.layers, rows_, shape_.output()});
    if (!shape_.has_c()) {
      stream.get_state(data<T>(h), nullptr);
      return h;
    }
    py::array c = fresh<T>({shape_.layers, rows_, shape_.hidden});
    stream.get_state(data<T>(h), data<T>(c));
    return py::make_tuple(h, c);
  }

  template <class T> void set_state_as(Stream<T> &stream, py::handle state) {
    py::object h = py::reinterpret_borrow<py::object>(state), c = py::none();
    if (shape_.has_c()) {
      if (!is_pair(state)) throw py::type_error("state: expected a pair (h, c), got " + type_name(state));
      const py::sequence pair = py::reinterpret_borrow<py::sequence>(state);
      h = pair[0];
      c = state_array<T>("c", pair[1], {shape_.layers, rows_, shape_.hidden});
    }
    h = state_array<T>("h", h, {shape_.layers, rows_, shape_.output()});
    stream.set_state(data<T>(py::reinterpret_borrow<py::array>(h)),
                     c.is_none() ? nullptr : data<T>(py::reinterpret_borrow<py::array>(c)));
  }

  const Shape shape_;
  const size_t rows_;
  std::variant<std::unique_ptr<Stream<float>>, std::unique_ptr<Stream<double>>> of_;
};

py::dict config() {
  py::dict d;
  d["kernel_set"] = kernels().name;
  py::list available;
  for (const auto &name : available_kernel_sets()) available.append(name);
  d["available_kernel_sets"] = available;
  d["threads"] = num_threads();
  d["compiler"] = FASTRNN_COMPILER;
  d["cache_bytes"] = py::dict(py::arg("L1") = caches().l1, py::arg("L2") = caches().l2, py::arg("L3") = caches().l3);
  return d;
}

// seconds of the fastest of some runs
template <class F> double fastest(F &&run) {
  double best = 1e30;
  for (int i = 0; i < 12; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// What one core of this machine can do, measured through the project's own registers: GFLOP/s and GB/s.
py::dict measure_limits() {
  py::dict peak, read;
  py::gil_scoped_release release;
  const size_t rounds = 1 << 18;
  double flops = 0;
  const double f32 = fastest([&] { flops = kernels().f32.peak(rounds); }), f32_gflops = flops / f32 * 1e-9;
  const double f64 = fastest([&] { flops = kernels().f64.peak(rounds); }), f64_gflops = flops / f64 * 1e-9;
  const std::pair<const char *, size_t> levels[] = {{"L1", caches().l1 / 2},
                                                    {"L2", caches().l2 / 2},
                                                    {"L3", std::min(caches().l3 / 2, caches().l2 * 8)},
                                                    {"DRAM", caches().l3 * 4}};
  std::vector<double> rates;
  for (const auto &[name, bytes] : levels) {
    (void)name;
    Buffer<float> memory = Buffer<float>::zeroed(bytes / sizeof(float));
    const size_t rounds_of = std::max<size_t>((size_t(1) << 24) / bytes, 1);
    volatile float sink = 0;
    const double t = fastest([&] { sink = kernels().f32.read(memory.get(), memory.size(), rounds_of); });
    rates.push_back(double(bytes) * double(rounds_of) / t * 1e-9);
  }
  py::gil_scoped_acquire acquire;
  peak["float32"] = f32_gflops;
  peak["float64"] = f64_gflops;
  for (size_t i = 0; i < rates.size(); ++i) read[levels[i].first] = rates[i];
  return py::dict(py::arg("fma_gflops") = peak, py::arg("read_gbs") = read,
                  py::arg("cache_bytes") = config()["cache_bytes"]);
}

// A loop of nothing but fma on so many threads at once, and how many operations they did: a call to be timed beside
// others, since two cores of a virtual machine are not always two.
double run_fma(bool is_double, int threads, size_t rounds) {
  const py::gil_scoped_release release;
  double flops = 0;
  parallel(std::max(threads, 1), [&](int rank, int of) {
    const double own = is_double ? kernels().f64.peak(rounds) : kernels().f32.peak(rounds);
    if (rank == 0) flops = own * of;
  });
  return flops;
}

// Two threads hand a number to and fro; how often they did (none where there is but one). What a cache line takes from
// one core to another and back changes on a virtual machine with where its cores happen to run.
unsigned exchange_lines(unsigned rounds) {
  const py::gil_scoped_release release;
  struct alignas(64) Line {
    std::atomic<unsigned> number{0};
  } there, back;
  const auto await = [](const Line &line, unsigned number) {
    for (unsigned spins = 0; line.number.load(std::memory_order_acquire) != number; ++spins)
      spins < 2000 ? cpu_relax() : yield_thread();
  };
  unsigned done = 0;
  parallel(2, [&](int rank, int of) {
    for (unsigned i = 1; of == 2 && i <= rounds; ++i) {
      if (rank == 1) await(there, i);
      (rank ? back : there).number.store(i, std::memory_order_release);
      if (rank == 0) await(back, done = i);
    }
  });
  return done;
}

template <class T> py::array elementwise(const py::array &a, void (*f)(T *, const T *, size_t)) {
  const py::array_t<T, py::array::c_style | py::array::forcecast> in(a);
  py::array out(py::dtype::of<T>(), std::vector<py::ssize_t>(in.shape(), in.shape() + in.ndim()));
  const FlushSubnormals mode;
  f(data<T>(out), data<T>(in), size_t(in.size()));
  return out;
}

} // namespace
} // namespace fastrnn

PYBIND11_MODULE(_core, m) {
  using namespace fastrnn;
  kernels(); // an unknown FASTRNN_ISA is an error of the import
  main_thread = py::cast<unsigned long>(py::module_::import("threading").attr("main_thread")().attr("ident"));
  pthread_atfork(nullptr, nullptr, in_child);

  py::class_<PackedWeights>(m, "PackedWeights").def_property_readonly("nbytes", &PackedWeights::bytes);
  py::class_<TapeHandle>(m, "Tape").def_property_readonly("nbytes", &TapeHandle::bytes);
  py::class_<Network>(m, "Network")
      .def(py::init<const std::string &, size_t, size_t, size_t, size_t, bool, bool, bool, bool>())
      .def("forward", &Network::forward)
      .def("infer", &Network::infer)
      .def("backward", &Network::backward)
      .def("pack", &Network::pack);
  py::class_<StreamHandle>(m, "Stream")
      .def(py::init<const Network &, const PackedWeights &, size_t>())
      .def("step", &StreamHandle::step, py::arg("x"), py::arg("out") = py::none())
      .def_property("state", &StreamHandle::state, &StreamHandle::set_state)
      .def("reset", &StreamHandle::reset, py::arg("rows") = py::none());
  m.def("config", &config);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads);
  m.def("measure_limits", &measure_limits);
  m.def("shuffle_shares", &shuffle_shares, py::arg("seed")); // for tests
  m.def("run_fma", &run_fma, py::arg("is_double"), py::arg("threads"), py::arg("rounds"));
  m.def("exchange_lines", &exchange_lines, py::arg("rounds"));
  m.def(
      "schedule",
      [](const std::string &cell, size_t total, size_t steps, size_t rows, size_t input, size_t hidden,
         size_t recurrent, size_t number, size_t gates, int threads, size_t l2, size_t layers, size_t directions,
         bool packed, size_t panels, bool backward) {
        Problem p;
        p.cell = cell == "gru_before" ? Cell::gru_before : Cell::lstm;
        p.total = total;
        p.steps = steps;
        p.rows = rows;
        p.input = input;
        p.hidden = hidden;
        p.recurrent = recurrent;
        p.number = number;
        p.gates = gates;
        p.threads = threads;
        p.l2 = l2;
        p.layers = layers;
        p.directions = directions;
        p.packed = packed;
        p.one_product = p.cell != Cell::gru_before;
        p.panels = panels;
        p.backward = backward;
        const Plan plan = schedule(p);
        const char *const split[] = {"rows", "units", "tasks", "apart"};
        return py::make_tuple(plan.threads, split[int(plan.split)], plan.fuse_input, plan.in_pieces, plan.w_in_pieces,
                              plan.paced);
      },
      py::arg("cell"), py::arg("total"), py::arg("steps"), py::arg("rows"), py::arg("input"), py::arg("hidden"),
      py::arg("recurrent"), py::arg("number"), py::arg("gates"), py::arg("threads"), py::arg("l2"),
      py::arg("layers") = 1, py::arg("directions") = 1, py::arg("packed") = false, py::arg("panels") = 8,
      py::arg("backward") = false);
  m.def("tanh", [](const py::array &a) {
    return a.itemsize() == 8 ? elementwise<double>(a, kernels().f64.tanh) : elementwise<float>(a, kernels().f32.tanh);
  });
  m.def("sigmoid", [](const py::array &a) {
    return a.itemsize() == 8 ? elementwise<double>(a, kernels().f64.sigmoid)
                             : elementwise<float>(a, kernels().f32.sigmoid);
  });
}
