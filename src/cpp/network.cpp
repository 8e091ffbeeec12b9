#include "network.hpp"

namespace fastrnn {

template <class T>
Packed<T>::Packed(const Kernels<T> &kernels, const Shape &shape, std::vector<Parameters<const T>> parameters,
                  bool forward, bool backward, bool in_pieces)
    : k_(kernels), shape_(shape), parameters_(std::move(parameters)), forward_(forward), backward_(backward),
      in_pieces_(in_pieces), directions_(shape.count()) {
  const size_t H = shape.hidden, R = shape.output(), G = shape.gates();
  const size_t Hp = round_up(H, k_.lanes), Rp = round_up(R, k_.lanes);
  const bool before = shape.cell == Cell::gru_before;
  for (size_t i = 0; i < shape.count(); ++i) {
    const size_t I = shape.layer_input(i / shape.directions), Ip = round_up(I, k_.lanes);
    PackedDirection<T> &d = directions_[i];
    if (in_pieces) {
      d.w_rows = d.w_back_rows = {parameters_[i].w_ih, I};
      if (shape.cell == Cell::gru) d.w_back_rows.first_row = 2 * H; // gradient rows of the GRU start with the candidate
      d.r_rows = d.r_back_rows = {parameters_[i].w_hh, R};
    }
    if (forward) {
      d.bias = Buffer<T>(k_.gate_slots(shape.cell) * Hp);
      if (shape.cell == Cell::gru) d.bias_n = Buffer<T>::zeroed(Hp);
    }
    if (in_pieces) continue;
    if (forward) {
      d.w = Buffer<T>(product(G, Hp, I));
      d.r = Buffer<T>(product(before ? 2 : G, Hp, R));
      if (before) d.r_n = Buffer<T>(product(Hp, R));
      if (shape.proj) d.project = Buffer<T>(product(Rp, H));
    }
    if (backward) {
      d.w_back = Buffer<T>(product(G, H, Ip));
      d.r_back = Buffer<T>(product(before ? 2 : G, H, Rp));
      if (before) d.r_n_back = Buffer<T>(product(H, Rp));
      if (shape.proj) d.project_back = Buffer<T>(product(R, Hp));
    }
  }
}

template <class T> void Packed<T>::run_job(size_t job) {
  if (forward_) pack_forward(job / 2, job % 2 == 1);
  if (backward_ && !in_pieces_) pack_backward(job / 2, job % 2 == 1);
}

template <class T> void Packed<T>::pack_forward(size_t i, bool recurrent) {
  const size_t H = shape_.hidden, R = shape_.output(), G = shape_.gates(),
               I = shape_.layer_input(i / shape_.directions);
  const Parameters<const T> &p = parameters_[i];
  PackedDirection<T> &d = directions_[i];
  if (!recurrent) {
    if (I && !in_pieces_) k_.pack_gates(d.w.get(), p.w_ih, I, 0, G, H, I);
    k_.pack_bias(d.bias.get(), p.b_ih, p.b_hh, shape_.cell, H);
    if (shape_.cell == Cell::gru && p.b_hh) k_.pack_unit_row(d.bias_n.get(), p.b_hh + 2 * H, H);
    return;
  }
  if (in_pieces_) return;
  const bool before = shape_.cell == Cell::gru_before;
  k_.pack_gates(d.r.get(), p.w_hh, R, 0, before ? 2 : G, H, R);
  if (before) k_.pack_gates(d.r_n.get(), p.w_hh, R, 2, 1, H, R);
  if (shape_.proj) k_.pack_gates(d.project.get(), p.w_hr, H, 0, 1, R, H);
}

template <class T> void Packed<T>::pack_backward(size_t i, bool recurrent) {
  const size_t H = shape_.hidden, R = shape_.output(), G = shape_.gates(),
               I = shape_.layer_input(i / shape_.directions);
  const Parameters<const T> &p = parameters_[i];
  PackedDirection<T> &d = directions_[i];
  const bool gru = shape_.cell == Cell::gru, before = shape_.cell == Cell::gru_before;
  if (!recurrent) {
    if (!I) return;
    if (gru || before) { // gradient rows of the GRU start with the candidate
      k_.pack_plain(d.w_back.get(), p.w_ih + 2 * H * I, I, 0, H, 3 * H, I);
      k_.pack_plain(d.w_back.get(), p.w_ih, I, H, 2 * H, 3 * H, I);
    } else {
      k_.pack_plain(d.w_back.get(), p.w_ih, I, 0, G * H, G * H, I);
    }
    return;
  }
  const size_t depth = before ? 2 * H : G * H;
  k_.pack_plain(d.r_back.get(), p.w_hh, R, 0, depth, depth, R);
  if (before) k_.pack_plain(d.r_n_back.get(), p.w_hh + 2 * H * R, R, 0, H, H, R);
  if (shape_.proj) k_.pack_plain(d.project_back.get(), p.w_hr, H, 0, R, R, H);
}

template <class T> size_t Packed<T>::bytes() const {
  size_t n = 0;
  for (const auto &d : directions_)
    n += d.w.bytes() + d.r.bytes() + d.r_n.bytes() + d.bias.bytes() + d.bias_n.bytes() + d.project.bytes() +
         d.w_back.bytes() + d.r_back.bytes() + d.r_n_back.bytes() + d.project_back.bytes();
  return n;
}

template class Packed<float>;
template class Packed<double>;

} // namespace fastrnn
