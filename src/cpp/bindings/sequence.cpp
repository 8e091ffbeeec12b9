#include "bindings/sequence.hpp"

namespace fastrnn {

namespace {

py::module_ checks() { return py::module_::import("fastrnn._arrays"); }

// Without input: one sequence of `steps` steps, or as many as the state or the lengths have.
template <class T>
Layout layout_without_input(const Shape &shape, const Sequence &sequence, py::handle h0, py::handle c0) {
  Layout layout;
  if (sequence.steps.is_none()) throw py::value_error("steps: expected a number of steps where x is None, got None");
  const long long steps = py::cast<long long>(sequence.steps);
  if (steps < 0) throw py::value_error("steps: expected at least 0, got " + std::to_string(steps));
  layout.steps = size_t(steps);
  layout.rows = 1;
  if (!h0.is_none() || !c0.is_none()) {
    const char *const name = h0.is_none() ? "state[1]" : shape.has_c() ? "state[0]" : "state";
    const py::array a = real_array<T>(name, h0.is_none() ? c0 : h0);
    const size_t width = h0.is_none() ? shape.hidden : shape.output();
    if (a.ndim() == 2)
      layout.batched = false;
    else if (a.ndim() == 3)
      layout.rows = size_t(a.shape(1));
    else
      wrong_shape(name, "(" + std::to_string(shape.count()) + ", B, " + std::to_string(width) + ")", a);
  } else if (!sequence.lengths.is_none()) {
    if (!py::hasattr(sequence.lengths, "__len__"))
      throw py::type_error("lengths: expected an array of integers, got " + type_name(sequence.lengths));
    layout.rows = py::len(sequence.lengths);
  }
  return layout;
}

// Reads the lengths of a Ragged, whose attributes can be assigned and whose arrays can be changed, into a copy that
// nobody else can change, and checks that.
std::vector<int64_t> ragged_lengths(Layout &layout, const py::object &lengths, size_t total) {
  layout.rows = py::len(lengths);
  const py::array checked = checks().attr("as_lengths")(lengths, layout.rows, total, "x.lengths");
  const auto *first = data<const int64_t>(checked);
  std::vector<int64_t> copy(first, first + layout.rows);
  layout.starts.assign(layout.rows + 1, 0);
  for (size_t b = 0; b < layout.rows; ++b) {
    if (copy[b] < 0 || size_t(copy[b]) > total - layout.starts[b])
      throw py::value_error("x.lengths: expected a sum of " + std::to_string(total) + ", got more");
    layout.starts[b + 1] = layout.starts[b] + size_t(copy[b]);
    layout.steps = std::max(layout.steps, size_t(copy[b]));
  }
  if (layout.starts.back() != total)
    throw py::value_error("x.lengths: expected a sum of " + std::to_string(total) + ", got " +
                          std::to_string(layout.starts.back()));
  return copy;
}

// Reads the lengths of a padded batch into a copy of its own; another thread may write to the caller's array.
std::vector<int64_t> padded_lengths(const Layout &layout, const py::object &lengths) {
  const py::array checked = checks().attr("as_lengths")(lengths, layout.rows, layout.steps);
  const auto *first = data<const int64_t>(checked);
  std::vector<int64_t> copy(first, first + layout.rows);
  for (const int64_t n : copy)
    if (n < 0 || size_t(n) > layout.steps)
      throw py::value_error("lengths: expected values from 0 to " + std::to_string(layout.steps) + ", got " +
                            std::to_string(n));
  return copy;
}

} // namespace

std::string type_name(py::handle object) { return py::str(py::type::of(object).attr("__name__")); }

bool is_pair(py::handle object) {
  return (PyTuple_Check(object.ptr()) || PyList_Check(object.ptr())) && py::len(object) == 2;
}

template <class T>
Layout layout_of(const Shape &shape, bool batch_first, const py::object &x, const Sequence &sequence, py::handle h0,
                 py::handle c0) {
  if (x.is_none()) {
    Layout layout = layout_without_input<T>(shape, sequence, h0, c0);
    layout.batch_first = batch_first;
    return layout;
  }
  Layout layout;
  layout.batch_first = batch_first;
  const py::array a = py::reinterpret_borrow<py::array>(x);
  const auto size = [&](size_t axis) { return size_t(a.shape(py::ssize_t(axis))); };
  const auto width = [&] { return std::to_string(shape.input); };
  if (!sequence.steps.is_none())
    throw py::value_error("steps: expected None where x is given, got " + std::string(py::str(sequence.steps)));
  if (sequence.ragged) {
    if (a.ndim() != 2 || size(1) != shape.input) wrong_shape("x.values", "(total, " + width() + ")", a);
    layout.ragged = true;
    return layout;
  }
  if ((a.ndim() != 2 && a.ndim() != 3) || size(size_t(a.ndim()) - 1) != shape.input)
    wrong_shape("x", (batch_first ? "(B, T, " : "(T, B, ") + width() + ") or (T, " + width() + ")", a);
  layout.batched = a.ndim() == 3;
  layout.steps = size(layout.time_axis());
  layout.rows = layout.batched ? size(1 - layout.time_axis()) : 1;
  return layout;
}

Batch batch_of(const Shape &shape, Layout &layout, const Sequence &sequence, const py::object &x) {
  std::vector<int64_t> lengths;
  const bool given = !sequence.lengths.is_none();
  if (layout.ragged && !given) // an attribute of Ragged, which can be assigned
    throw py::type_error("x.lengths: expected an array of integers, got None");
  if (given) {
    if (!layout.batched) throw py::value_error("lengths: expected None for an unbatched sequence, got an array");
    if (layout.ragged)
      lengths = ragged_lengths(layout, sequence.lengths, size_t(py::reinterpret_borrow<py::array>(x).shape(0)));
    else
      lengths = padded_lengths(layout, sequence.lengths);
  }
  Batch batch(layout.steps, layout.rows, given ? lengths.data() : nullptr);
  if (!sequence.reset.is_none()) {
    const Sizes sizes = layout.shape(0);
    py::list expected; // as x, without its last axis
    for (size_t i = 0; i + 1 < sizes.size(); ++i) expected.append(sizes[i]);
    const py::array flags = checks().attr("as_reset")(sequence.reset, expected);
    const bool *flag = static_cast<const bool *>(flags.data());
    const size_t time = !layout.ragged && layout.batched && !layout.batch_first ? layout.rows : 1;
    const size_t row = layout.batch_first ? layout.steps : 1;
    batch.set_reset(
        [&](size_t t, size_t b) {
          return layout.ragged ? flag[layout.starts[b] + t] : flag[t * time + (layout.batched ? b * row : 0)];
        },
        int(shape.directions), shape.reverse);
  }
  return batch;
}

template Layout layout_of<float>(const Shape &, bool, const py::object &, const Sequence &, py::handle, py::handle);
template Layout layout_of<double>(const Shape &, bool, const py::object &, const Sequence &, py::handle, py::handle);

} // namespace fastrnn
