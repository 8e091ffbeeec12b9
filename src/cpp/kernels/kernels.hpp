// kernels: everything that one kernel set offers to the engine, as functions of plain pointers and sizes.
//
// A block is as many units (or columns) as fit into one register: `lanes` of them. A sequence's pre-activations at one
// step, and the gates that the tape keeps, are a packed row: [block][slot][lane], where most slots are gates. Gradients
// of pre-activations are rows [slot][H]. "H padded" is H rounded up to whole blocks. For packed weights see panels.hpp.
// In the arrays of a step, `rows` counts sequences of the batch.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace fastrnn {

// Of every kind there is a plain cell and a general one, which takes options (CellOptions). The order matters below.
enum class Cell {
  rnn_tanh,
  rnn_relu,
  rnn_general,
  lstm,
  lstm_general,
  gru,
  gru_general,
  gru_before,
  gru_before_general
};
constexpr size_t cell_count = 9;

// What the time loops must know about a cell. The functions are static because every kernel set compiles this file with
// its own instructions: a shared copy might contain some that this CPU lacks.
static inline size_t gate_count(Cell cell) {
  switch (cell) {
  case Cell::rnn_tanh:
  case Cell::rnn_relu:
  case Cell::rnn_general:
    return 1;
  case Cell::lstm:
  case Cell::lstm_general:
    return 4;
  case Cell::gru:
  case Cell::gru_general:
  case Cell::gru_before:
  case Cell::gru_before_general:
    return 3;
  }
  return 0;
}
static inline bool is_lstm(Cell cell) { return cell == Cell::lstm || cell == Cell::lstm_general; }
static inline bool is_gru(Cell cell) { return cell >= Cell::gru; }
// Where the GRU applies its reset gate: before the recurrent product of the candidate, or after it.
static inline bool resets_before(Cell cell) { return cell >= Cell::gru_before; }
static inline bool resets_after(Cell cell) { return cell == Cell::gru || cell == Cell::gru_general; }
static inline bool is_general(Cell cell) {
  return cell == Cell::rnn_general || cell == Cell::lstm_general || cell == Cell::gru_general ||
         cell == Cell::gru_before_general;
}
// The tape keeps the slopes of the gates beside the gates. (The general Elman cell keeps nothing but its slope.)
static inline bool keeps_slopes(Cell cell) { return is_general(cell) && gate_count(cell) > 1; }
// A row of gradients begins with the candidate's, which is the last gate of the weights.
static inline bool candidate_first(Cell cell) { return is_gru(cell); }
// A part of dL/dh_{t-1} does not pass through the recurrent product. (A general cell may have none; then it is zero.)
static inline bool carries_h(Cell cell) { return is_gru(cell) || is_general(cell); }

// Rows at any distances: row r starts at base + at[r]. This describes time-major and batch-major arrays, sequences of
// different lengths and reversed time.
template <class T> struct Rows {
  T *base = nullptr;
  const ptrdiff_t *at = nullptr; // [rows], in numbers
  T *operator[](size_t r) const { return base + at[r]; }
};

// What a gate, the candidate or the output of a general cell applies; activations.hpp has the equations.
enum class CellFunction {
  sigmoid,
  tanh,
  relu,
  linear,
  affine,
  leaky_relu,
  thresholded_relu,
  scaled_tanh,
  hard_sigmoid,
  elu,
  softsign,
  softplus
};
template <class T> struct CellActivation {
  CellFunction kind = CellFunction::linear;
  T alpha = T(0), beta = T(0);
};

