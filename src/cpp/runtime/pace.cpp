#include "runtime/pace.hpp"

#include <algorithm>
#include <atomic>

#include "runtime/helpers.hpp"

namespace fastrnn {

namespace {

// What the calling thread's last call found of its threads.
struct LastCall {
  std::vector<double> busy, done;
  int64_t time = 0;
};
thread_local LastCall last_call;

std::atomic<unsigned> shuffle_state{0};

constexpr int64_t remembered = 1'000'000'000; // ns after which a call no longer starts from what the last one found
constexpr double long_enough = 1e5;           // ns of work of each thread before shares change
constexpr double worth_a_change = 0.03;       // by which the slowest share takes longer than it might
constexpr double least_of_even = 0.25;        // no share is less than that of an even one

} // namespace

void shuffle_shares(unsigned seed) { shuffle_state.store(seed); }
bool shares_are_shuffled() { return shuffle_state.load(std::memory_order_relaxed) != 0; }
double shuffled() {
  // a linear congruential generator (Numerical Recipes)
  const unsigned seed = shuffle_state.load(std::memory_order_relaxed) * 1664525u + 1013904223u;
  shuffle_state.store(seed | 1u, std::memory_order_relaxed);
  return double(seed >> 8) / double(1u << 24);
}

int64_t Pace::now() { return clock_now(); }

Pace::Pace(int threads) {
  if (threads < 2) return;
  const size_t n = size_t(threads);
  laps_.resize(n);
  const bool stale = last_call.busy.size() != n || now() - last_call.time > remembered;
  last_call.busy.resize(n);
  last_call.done.resize(n);
  if (stale || shares_are_shuffled()) return;
  for (size_t i = 0; i < n; ++i) {
    laps_[i].busy = last_call.busy[i];
    laps_[i].done = last_call.done[i];
  }
}

Pace::~Pace() {
  if (laps_.empty() || last_call.busy.size() != laps_.size()) return;
  for (size_t i = 0; i < laps_.size(); ++i) {
    last_call.busy[i] = laps_[i].busy;
    last_call.done[i] = laps_[i].done;
  }
  last_call.time = now();
}

bool Pace::seen_long_enough(const std::vector<int> &threads) {
  return std::all_of(threads.begin(), threads.end(), [&](int i) { return lap(i).busy >= long_enough; });
}

bool Pace::follow(const std::vector<int> &threads, std::vector<Part> &shares) {
  const auto pace = [&](int i) { return lap(i).done / lap(i).busy; };
  double all = 0, slowest = 0;
  for (const int i : threads) {
    if (lap(i).busy <= 0 || lap(i).done <= 0) return false;
    all += pace(i);
    slowest = std::max(slowest, (shares[size_t(i)].end - shares[size_t(i)].begin) / pace(i));
  }
  if (slowest * all < 1 + worth_a_change) return false;
  const auto wanted = [&](int i) { return std::max(pace(i) / all, least_of_even / double(threads.size())); };
  double sum = 0, at = 0;
  for (const int i : threads) sum += wanted(i);
  for (const int i : threads) {
    const double end = i == threads.back() ? 1 : at + wanted(i) / sum;
    shares[size_t(i)] = {at, end};
    at = end;
  }
  return true;
}

void Pace::fade(const std::vector<int> &threads) {
  for (const int i : threads) {
    lap(i).busy /= 2;
    lap(i).done /= 2;
  }
}

} // namespace fastrnn
