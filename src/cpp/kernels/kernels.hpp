// kernels: all that one kernel set offers to the layer, as plain pointers and sizes.
//
// Row-major packed rows: a row of pre-activations or of saved gates is [unit block][slot][lane], a row of
// gradients [slot][H]. Panels: see gemm.hpp. A panel covers one block of `lanes` units with all its gates,
// or, where there is one gate only (Elman) or none (plain products), up to four blocks.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace fastrnn {

enum class Cell { rnn_tanh, rnn_relu, lstm, gru, gru_before };
constexpr size_t cell_count = 5;

// What the time loops must know of a cell. `static`: kernel files must not share functions.
static inline size_t gate_count(Cell cell) {
  switch (cell) {
  case Cell::rnn_tanh:
  case Cell::rnn_relu:
    return 1;
  case Cell::lstm:
    return 4;
  case Cell::gru:
  case Cell::gru_before:
    return 3;
  }
  return 0;
}
static inline bool is_gru(Cell cell) { return cell == Cell::gru || cell == Cell::gru_before; }
// Rows of gradients begin with those of the candidate, which is the last gate of the weights.
static inline bool candidate_first(Cell cell) { return is_gru(cell); }
// dL/dh_{t-1} has a part beside the recurrent product.
static inline bool carries_h(Cell cell) { return is_gru(cell); }

// Row r starts at base + at[r]: covers time-major and batch-major arrays, ragged ones and reversed time.
template <class T> struct Rows {
  T *base = nullptr;
  const ptrdiff_t *at = nullptr; // [rows], in numbers
  T *operator[](size_t r) const { return base + at[r]; }
};

// So many rows share each piece of weights that are packed as they are read (RowMajor).
constexpr size_t rows_in_pieces = 128;

// Weights as the caller has them: rows of `ld` numbers. Where few rows read them once, products pack them piece by
// piece as they go, instead of reading packed ones.
template <class T> struct RowMajor {
  const T *at = nullptr; // null: the packed weights are there
  size_t ld = 0;
  size_t first_row = 0;    // plain panels: k = 0 reads this row, the last row is followed by row 0
  bool transposed = false; // plain products: [N, K], the weights of a linear layer, instead of [K, N]
};

// Whether a step takes its rows in registers, two at a time, rather than in tiles, around which more is to be done: any
// number of rows where a product is no deeper than `always`, few where it is a little deeper. (A product of two rows
// reads its panel more often than a tile does.) Forward at 8, 16, 32 units: 1.1 to 2.0, 1.05 to 1.4, 1.0 to 1.2 times
// as fast; training 1.05 to 1.25, 1.0 to 1.2, 1.0 to 1.1.
constexpr size_t forward_depth_in_registers = 24, backward_depth_in_registers = 32;
static inline bool in_registers(size_t rows, size_t depth, size_t always) {
  return rows == 1 || depth <= always || (rows + rows % 2) * depth <= 224;
}

// One step forward of some rows and some panels of units: pre-activations, gates, state; or several steps that differ
// only in where their arrays start.
template <class T> struct ForwardStep {
  size_t steps = 1;
  // From a step to the next one, in numbers. c of a step is c_prev of the next.
  ptrdiff_t init_step = 0, x_step = 0, h_step = 0, h_prev_step = 0, gates_step = 0, c_step = 0;
  size_t rows = 0, first_panel = 0, last_panel = 0, hidden = 0;
  bool descending = false; // order of the panels; no effect on results
  const T *init = nullptr; // [rows] packed: bias, and the input part where it was computed before
  size_t ld_init = 0;      // 0: one row for all (the bias)
  Rows<const T> x;         // [rows][input], where the input part is computed here
  size_t input = 0;
  const T *w = nullptr; // packed W
  RowMajor<T> w_rows, r_rows;
  Rows<const T> h_prev; // [rows][recurrent]
  size_t recurrent = 0;
  const T *r = nullptr;           // packed R
  const T *bias_n = nullptr;      // [H padded] GRU: b_hn
  const uint8_t *reset = nullptr; // [rows] or null: rows that start from a zero state
  const T *zeros = nullptr;       // as long as the longest row
  T *gates = nullptr;             // [rows] packed, out; null: not kept
  size_t ld_gates = 0;
  const T *c_prev = nullptr; // [rows][H padded]
  T *c = nullptr;
  size_t ld_c = 0;
  Rows<T> h;       // [rows][H], out
  T *rh = nullptr; // [rows][H] reset-before GRU: r * h_prev
  size_t ld_rh = 0;
};