// The options of a general cell in one direction of one layer; general_cells.hpp has the equations.
template <class T> struct CellOptions {
  CellActivation<T> gate[4];                          // in the order of the gates, the candidate among them
  CellActivation<T> output;                           // LSTM: of c_t
  T clip = T(0);                                      // bound of every pre-activation; 0: none
  bool coupled = false;                               // LSTM: f = 1 - i
  const T *peephole[3] = {nullptr, nullptr, nullptr}; // [H padded] LSTM: w_ci, w_cf, w_co, or all null
  const T *bias_n = nullptr;                          // [H padded] reset-after GRU: b_hn
  T leak = T(1);                                      // Elman: h_t = (1 - leak) h_{t-1} + leak f(a)
  bool zoneout = false;                               // of h and, for the LSTM, c
  T expected_h = T(0), expected_c = T(0);             // zoneout at inference: its probabilities
  ptrdiff_t slopes = 0;                               // from gates that are kept to their slopes; 0: not kept
  // What differs from step to step; base null: none. [rows][H]
  Rows<const T> zoned_h, zoned_c; // zoneout in training: 1 where the old value stays, else 0
  Rows<const T> noise;            // Elman: added to the pre-activation
  Rows<const T> h_direct;         // h_{t-1} beside the recurrent product, which reads h_prev ...
  Rows<const T> dropped;          // ... the product of h_{t-1} and this, recurrent dropout's factors
};

// The most rows that share a piece of weights which are packed while they are read (RowMajor).
constexpr size_t rows_in_pieces = 128;

// Weights as the caller has them, rows at a distance of `ld` numbers. Where few rows read them, and only once, products
// pack them piece by piece while they read them, which is cheaper than packing all of them first.
template <class T> struct RowMajor {
  const T *at = nullptr; // null: read the packed weights instead
  size_t ld = 0;
  size_t first_row = 0;    // plain panels: k = 0 is this row; row 0 follows the last row
  bool transposed = false; // plain products: [N, K], the weights of a linear layer, instead of [K, N]
};

// Whether a step keeps the sums of its rows in registers, two rows at a time (few_rows.hpp), instead of computing tiles
// (step.hpp). Tiles take more instructions around their product, but read a panel less often: once for several rows. So
// registers are better for small products: those no deeper than `small_depth`, whatever the number of rows, and those
// where rows (in twos) times depth stays below a limit. The three constants were found by measurement.
constexpr size_t forward_depth_in_registers = 24, backward_depth_in_registers = 32;
constexpr size_t rows_times_depth_in_registers = 224;
static inline bool in_registers(size_t rows, size_t depth, size_t small_depth) {
  return rows == 1 || depth <= small_depth || (rows + rows % 2) * depth <= rows_times_depth_in_registers;
}

// One step forward of some sequences and some panels of units: pre-activations, gates, state. Or several steps, one
// after the other, whose arrays start at constant distances.
template <class T> struct ForwardStep {
  size_t steps = 1;
  // distances from one step to the next, in numbers; c of a step is c_prev of the next
  ptrdiff_t init_step = 0, x_step = 0, h_step = 0, h_prev_step = 0, gates_step = 0, c_step = 0;
  size_t rows = 0, first_panel = 0, last_panel = 0, hidden = 0;
  bool descending = false; // take the panels from the last to the first; no effect on results
  const T *init = nullptr; // [rows] packed: the bias, plus the input part if it has been computed already
  size_t ld_init = 0;      // 0: all sequences start from one row, the bias
  Rows<const T> x;         // [rows][input], if this step computes the input part
  size_t input = 0;
  const T *w = nullptr;       // packed W
  RowMajor<T> w_rows, r_rows; // W and R where they are not packed
  Rows<const T> h_prev;       // [rows][recurrent]
  size_t recurrent = 0;
  const T *r = nullptr;        // packed R
  union {                      // which of them, the cell says
    const T *bias_n = nullptr; // [H padded] plain GRU: b_hn
    const CellOptions<T> *options;
  };
  const uint8_t *reset = nullptr; // [rows] or null: sequences that start from a zero state here
  const T *zeros = nullptr;       // that state: zeros, as many as the longest row has
  T *gates = nullptr;             // [rows] packed, out, for the tape; null: not kept
  size_t ld_gates = 0;
  const T *c_prev = nullptr; // [rows][H padded]
  T *c = nullptr;
  size_t ld_c = 0;
  Rows<T> h;       // [rows][H], out
  T *rh = nullptr; // [rows][H] reset-before GRU: r * h_prev
  size_t ld_rh = 0;
};

