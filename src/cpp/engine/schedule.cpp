#include "engine/schedule.hpp"

#include <algorithm>

namespace fastrnn {

namespace {

double recurrent_bytes(const Problem &p) {
  return double(p.gates) * double(p.hidden) * double(p.recurrent) * double(p.number);
}
// R fits in the near cache.
bool r_is_near(const Problem &p) { return recurrent_bytes(p) <= double(p.l2); }

// The longest call for which packing weights does not pay: that reads them once, and writes as much again, which is
// more than so few steps save. Beyond the near cache it costs more. Two steps of one row 1.0 to 2.8 times as fast
// (training 0.9 to 2.2), three of 300 units and more 0.8 to 2.2 (0.84 to 1.6); of smaller ones 0.86 to 1.06, four of
// either 0.55 to 1.7. More rows have more to save: two steps of 2 to 100 rows of 512 units 1.0 to 3.0, three of 2 to
// 16 rows 0.92 to 2.8, of 32 0.92 to 1.13; backward two steps of 2 to 8 rows of 300 to 700 units 0.87 to 1.43.
size_t longest_unpacked(const Problem &p) {
  if (p.packed || !p.one_product) return 0;
  if (p.rows == 1) return r_is_near(p) ? 2 : 3;
  if (r_is_near(p)) return 1;
  if (p.backward) return p.rows <= 8 ? 2 : 1;
  return p.rows <= 16 ? 3 : p.rows <= rows_in_pieces ? 2 : 1;
}
bool too_short_to_pack(const Problem &p) { return p.steps <= longest_unpacked(p); }

// By how much the largest of `threads` shares of n exceeds an even one.
double excess(size_t n, size_t threads) { return double((n + threads - 1) / threads * threads) / double(n) - 1; }

// An fma per input number costs less inside the step than a pass over a buffer of pre-activations: the widest input
// for which that is so.
size_t widest_fused(const Plan &plan, const Problem &p) {
  const size_t threads = plan.split == Split::rows ? size_t(plan.threads) : 1;
  const size_t rows = (p.rows + threads - 1) / threads;
  if (!in_registers(rows, p.recurrent, forward_depth_in_registers)) return 4;
  if (rows > 1) return 8; // 6 and 8 numbers 1.01 to 1.12, 12 0.94 to 1.07
  // A row alone waits for its cell, and its next input product runs meanwhile: 16 numbers 1.04 to 1.08 with two panels,
  // 24 1.04; with one, or three and four, 8 1.0 to 1.07. An Elman cell is waited for less (8 numbers 0.95).
  if (p.gates == 1 || p.hidden > 32) return 4;
  return p.panels == 2 ? 24 : 8;
}
bool fuses_input(const Plan &plan, const Problem &p) {
  return p.cell != Cell::gru_before && (p.input <= widest_fused(plan, p) || p.steps == 1);
}

// Operations of a thread between two barriers, from which on waiting there weighs little.
constexpr double waits_seldom = 5e6;

void share(Plan &plan, const Problem &p) {
  if (p.total == 0) return;

  const double step_work = 2.0 * double(p.gates) * double(p.hidden) * double(p.recurrent);
  const double work = double(p.total) * (step_work + 2.0 * double(p.gates) * double(p.hidden) * double(p.input));
  plan.work = work;
  // sharing a call costs some microseconds, in which a core does some 50 kFLOP each
  if (p.threads == 1 || work < 1e6) return;

  const size_t threads = size_t(p.threads);
  const size_t mean_rows = p.steps ? p.total / p.steps : 0;
  // rows: every thread reads all of R each step, which only many rows pay off from beyond the near cache
  const bool rows_fit = mean_rows >= 3 * threads;
  const bool rows_pay = r_is_near(p) || mean_rows >= 64 * threads;
  const bool units_fit = p.hidden * p.number >= 64 * threads;
  // units: a barrier costs about 0.2 us; a step must be worth several
  const double thread_work = step_work * double(mean_rows ? mean_rows : 1) / double(threads);
  const bool units_pay = thread_work >= (p.contended ? waits_seldom : 3e4) && units_fit;
  // Where rows cannot be shared evenly, units may be, meetings counted in (in each some 18 kFLOP are lost to a thread
  // with one other): 7 to 13 rows of LSTM of 64 to 180 units 1.02 to 1.2, GRU of 128 and 200 1.04 to 1.1.
  const double cells = 25.0 * double(p.gates) * double(p.hidden) * double(mean_rows) / double(threads);
  const double meetings = 9e3 * double(threads) * (p.one_product ? 1 : 2) / (thread_work + cells);
  const bool units_more_even = units_pay && p.panels && p.total == p.steps * p.rows &&
                               excess(p.panels, threads) + meetings < excess(p.rows, threads);
  // tasks: no barrier at all, but every thread reads all of some R; enough pieces to keep the threads busy. Where W
  // pushes R out of the near cache, a sequence must be long to make up for fetching both at its start.
  const double weight_bytes =
      recurrent_bytes(p) + double(p.gates) * double(p.hidden) * double(p.input) * double(p.number);
  const bool tasks_pay = p.layers * p.directions >= threads && r_is_near(p) &&
                         p.steps >= (weight_bytes < double(p.l2) ? 8 : 64) && !p.dropout;
  // apart: what the products over whole chunks take must be worth a region and a barrier a chunk. 1.1 to 1.4 times as
  // fast forward and 1.2 to 1.7 in training from there on; half as much 0.9 to 1.05.
  const double input_work = 2.0 * double(p.gates) * double(p.hidden) * double(p.input);
  const double products = p.backward ? step_work + 2 * input_work : fuses_input(plan, p) ? 0 : input_work;
  const bool apart_pays = !p.contended && products * double(p.total) >= (p.backward ? 1.25e6 : 7.5e5) * double(threads);
  // And where they are as much as the steps, better than a barrier a step as long as a step is short: LSTM of 96 and
  // GRU of 128 units 1.5 for 1.4; in minutes when the cores are shared such barriers cost more than they bring.
  const bool apart_pays_more =
      apart_pays && mean_rows < threads && products >= 0.75 * step_work && thread_work < (p.backward ? 7e4 : 5e4);
  if (too_short_to_pack(p) && units_fit && !p.contended) {
    plan.threads = p.threads; // no barrier or few, and each thread packs its own share of the weights
    plan.split = Split::units;
  } else if (!rows_fit && tasks_pay) {
    plan.threads = p.threads;
    plan.split = Split::tasks;
  } else if (rows_fit && (rows_pay || !units_pay) && !units_more_even) {
    plan.threads = p.threads;
    plan.split = Split::rows;
  } else if (units_pay && !apart_pays_more) {
    plan.threads = p.threads;
    plan.split = Split::units;
  } else if (mean_rows >= threads) {
    plan.threads = p.threads;
    plan.split = Split::rows;
  } else if (apart_pays) {
    plan.threads = p.threads;
    plan.split = Split::apart;
  }
  // Where a meeting comes late enough for the pace to be more than noise (1.00 to 1.07 on two like cores of a shared
  // machine; from 15 us on 0.93 to 1.08), and threads meet anyway: rows only do in training.
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
  // Up to 1.1 times as fast, training included. Threads that share rows would each pack all of W, and chunks of steps
  // would pack it anew. (The product of backward reads a few columns of all its rows: in pieces 0.92 to 1.05.)
  plan.w_in_pieces = plan.in_pieces || (!p.packed && !plan.fuse_input && p.total <= rows_in_pieces &&
                                        (plan.threads == 1 || plan.split == Split::units));
  return plan;
}

} // namespace fastrnn