// One step of BPTT: dh = dy + carry + d_later R, then through the cell to d; or several, back in time, that differ only
// in where their arrays start.
template <class T> struct BackwardStep {
  size_t steps = 1;
  // from a step to the one before it, in numbers; h: h_prev too, c: c_prev too, d: d_later too
  ptrdiff_t dy_step = 0, h_step = 0, gates_step = 0, c_step = 0, d_step = 0;
  size_t rows = 0, continuing = 0; // rows [0, continuing) have a later step
  size_t first_panel = 0, last_panel = 0, hidden = 0;
  bool descending = false;
  Rows<const T> dy;           // [rows][hidden]; base null: none
  const T *d_later = nullptr; // [continuing][depth] gradients of the later step
  size_t ld_later = 0, depth = 0;
  const T *r = nullptr; // packed, plain panels: [depth][hidden]
  RowMajor<T> r_rows;
  const uint8_t *cut = nullptr;             // [rows] or null: the later step began a segment
  bool dh_already_cut = false;              // cut rows keep dh (it was cut before) and drop only the carry of c
  T *carry_h = nullptr, *carry_c = nullptr; // [rows][H padded], in and out
  size_t ld_carry = 0;
  const T *gates = nullptr; // [rows] packed
  size_t ld_gates = 0;
  const T *c = nullptr, *c_prev = nullptr; // [rows][H padded]
  size_t ld_c = 0;
  Rows<const T> h, h_prev;        // [rows][H]
  const uint8_t *reset = nullptr; // [rows] or null: this step started from a zero state
  const T *zeros = nullptr;
  T *d = nullptr; // [rows][slot][H], out
  size_t ld_d = 0;
  T *m = nullptr; // [rows][H] projected LSTM: o * tanh(c); reset-before GRU: r * h_prev
  size_t ld_m = 0;
};

// out[i] = init + a[i] . B for plain panels, or packed rows of pre-activations for gate panels.
template <class T> struct Product {
  size_t rows = 0, depth = 0, first_panel = 0, last_panel = 0;
  const T *const *a = nullptr; // [rows] -> [depth]
  T *const *out = nullptr;     // [rows]
  const T *b = nullptr;        // packed
  RowMajor<T> b_rows;          // or not packed
  const T *init = nullptr;     // packed row: what every sum starts from; null for plain panels: 0
  size_t columns = 0;          // plain: N; gates: H
  bool add = false;            // plain: out += product
};

// Sums over time and batch, for weight gradients: c[row(r)][:] += sum_k a[k][r] b[k][:]
template <class T> struct OuterProduct {
  size_t depth = 0;
  const T *const *a = nullptr; // [depth] -> from a_first on one number a row
  const T *const *b = nullptr; // [depth] -> from b_first on `columns` numbers; null: ones, columns = 1
  size_t a_first = 0, b_first = 0, columns = 0;
  size_t first = 0, last = 0; // rows this call adds to
  T *c = nullptr;
  size_t ld = 0;
  // rows of a are those of some gates, `hidden` each; order: where each gate stands in c
  size_t hidden = 0;
  const int *order = nullptr;
  bool overwrite = false; // c = the sum, whatever c held
  T *scratch = nullptr;   // outer_scratch(columns, depth) numbers

  size_t row(size_t r) const { return size_t(order[r / hidden]) * hidden + r % hidden; }
};

// Sums over a row of numbers run in so many partial sums on every kernel set, so that all get the same bits.
constexpr size_t sum_ways = 32;