// One step of backward: dh = dy + carry + d_later R, and from it, through the cell, d. Or several steps, back in time,
// whose arrays start at constant distances.
template <class T> struct BackwardStep {
  size_t steps = 1;
  // distances from one step to the one before it, in numbers; h_prev, c_prev and d_later have those of h, c and d
  ptrdiff_t dy_step = 0, h_step = 0, gates_step = 0, c_step = 0, d_step = 0;
  size_t rows = 0, continuing = 0; // sequences [0, continuing) have a later step
  size_t first_panel = 0, last_panel = 0, hidden = 0;
  bool descending = false;
  bool dh_already_cut = false; // the caller has set dh to zero where cut, so only the carry of c remains to be cut
  Rows<const T> dy;            // [rows][hidden]; base null: none
  const T *d_later = nullptr;  // [continuing][depth] gradients of the later step
  size_t ld_later = 0, depth = 0;
  const T *r = nullptr; // packed, plain panels: [depth][hidden]
  RowMajor<T> r_rows;
  const uint8_t *cut = nullptr;             // [rows] or null: the later step started from a zero state
  const CellOptions<T> *options = nullptr;  // of a general cell
  T *carry_h = nullptr, *carry_c = nullptr; // [rows][H padded], in and out
  size_t ld_carry = 0;
  const T *gates = nullptr; // [rows] packed
  size_t ld_gates = 0;
  const T *c = nullptr, *c_prev = nullptr; // [rows][H padded]
  size_t ld_c = 0;
  Rows<const T> h, h_prev;        // [rows][H]
  const uint8_t *reset = nullptr; // [rows] or null: this step started from a zero state
  const T *zeros = nullptr;       // as in ForwardStep
  T *d = nullptr;                 // [rows][slot][H], out; behind the gates' slots those of peepholes
  size_t ld_d = 0;
  T *m = nullptr; // [rows][H] projected LSTM: o * tanh(c); reset-before GRU: r * h_prev
  size_t ld_m = 0;
};

// out[i] = init + a[i] B. With plain panels the rows of `out` are ordinary, with gate panels they are packed.
template <class T> struct Product {
  size_t rows = 0, depth = 0, first_panel = 0, last_panel = 0;
  const T *const *a = nullptr; // [rows] -> [depth]
  T *const *out = nullptr;     // [rows]
  const T *b = nullptr;        // packed
  RowMajor<T> b_rows;          // B where it is not packed
  const T *init = nullptr;     // a packed row, from which all sums start; null (plain panels only): from 0
  size_t columns = 0;          // N with plain panels, H with gate panels
  bool add = false;            // plain panels only: out += product
};

// A weight gradient, a sum over all steps k of all sequences: c[row(r)][:] += sum over k of a[k][r] * b[k][:]
template <class T> struct OuterProduct {
  size_t depth = 0;
  const T *const *a = nullptr; // [depth] -> from a_first on, one number for each row of c
  const T *const *b = nullptr; // [depth] -> from b_first on, `columns` numbers; null: a bias, b = 1 and columns = 1
  size_t a_first = 0, b_first = 0, columns = 0;
  size_t first = 0, last = 0; // the rows r of this call
  T *c = nullptr;
  size_t ld = 0;
  // rows r are grouped by gate, `hidden` each; order[g]: the place of gate g in c
  size_t hidden = 0;
  const int *order = nullptr;
  bool overwrite = false; // c = the sum, instead of c += the sum
  T *scratch = nullptr;   // outer_scratch(columns, depth) numbers

  size_t row(size_t r) const { return size_t(order[r / hidden]) * hidden + r % hidden; }
};

