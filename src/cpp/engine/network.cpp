#include "engine/network.hpp"

#include <type_traits>

namespace fastrnn {

template <class T>
Packed<T>::Packed(const Kernels<T> &kernels, const Shape &shape, std::vector<Parameters<const T>> parameters,
                  bool forward, bool backward, bool in_pieces, bool w_in_pieces)
    : k_(kernels), shape_(shape), parameters_(std::move(parameters)), forward_(forward), backward_(backward),
      in_pieces_(in_pieces), w_in_pieces_(w_in_pieces), directions_(shape.count()) {
  const size_t H = shape.hidden, R = shape.output(), G = shape.gates();
  const size_t Hp = round_up(H, k_.lanes), Rp = round_up(R, k_.lanes);
  const bool before = resets_before(shape.cell);
  for (size_t i = 0; i < shape.count(); ++i) {
    const size_t I = shape.layer_input(i / shape.directions), Ip = round_up(I, k_.lanes);
    PackedDirection<T> &d = directions_[i];
    if (w_in_pieces) d.w_rows = {parameters_[i].w_ih, I};
    if (in_pieces) {
      d.w_back_rows = {parameters_[i].w_ih, I};
      if (candidate_first(shape.cell)) d.w_back_rows.first_row = (G - 1) * H;
      d.r_rows = d.r_back_rows = {parameters_[i].w_hh, R};
    }
    if (forward) {
      d.bias = Buffer<T>(k_.gate_slots(shape.cell) * Hp);
      if (resets_after(shape.cell)) d.bias_n = Buffer<T>::zeroed(Hp);
    }
    if (shape.peepholes()) d.peepholes = Buffer<T>(product(3, Hp));
    if (shape.settings) {
      d.options = std::make_unique<CellOptions<T>>(shape.settings->template options<T>(i % shape.directions));
      d.options->bias_n = d.bias_n.get();
      for (size_t j = 0; j < 3 && shape.peepholes(); ++j) d.options->peephole[j] = d.peepholes.get() + j * Hp;
    }
    if (forward && !w_in_pieces) d.w = Buffer<T>(product(G, Hp, I));
    if (in_pieces) continue;
    if (forward) {
      d.r = Buffer<T>(product(shape.step_gates(), Hp, R));
      if (before) d.r_n = Buffer<T>(product(Hp, R));
      if (shape.proj) d.project = Buffer<T>(product(Rp, H));
    }
    if (backward) {
      d.w_back = Buffer<T>(product(G, H, Ip));
      d.r_back = Buffer<T>(product(shape.step_gates(), H, Rp));
      if (before) d.r_n_back = Buffer<T>(product(H, Rp));
      if (shape.proj) d.project_back = Buffer<T>(product(R, Hp));
    }
  }
}

template <class T>
Packed<T>::Packed(const Kernels<T> &kernels, const Shape &shape, std::vector<Parameters<const T>> parameters,
                  WeightsType type, const LowKernels &low)
    : k_(kernels), shape_(shape), parameters_(std::move(parameters)), forward_(true), backward_(false),
      in_pieces_(false), w_in_pieces_(false), directions_(shape.count()), type_(type), low_(&low) {
  const size_t H = shape.hidden, R = shape.output();
  const auto allocate = [&](LowWeights &to, size_t gates, size_t hidden, size_t depth) {
    const size_t rows = product(gates, round_up(hidden, k_.lanes));
    to.words = Buffer<uint32_t>(product(rows, (depth + low.k_per_word - 1) / low.k_per_word));
    if (type != WeightsType::int8) return;
    to.scale = Buffer<float>(rows);
    to.offset = Buffer<int32_t>(rows);
  };
  for (size_t i = 0; i < shape.count(); ++i) {
    PackedDirection<T> &d = directions_[i];
    d.bias = Buffer<T>(k_.gate_slots(shape.cell) * round_up(H, k_.lanes));
    if (shape.cell == Cell::gru) d.bias_n = Buffer<T>::zeroed(round_up(H, k_.lanes));
    d.low = std::make_unique<LowDirection>();
    allocate(d.low->w, shape.gates(), H, shape.layer_input(i / shape.directions));
    allocate(d.low->r, shape.step_gates(), H, R);
    if (shape.cell == Cell::gru_before) allocate(d.low->r_n, 1, H, R);
    if (shape.proj) allocate(d.low->project, 1, R, H);
  }
}

template <class T> void Packed<T>::pack(const Worker &w) {
  for (size_t i = 0; i < shape_.count(); ++i) {
    if (low_) {
      pack_low(i, w);
      continue;
    }
    if (forward_) pack_forward(i, w);
    if (backward_ && !in_pieces_) pack_backward(i, w);
    if (shape_.peepholes() && w.index == 0) pack_peepholes(i);
  }
}

template <class T> void Packed<T>::pack_forward(size_t i, const Worker &w) {
  const size_t H = shape_.hidden, R = shape_.output(), G = shape_.gates(),
               I = shape_.layer_input(i / shape_.directions);
  const Parameters<const T> &p = parameters_[i];
  PackedDirection<T> &d = directions_[i];
  const bool before = resets_before(shape_.cell);
  if (w.index == 0) {
    k_.pack_bias(d.bias.get(), p.b_ih, p.b_hh, shape_.cell, H);
    if (resets_after(shape_.cell) && p.b_hh) k_.pack_unit_row(d.bias_n.get(), p.b_hh + 2 * H, H);
  }
  const auto gates = [&](Buffer<T> &to, const T *from, size_t first, size_t count, size_t hidden, size_t depth) {
    const Range part = share(k_.gate_panels(count, hidden), w);
    if (depth) k_.pack_gates(to.get(), from, depth, first, count, hidden, depth, part.begin, part.end);
  };
  if (!w_in_pieces_) gates(d.w, p.w_ih, 0, G, H, I);
  if (in_pieces_) return;
  gates(d.r, p.w_hh, 0, shape_.step_gates(), H, R);
  if (before) gates(d.r_n, p.w_hh, 2, 1, H, R);
  if (shape_.proj) gates(d.project, p.w_hr, 0, 1, R, H);
}

template <class T> void Packed<T>::pack_low(size_t i, const Worker &w) {
  if constexpr (std::is_same_v<T, float>) {
    const size_t H = shape_.hidden, R = shape_.output();
    const Parameters<const T> &p = parameters_[i];
    PackedDirection<T> &d = directions_[i];
    if (w.index == 0) {
      k_.pack_bias(d.bias.get(), p.b_ih, p.b_hh, shape_.cell, H);
      if (shape_.cell == Cell::gru && p.b_hh) k_.pack_unit_row(d.bias_n.get(), p.b_hh + 2 * H, H);
    }
    const auto gates = [&](LowWeights &to, const T *from, size_t first, size_t count, size_t hidden, size_t depth) {
      const Range part = share(k_.gate_panels(count, hidden), w);
      low_->pack_gates(to.packed(), from, depth, first, count, hidden, depth, part.begin, part.end);
    };
    gates(d.low->w, p.w_ih, 0, shape_.gates(), H, shape_.layer_input(i / shape_.directions));
    gates(d.low->r, p.w_hh, 0, shape_.step_gates(), H, R);
    if (shape_.cell == Cell::gru_before) gates(d.low->r_n, p.w_hh, 2, 1, H, R);
    if (shape_.proj) gates(d.low->project, p.w_hr, 0, 1, R, H);
  }
}

template <class T> void Packed<T>::pack_backward(size_t i, const Worker &w) {
  const size_t H = shape_.hidden, R = shape_.output(), G = shape_.gates(),
               I = shape_.layer_input(i / shape_.directions);
  const Parameters<const T> &p = parameters_[i];
  PackedDirection<T> &d = directions_[i];
  const bool before = resets_before(shape_.cell);
  // rows [first, first + rows) of a matrix become rows from `at` on of the `depth` there are
  const auto plain = [&](Buffer<T> &to, const T *from, size_t first, size_t at, size_t rows, size_t depth,
                         size_t columns) {
    const Range part = share(rows, w);
    if (columns)
      k_.pack_plain(to.get(), from + (first + part.begin) * columns, columns, at + part.begin, part.size(), depth,
                    columns);
  };
  const size_t candidate = candidate_first(shape_.cell) ? (G - 1) * H : 0; // where it stands in the weights
  plain(d.w_back, p.w_ih, candidate, 0, G * H - candidate, G * H, I);
  if (candidate) plain(d.w_back, p.w_ih, 0, H, candidate, G * H, I);
  const size_t depth = shape_.step_gates() * H;
  plain(d.r_back, p.w_hh, 0, 0, depth, depth, R);
  if (before) plain(d.r_n_back, p.w_hh, 2 * H, 0, H, H, R);
  if (shape_.proj) plain(d.project_back, p.w_hr, 0, 0, R, R, H);
}

template <class T> void Packed<T>::pack_peepholes(size_t i) {
  const Parameters<const T> &p = parameters_[i];
  const size_t Hp = round_up(shape_.hidden, k_.lanes);
  T *const to = directions_[i].peepholes.get();
  size_t j = 0;
  for (const T *from : {p.w_ci, p.w_cf, p.w_co}) k_.pack_unit_row(to + j++ * Hp, from, shape_.hidden);
}

template <class T> size_t Packed<T>::bytes() const {
  size_t n = 0;
  for (const auto &d : directions_)
    n += d.w.bytes() + d.r.bytes() + d.r_n.bytes() + d.bias.bytes() + d.bias_n.bytes() + d.project.bytes() +
         d.w_back.bytes() + d.r_back.bytes() + d.r_n_back.bytes() + d.project_back.bytes() + d.peepholes.bytes() +
         (d.low ? d.low->bytes() : 0);
  return n;
}

template class Packed<float>;
template class Packed<double>;

} // namespace fastrnn
