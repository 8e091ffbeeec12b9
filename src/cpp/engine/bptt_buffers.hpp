// The memory of BPTT: gradient rows of chunks, carries, and where dL/dy comes from and dL/dx goes.
#pragma once

#include "engine/direction.hpp"
#include "engine/layer.hpp"

namespace fastrnn {

// Memory for BPTT through one direction. All directions use the same where they come one after the other.
template <class T> struct Workspace {
  Buffer<T> d[2];                     // [rows of a chunk][slot][H], alternating between chunks
  Buffer<T> m[2], dh[2];              // [rows of a chunk][H], [output]: see BackwardStep
  Buffer<T> carry_h, carry_c, dh0;    // [B][max(H, output) padded], the same, [B][output]
  Buffer<T> segment_gates, segment_c; // with checkpoints: of the segment that BPTT is in
};

template <class T> class BackwardBuffers {
public:
  // Addresses of dy and dx as a direction sees them.
  struct Tracks {
    Track<const T> dy; // what its steps read: [output]
    Track<T> dx;
    SmallVector<ptrdiff_t> last; // sorted row -> its place in dy_last
    // Where more than that is to be done (prepare_dy): dy goes to `own`, from that of the layer and from `extra`.
    Track<T> own;
    Track<const T> layer, extra;
  };

  BackwardBuffers(const Pass<T> &pass, const Tape<T> &tape, const Gradients<T> &gradients)
      : ld_d(Pass<T>::round_up_row(pass.k.gate_slots(pass.shape.cell) * pass.H)), ld_carry(std::max(pass.Hp, pass.Rp)),
        chunk_rows(rows_of_a_chunk(pass, ld_d)), held(std::max(chunk_rows, pass.batch.rows)), p(pass), g_(gradients) {
    const Batch &batch = p.batch;
    const Shape &shape = p.shape;
    const bool wavefront = p.plan.split == Split::wavefront;
    const bool two_products = shape.proj || shape.cell == Cell::gru_before;
    // segments hold different numbers of rows; the first is the largest
    const size_t segment_rows = tape.segment ? batch.first(std::min(tape.segment, batch.steps)) : 0;
    workspaces_ = std::vector<Workspace<T>>(wavefront ? shape.count() : 1);
    for (Workspace<T> &own : workspaces_) {
      for (auto &d : own.d) d = Buffer<T>(product(held, ld_d));
      for (auto &m : own.m) m = Buffer<T>(two_products ? product(held, p.H) : 0);
      for (auto &dh : own.dh) dh = Buffer<T>(shape.proj ? product(held, p.R) : 0);
      own.carry_h = Buffer<T>(product(batch.rows, ld_carry));
      if (shape.has_c()) own.carry_c = Buffer<T>(product(batch.rows, ld_carry));
      own.dh0 = Buffer<T>(product(batch.rows, p.R));
      if (p.k.saved_slots(shape.cell)) own.segment_gates = Buffer<T>(product(segment_rows, p.row));
      if (shape.has_c() && tape.segment) own.segment_c = Buffer<T>(product(batch.rows + segment_rows, p.Hp));
    }
    const size_t positions = p.arrays.starts ? batch.total() : product(batch.steps, batch.rows);
    for (size_t l = 0; l + 1 < shape.layers; ++l) d_inner_.emplace_back(product(positions, shape.width()));
    if (shape.merges()) d_parts_ = Buffer<T>(product(positions, shape.both()));
    // where both directions run side by side, the reverse one has a buffer of its own for its part of dL/dx
    if (wavefront && shape.directions == 2)
      for (size_t l = 0; l < shape.layers; ++l)
        second_.emplace_back(l > 0 || g_.dx ? product(positions, p.directions[l * 2].input) : 0);
    tracks_.reserve(p.directions.size());
    for (const auto &dir : p.directions) tracks_.push_back(make_tracks(dir));
    // made here, since threads allocate nothing
    for (size_t l = 0; l < second_.size(); ++l) {
      const size_t width = p.directions[l * 2].input;
      parts_.push_back({hidden_view<T>(second_[l].get(), batch, p.arrays.starts, width), l ? inner(l - 1) : g_.dx});
    }
  }

  const size_t ld_d, ld_carry; // of rows of gradients and of carries
  const size_t chunk_rows;     // the most rows of a chunk of steps
  const size_t held;           // rows that there is room for: a chunk's, or one step's where that has more

  Workspace<T> &workspace(const Direction<T> &dir) { return workspaces_[workspaces_.size() > 1 ? dir.index : 0]; }
  const Tracks &tracks(const Direction<T> &dir) const { return tracks_[dir.index]; }
  // The reverse direction adds its part of dL/dx to that of the other, unless it has a buffer of its own.
  bool adds_to_dx(const Direction<T> &dir) const { return dir.direction == 1 && second_.empty(); }
  // Whether the steps take dL/dy of each sequence's last step alone.
  bool last_only(const Direction<T> &dir) const { return !p.shape.merges() && only_last_is_given(dir); }

  // dL/dy of step s
  Rows<const T> dy(const Direction<T> &dir, size_t s, size_t r0) const {
    const Tracks &own = tracks(dir);
    if (last_only(dir)) {
      // at the end of a row; the reverse direction has its first step there
      if (dir.way == 1 && s == 0) return {g_.dy_last + dir.direction * p.R, own.last.data() + r0};
      return {};
    }
    return own.dy.base ? own.dy.read(s, r0) : Rows<const T>{};
  }

  // Before BPTT goes through a direction, and when it is through the layer above: adds the gradient that the caller
  // gave for this layer's outputs, and where directions are merged, takes dL/dy back to this direction.
  void prepare_dy(const Worker &w, const Direction<T> &dir) {
    const Tracks &own = tracks(dir);
    if (!own.own.base) return;
    const Merge merge = p.shape.merge;
    const bool last = only_last_is_given(dir);
    const ptrdiff_t to_other = dir.direction ? -ptrdiff_t(p.R) : ptrdiff_t(p.R);
    const Range rows = share(p.batch.rows, w);
    for (size_t r = rows.begin; r < rows.end; ++r) {
      const size_t length = p.batch.length[r], last_step = dir.way == 0 ? length - 1 : 0;
      for (size_t s = 0; s < length; ++s) {
        T *to = own.own(s, r);
        const T *dy = own.layer.base ? own.layer(s, r) : nullptr;
        if (last) dy = s == last_step ? g_.dy_last + own.last[r] : nullptr;
        const T *extra = own.extra.base ? own.extra(s, r) : nullptr;
        for (size_t i = 0; i < p.R; ++i) to[i] = (dy ? dy[i] : T(0)) + (extra ? extra[i] : T(0));
        if (merge == Merge::ave)
          for (size_t i = 0; i < p.R; ++i) to[i] *= T(0.5);
        if (merge == Merge::mul) {
          const T *other = dir.y(s, r) + to_other; // h_t of the other direction
          for (size_t i = 0; i < p.R; ++i) to[i] *= other[i];
        }
      }
    }
  }

  // Dropout between layers: the gradient goes through the same mask.
  void mask(const Worker &w, size_t layer) {
    const size_t n = d_inner_[layer].size();
    const Range part = share(n, w);
    T *d = d_inner_[layer].get() + part.begin;
    p.k.scale_mask(d, d, p.arrays.dropout[layer] + part.begin, p.arrays.dropout_scale, part.size());
  }

  // When both directions of a layer are done: dL/dx is the sum of their parts.
  void join_directions(size_t layer) {
    if (second_.empty() || !second_[layer].size()) return;
    const Batch &batch = p.batch;
    const size_t width = p.directions[layer * 2].input;
    const auto &[from, to] = parts_[layer];
    for (size_t r = 0; r < batch.rows; ++r) {
      const size_t b = batch.order[r];
      for (size_t t = 0; t < batch.length[r]; ++t) {
        T *sum = to.base + to.row[b] + ptrdiff_t(t) * to.time;
        const T *part = from.base + from.row[b] + ptrdiff_t(t) * from.time;
        for (size_t i = 0; i < width; ++i) sum[i] += part[i];
      }
    }
  }

private:
  bool only_last_is_given(const Direction<T> &dir) const { return g_.dy_last && dir.layer + 1 == p.shape.layers; }
  // Long enough for the products over a chunk to run at full speed, short enough for its gradient rows to stay in the
  // cache between the time loop and those products.
  static size_t rows_of_a_chunk(const Pass<T> &p, size_t ld_d) {
    const size_t total = p.batch.total(), layers = p.shape.layers;
    size_t rows = std::min<size_t>(std::max<size_t>((size_t(1) << 20) / (ld_d * sizeof(T)), 256), 768);
    // and several chunks where layers follow each other, or the products follow the steps
    if (p.plan.split == Split::wavefront && layers > 1)
      rows = std::min(rows, std::max<size_t>(total / (4 * layers), 32));
    if (p.plan.split == Split::pipelined) rows = std::min(rows, std::max<size_t>(total / 8, 32));
    return std::min(rows, total);
  }

  // dL/dy of a layer below the last
  View<T> inner(size_t layer) {
    return hidden_view<T>(d_inner_[layer].get(), p.batch, p.arrays.starts, p.shape.width());
  }
  Tracks make_tracks(const Direction<T> &dir) {
    Tracks own;
    const bool top = dir.layer + 1 == p.shape.layers, merges = p.shape.merges();
    const size_t column = merges ? 0 : dir.direction * p.R; // of dL/dy of the layer
    const auto track = [&](const auto &view, size_t first) {
      return Track<std::remove_pointer_t<decltype(view.base)>>(view, p.batch, dir.way, first);
    };
    if (!top)
      own.dy = track(read_only(inner(dir.layer)), column);
    else if (g_.dy)
      own.dy = track(g_.dy, column);
    if (!top && !g_.dlayers.empty() && g_.dlayers[dir.layer]) own.extra = track(g_.dlayers[dir.layer], column);
    // without any gradient of the outputs there is nothing to take back
    if (merges && (own.dy.base || g_.dy_last)) {
      own.layer = own.dy;
      own.own = track(hidden_view<T>(d_parts_.get(), p.batch, p.arrays.starts, p.shape.both()), dir.direction * p.R);
      own.dy =
          track(hidden_view<const T>(d_parts_.get(), p.batch, p.arrays.starts, p.shape.both()), dir.direction * p.R);
    } else if (own.extra.base) {
      own.layer = own.dy;
      own.own = track(inner(dir.layer), column);
    }
    if (dir.direction == 1 && !second_.empty())
      own.dx = track(hidden_view<T>(second_[dir.layer].get(), p.batch, p.arrays.starts, dir.input), 0);
    else if (dir.layer > 0)
      own.dx = track(inner(dir.layer - 1), 0);
    else if (g_.dx)
      own.dx = track(g_.dx, 0);
    own.last.assign(p.batch.rows, 0);
    for (size_t r = 0; r < p.batch.rows; ++r) own.last[r] = ptrdiff_t(p.batch.order[r] * p.shape.width());
    return own;
  }

  const Pass<T> &p;
  const Gradients<T> &g_;
  std::vector<Workspace<T>> workspaces_;
  std::vector<Buffer<T>> d_inner_, second_; // by layer: dL/dy of layers below the last; the reverse direction's dL/dx
  Buffer<T> d_parts_;                       // merged directions: dL/dy of each of them, of the layer that BPTT is in
  struct Parts {
    View<T> reverse, sum;
  };
  std::vector<Parts> parts_; // [layers] of dL/dx, where there is a second_
  std::vector<Tracks> tracks_;
};

} // namespace fastrnn