// How many partial sums a sum over a row of numbers consists of, on every kernel set: so all get the same bits.
constexpr size_t sum_ways = 32;

// What an optimiser does to n parameters p with the gradient g; update.hpp has the equations. a and b are its buffers.
// Adam: a is m, b is v. RMSprop: a is v, b its momentum. SGD: a is its momentum. A momentum that is not used is null.
template <class T> struct Update {
  size_t n = 0;
  T *p = nullptr, *a = nullptr, *b = nullptr;
  const T *g = nullptr;
  T scale = T(1);                            // factor of the gradient, from clipping
  T decay = T(0);                            // L2 weight decay, which adds to the gradient
  T keep = T(1);                             // factor of the parameters: decoupled weight decay (AdamW)
  T first = T(0), second = T(0), eps = T(0), // Adam: 1 - b1, 1 - b2; RMSprop: momentum, 1 - alpha; SGD: momentum
      rate = T(0);
  bool nesterov = false;
};

// Kernels of one number type. Sizes count numbers of T.
template <class T> struct Kernels {
  size_t lanes;

  size_t (*gate_slots)(Cell);  // of a packed row (whose length is slots * H padded) and of a row of gradients
  size_t (*saved_slots)(Cell); // of a row of gates on the tape

  // packs gate panels [begin, end) of W [gates * hidden, K], for gates [first, first + count) of it
  void (*pack_gates)(T *to, const T *w, size_t ld, size_t first, size_t count, size_t hidden, size_t depth,
                     size_t begin, size_t end);
  void (*pack_bias)(T *to, const T *b_ih, const T *b_hh, Cell, size_t hidden); // packed row; either may be null
  void (*pack_unit_row)(T *to, const T *from, size_t hidden);                  // [H] -> [H padded]
  // packs `rows` rows of B [depth, N], those from row `at` on, into plain panels
  void (*pack_plain)(T *to, const T *b, size_t ld, size_t at, size_t rows, size_t depth, size_t columns);

  size_t (*gate_panels)(size_t gates, size_t hidden); // how many panels there are
  size_t (*plain_panels)(size_t columns);
  size_t (*tile_rows)(Cell); // the most rows of a tile of a step

  void (*gate_product)(const Product<T> &, Cell);
  void (*plain_product)(const Product<T> &);
  void (*forward[cell_count])(const ForwardStep<T> &); // by Cell; reset-before GRU: r, z and r * h_prev
  void (*forward_candidate)(const ForwardStep<T> &);   // reset-before GRU: the candidate and h
  void (*forward_candidate_general)(const ForwardStep<T> &);
  void (*backward[cell_count])(const BackwardStep<T> &); // by Cell; reset-before GRU: the candidate and z
  void (*backward_gates)(const BackwardStep<T> &);       // reset-before GRU: r
  void (*backward_gates_general)(const BackwardStep<T> &);
  void (*backward_store)(const BackwardStep<T> &);         // only d = dh: for the initial state and projections
  void (*backward_store_carried)(const BackwardStep<T> &); // the same for cells where carries_h is true

  // recurrent dropout: carry_h = m times the product, plus what it was with `carried`
  void (*backward_drop)(const BackwardStep<T> &);
  void (*backward_drop_carried)(const BackwardStep<T> &);

  size_t (*outer_scratch)(size_t columns, size_t depth);
  size_t outer_rows; // the most rows of a tile of `outer`
  void (*outer)(const OuterProduct<T> &);
  void (*outer_fold)(T *total, const OuterProduct<T> &, bool start); // total = c (start) or total += c

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

  // for benchmarks: loops that do nothing but fma in registers, whose operations are counted, or nothing but read
  double (*peak)(size_t rounds);
  T (*read)(const T *from, size_t n, size_t rounds);
};

} // namespace fastrnn
