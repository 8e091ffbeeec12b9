#include "engine/schedule.hpp"
#include "runtime/callers.hpp"

#include <algorithm>

namespace fastrnn {

namespace {

size_t weight_size(const Problem &p) { return p.weight ? p.weight : p.number; }
double recurrent_bytes(const Problem &p) {
  return double(p.gates) * double(p.hidden) * double(p.recurrent) * double(weight_size(p));
}
// R fits in the near cache.
bool r_is_near(const Problem &p) { return recurrent_bytes(p) <= double(p.l2); }

// The most steps of a call that does not pack its weights. Packing reads the weights once and writes as much again,
// and so few steps do not earn that back. Weights beyond the near cache cost more to pack. A larger batch earns more by
// packing, as each step reads the weights for all its sequences. docs/performance-log.md has the measurements.
size_t longest_unpacked(const Problem &p) {
  if (p.packed || !p.one_product) return 0;
  if (p.rows == 1) return r_is_near(p) ? 2 : 3;
  if (r_is_near(p)) return 1;
  if (p.backward) return p.rows <= 8 ? 2 : 1;
  return p.rows <= 16 ? 3 : p.rows <= rows_in_pieces ? 2 : 1;
}
bool too_short_to_pack(const Problem &p) { return p.steps <= longest_unpacked(p); }

// By how much the largest of the threads' shares of n things exceeds an even share.
double excess(size_t n, size_t threads) { return double((n + threads - 1) / threads * threads) / double(n) - 1; }

// The widest input whose product is fused into the step. A few multiply-adds inside the step cost less than a pass of
// their own, which writes pre-activations to memory and reads them back.
size_t widest_fused(const Plan &plan, const Problem &p) {
  const size_t threads = plan.split == Split::rows ? size_t(plan.threads) : 1;
  const size_t rows = (p.rows + threads - 1) / threads;
  if (!in_registers(rows, p.recurrent, forward_depth_in_registers)) return 4;
  if (rows > 1) return 8;
  // With one sequence, the core waits for the cell's last operations. It can compute the next step's input product
  // meanwhile, so wider inputs pay. The wait is longest with two panels, and too short with an Elman cell.
  if (p.gates == 1 || p.hidden > 32) return 4;
  return p.panels == 2 ? 24 : 8;
}
bool fuses_input(const Plan &plan, const Problem &p) {
  return p.fuses && !resets_before(p.cell) && (p.input <= widest_fused(plan, p) || p.steps == 1);
}

// Operations of a thread between two barriers. From here on, the time at barriers is a small part of the whole.
constexpr double waits_seldom = 5e6;

void share(Plan &plan, const Problem &p) {
  if (p.total == 0) return;

  // Small weights take less time: the limits below are in operations of float32.
  const double operations = 2.0 * double(weight_size(p)) / double(p.number);
  const double step_work = operations * double(p.gates) * double(p.hidden) * double(p.recurrent);
  const double work = double(p.total) * (step_work + operations * double(p.gates) * double(p.hidden) * double(p.input));
  plan.work = work;
  // sharing a call costs some microseconds: smaller calls would lose by it
  if (p.threads == 1 || work < 1e6) return;

  const size_t threads = size_t(p.threads);
  const size_t mean_rows = p.steps ? p.total / p.steps : 0;
  // rows: every thread reads all of R in each step. Beyond the near cache, only many sequences make that pay.
  const bool rows_fit = mean_rows >= 3 * threads;
  const bool rows_pay = r_is_near(p) || mean_rows >= 64 * threads;
  const bool units_fit = p.hidden * p.number >= 64 * threads;
  // units: a step must be worth several times the barrier that ends it
  const double thread_work = step_work * double(mean_rows ? mean_rows : 1) / double(threads);
  const bool units_pay = thread_work >= (p.contended ? waits_seldom : 3e4) && units_fit;
  // Where the sequences cannot be shared evenly, units may be. `barriers` is what their barriers cost, as a part of the
  // work: at each one a thread could have done some 9e3 operations for every thread there is.
  const double cells = 25.0 * double(p.gates) * double(p.hidden) * double(mean_rows) / double(threads);
  const double barriers = 9e3 * double(threads) * (p.one_product ? 1 : 2) / (thread_work + cells);
  const bool units_more_even = units_pay && p.panels && p.total == p.steps * p.rows &&
                               excess(p.panels, threads) + barriers < excess(p.rows, threads);
  // wavefront: no barrier at all, but a thread reads all of R of its direction; there must be enough directions and
  // layers to keep the threads busy. Where W pushes R out of the near cache, both are read anew at the start of every
  // chunk, and only long sequences make up for that.
  const double weight_bytes =
      recurrent_bytes(p) + double(p.gates) * double(p.hidden) * double(p.input) * double(weight_size(p));
  const bool wavefront_pays = p.layers * p.directions >= threads && r_is_near(p) &&
                              p.steps >= (weight_bytes < double(p.l2) ? 8 : 64) && !p.dropout;
  // pipelined: the products over whole chunks must be worth the helpers and a barrier a chunk
  const double input_work = operations * double(p.gates) * double(p.hidden) * double(p.input);
  const double products = p.backward ? step_work + 2 * input_work : fuses_input(plan, p) ? 0 : input_work;
  const bool pipelined_pays =
      !p.contended && products * double(p.total) >= (p.backward ? 1.25e6 : 7.5e5) * double(threads);
  // Where these products are nearly as much work as the steps, this is better than a barrier a step, as long as a step
  // is short.
  const bool pipelined_pays_more =
      pipelined_pays && mean_rows < threads && products >= 0.75 * step_work && thread_work < (p.backward ? 7e4 : 5e4);
  if (too_short_to_pack(p) && units_fit && !p.contended) {
    plan.threads = p.threads; // few steps, so few barriers; and each thread packs its own share of the weights
    plan.split = Split::units;
  } else if (!rows_fit && wavefront_pays) {
    plan.threads = p.threads;
    plan.split = Split::wavefront;
  } else if (rows_fit && (rows_pay || !units_pay) && !units_more_even) {
    plan.threads = p.threads;
    plan.split = Split::rows;
  } else if (units_pay && !pipelined_pays_more) {
    plan.threads = p.threads;
    plan.split = Split::units;
  } else if (mean_rows >= threads) {
    plan.threads = p.threads;
    plan.split = Split::rows;
  } else if (pipelined_pays) {
    plan.threads = p.threads;
    plan.split = Split::pipelined;
  }
  if (p.cores_taken && plan.split == Split::rows && work < time_slice) plan.threads = 1;
  // Shares follow the threads' speed where barriers are so far apart that a measured speed is more than noise. With
  // shares of the batch there are barriers in training only.
  if (plan.split == Split::units)
    plan.paced = thread_work >= waits_seldom;
  else if (plan.split == Split::rows)
    plan.paced = p.backward && plan.threads > 1 && mean_rows >= 8 * threads && work >= 1e8 * double(threads);
}

} // namespace

Plan schedule(const Problem &p) {
  Plan plan;
  share(plan, p);
  plan.fuse_input = fuses_input(plan, p);
  plan.in_pieces = too_short_to_pack(p);
  // Not with shares of the batch, where each thread would pack all of W, nor in chunks of steps, where each chunk
  // would. (Backward's product reads a few columns of all rows of W, and gains nothing by this.)
  plan.w_in_pieces = plan.in_pieces || (!p.packed && !plan.fuse_input && p.total <= rows_in_pieces &&
                                        (plan.threads == 1 || plan.split == Split::units));
  return plan;
}

} // namespace fastrnn
