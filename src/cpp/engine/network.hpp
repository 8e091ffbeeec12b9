// network: the shape of a network, its parameters, and the parameters packed for the kernels.
#pragma once

#include <memory>
#include <vector>

#include "engine/cell_settings.hpp"
#include "kernels/low_precision.hpp"
#include "runtime/memory.hpp"
#include "runtime/team.hpp"

namespace fastrnn {

// What becomes of the two directions of a bidirectional layer: side by side, or one vector of them.
enum class Merge { concat, sum, mul, ave };

struct Shape {
  Cell cell = Cell::lstm;
  size_t input = 0, hidden = 0, proj = 0; // proj 0: none
  size_t layers = 1, directions = 1;
  bool bias = true;
  bool reverse = false; // the only direction reads each sequence from its end
  Merge merge = Merge::concat;
  bool learned_state = false;                   // h_0 and c_0 are parameters
  std::shared_ptr<const CellSettings> settings; // of general cells; else null

  bool operator==(const Shape &other) const {
    return cell == other.cell && input == other.input && hidden == other.hidden && proj == other.proj &&
           layers == other.layers && directions == other.directions && bias == other.bias && reverse == other.reverse &&
           merge == other.merge && learned_state == other.learned_state &&
           (settings == other.settings || (settings && other.settings && *settings == *other.settings));
  }

  size_t output() const { return proj ? proj : hidden; } // h_t, and what the recurrent product reads
  size_t gates() const { return gate_count(cell); }
  bool merges() const { return merge != Merge::concat; }
  size_t both() const { return directions * output(); }         // h_t of both directions side by side
  size_t width() const { return merges() ? output() : both(); } // one step's output of a layer, and of the network
  size_t layer_input(size_t layer) const { return layer ? width() : input; }
  // Whether a direction starts at the end of each sequence.
  bool runs_back(size_t direction) const { return reverse || direction == 1; }
  size_t count() const { return layers * directions; }
  // Gates of the product with R that begins a step: all, but not the candidate of a GRU that resets before its product.
  size_t step_gates() const { return resets_before(cell) ? 2 : gates(); }
  // Whether a step is one product with R, from whose result the cell computes h_t.
  bool one_product() const { return !proj && !resets_before(cell); }
  bool has_c() const { return is_lstm(cell); }
  bool peepholes() const { return settings && settings->peepholes; }
  // Slots of a row of gradients, in numbers of H: the kernel's gates and, behind them, what peepholes add up.
  size_t gradient_slots(size_t gate_slots) const { return gate_slots + (peepholes() ? 3 : 0); }
  // A part of dL/dh_{t-1} does not pass through the recurrent product (nor, then, through a projection).
  bool carries_h() const { return fastrnn::carries_h(cell) && !proj; }
};

// Parameters of one direction of one layer, as PyTorch lays them out; absent ones null.
template <class T> struct Parameters {
  T *w_ih = nullptr;                                   // [G H, I]
  T *w_hh = nullptr;                                   // [G H, output]
  T *b_ih = nullptr, *b_hh = nullptr;                  // [G H]
  T *w_hr = nullptr;                                   // [P, H]
  T *w_ci = nullptr, *w_cf = nullptr, *w_co = nullptr; // [H] peepholes
};

// A matrix with weights of 8 or 16 bits.
struct LowWeights {
  Buffer<uint32_t> words;
  Buffer<float> scale;
  Buffer<int32_t> offset;
  LowMatrix matrix() const { return {words.get(), scale.get(), offset.get()}; }
  PackedLowMatrix packed() { return {words.get(), scale.get(), offset.get()}; }
  size_t bytes() const { return words.bytes() + scale.bytes() + offset.bytes(); }
};

// Small weights of a direction, in place of w, r, r_n and project below.
struct LowDirection {
  LowWeights w, r, r_n, project;
  size_t bytes() const { return w.bytes() + r.bytes() + r_n.bytes() + project.bytes(); }
};

template <class T> struct PackedDirection {
  // as the caller has them, for products that pack what they read
  RowMajor<T> w_rows, r_rows, w_back_rows, r_back_rows;
  // forward: panels of gates, and the bias as a packed row
  Buffer<T> w, r, r_n, bias, bias_n, project;
  // backward: panels of columns, rows in the order of a row of gradients
  Buffer<T> w_back, r_back, r_n_back, project_back;
  Buffer<T> peepholes; // [3][H padded]
  // What few networks have lies elsewhere: a short call would notice the time to clear it.
  std::unique_ptr<CellOptions<T>> options; // of a general cell
  std::unique_ptr<LowDirection> low;
};

template <class T> class Packed {
public:
  // For a forward pass, a backward pass or both. in_pieces, w_in_pieces: as in Plan.
  Packed(const Kernels<T> &kernels, const Shape &shape, std::vector<Parameters<const T>> parameters, bool forward,
         bool backward, bool in_pieces = false, bool w_in_pieces = false);
  // For inference with small weights, which `low` packs.
  Packed(const Kernels<T> &kernels, const Shape &shape, std::vector<Parameters<const T>> parameters, WeightsType type,
         const LowKernels &low);
  // One thread's share of the packing: some panels of every matrix. Where threads share units, those that it will read.
  void pack(const Worker &);
  const PackedDirection<T> &operator()(size_t layer, size_t direction) const {
    return directions_[layer * shape_.directions + direction];
  }
  size_t bytes() const;
  const Shape &shape() const { return shape_; }
  // Of frozen weights: copies of the learned initial states, [L D][output] and [L D][H]; empty where there are none.
  std::vector<T> h_0, c_0;
  WeightsType type() const { return type_; }
  const LowKernels *low() const { return low_; } // null for float32 and float64

private:
  void pack_forward(size_t i, const Worker &);
  void pack_low(size_t i, const Worker &);
  void pack_backward(size_t i, const Worker &);
  void pack_peepholes(size_t i);
  const Kernels<T> &k_;
  Shape shape_;
  std::vector<Parameters<const T>> parameters_;
  bool forward_, backward_, in_pieces_, w_in_pieces_;
  std::vector<PackedDirection<T>> directions_;
  WeightsType type_ = WeightsType::float32;
  const LowKernels *low_ = nullptr;
};

} // namespace fastrnn