// What an optimiser does to n parameters p with the gradient g: see update.hpp for the equations. a and b are its
// buffers: m and v of Adam, v and the momentum's of RMSprop (b null: none), the momentum's of SGD (a null: none).
template <class T> struct Update {
  size_t n = 0;
  T *p = nullptr, *a = nullptr, *b = nullptr;
  const T *g = nullptr;
  T scale = T(1);                            // of the gradient: what clipping leaves of it
  T decay = T(0);                            // L2 weight decay, which adds to the gradient
  T keep = T(1);                             // of the parameters: decoupled weight decay (AdamW)
  T first = T(0), second = T(0), eps = T(0), // Adam: 1 - b1, 1 - b2; RMSprop: momentum, 1 - alpha; SGD: momentum
      rate = T(0);
  bool nesterov = false;
};

// Kernels of one number type. Sizes count numbers of T.
template <class T> struct Kernels {
  size_t lanes;

  size_t (*gate_slots)(Cell); // slots of a packed row, whose length is slots * H padded; and of a row of gradients
  size_t (*saved_slots)(Cell);

  // W [G H, K] -> gate panels [begin, end); gates [first, first + count) of a matrix of gates each `hidden` rows
  void (*pack_gates)(T *to, const T *w, size_t ld, size_t first, size_t count, size_t hidden, size_t depth,
                     size_t begin, size_t end);
  void (*pack_bias)(T *to, const T *b_ih, const T *b_hh, Cell, size_t hidden); // packed row; either may be null
  void (*pack_unit_row)(T *to, const T *from, size_t hidden);                  // [H] -> [H padded]
  // B [K, N], rows contiguous -> plain panels; K may be packed in pieces: `at` of `depth` rows in all
  void (*pack_plain)(T *to, const T *b, size_t ld, size_t at, size_t rows, size_t depth, size_t columns);

  size_t (*gate_panels)(size_t gates, size_t hidden); // how many
  size_t (*plain_panels)(size_t columns);
  size_t (*tile_rows)(Cell); // of a tile of a step's product

  void (*gate_product)(const Product<T> &, Cell);
  void (*plain_product)(const Product<T> &);
  void (*forward[cell_count])(const ForwardStep<T> &);     // by Cell; reset-before GRU: first half
  void (*forward_candidate)(const ForwardStep<T> &);       // reset-before GRU: second half
  void (*backward[cell_count])(const BackwardStep<T> &);   // by Cell; reset-before GRU: first half
  void (*backward_gates)(const BackwardStep<T> &);         // reset-before GRU: second half
  void (*backward_store)(const BackwardStep<T> &);         // d = dh: initial state, projection
  void (*backward_store_carried)(const BackwardStep<T> &); // the same for cells with a carry of h

  size_t (*outer_scratch)(size_t columns, size_t depth);
  size_t outer_rows; // of one tile
  void (*outer)(const OuterProduct<T> &);
  void (*outer_fold)(T *total, const OuterProduct<T> &, bool start); // rows of total = c, or += c

  void (*tanh)(T *out, const T *in, size_t n);
  void (*sigmoid)(T *out, const T *in, size_t n);
  void (*scale_mask)(T *out, const T *in, const uint8_t *mask, T scale, size_t n); // in * scale where mask
  // z becomes exp(z - max z), whose sum is returned with the maximum; the row reaches to a multiple of sum_ways
  void (*softmax_exponentials)(T *z, size_t classes, T *greatest, T *sum);
  T (*row_sum)(const T *z, size_t n);
  void (*scale_row)(T *z, size_t n, T scale, T offset); // z * scale - offset
  void (*adam)(const Update<T> &);
  void (*rmsprop)(const Update<T> &);
  void (*sgd)(const Update<T> &);
  double (*sum_of_squares)(const T *a, size_t n);

  double (*peak)(size_t rounds); // fma count of a register-only loop, for measuring the limit
  T (*read)(const T *from, size_t n, size_t rounds);
};

struct KernelSet {
  const char *name;
  Kernels<float> f32;
  Kernels<double> f64;
  template <class T> const Kernels<T> &of() const;
};
template <> inline const Kernels<float> &KernelSet::of<float>() const { return f32; }
template <> inline const Kernels<double> &KernelSet::of<double>() const { return f64; }

} // namespace fastrnn
