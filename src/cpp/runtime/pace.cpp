#include "runtime/pace.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace fastrnn {

namespace {

// What the calling thread's last call found of its threads.
struct Known {
  std::vector<double> busy, done;
  int64_t time = 0;
};
thread_local Known known;

std::atomic<unsigned> shuffled{0};

constexpr int64_t fresh = 1'000'000'000; // ns: so long the next call starts from what the last one found
constexpr double settled = 1e5;          // ns that each thread must have been seen at work before shares change
constexpr double worth_a_change = 0.03;  // by which the slowest share takes longer than it might
constexpr double least_of_even = 0.25;   // no share is less than that of an even one

} // namespace

void shuffle_shares(unsigned seed) { shuffled.store(seed); }
bool shares_are_shuffled() { return shuffled.load(std::memory_order_relaxed) != 0; }

int64_t Pace::now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Pace::Pace(int threads) {
  if (threads < 2) return;
  const size_t n = size_t(threads);
  laps_.resize(n);
  bounds_.reserve(n + 1); // no memory is asked for while threads are at work
  const bool stale = known.busy.size() != n || now() - known.time > fresh;
  known.busy.resize(n);
  known.done.resize(n);
  if (stale || shares_are_shuffled()) return;
  for (size_t i = 0; i < n; ++i) {
    laps_[i].busy = known.busy[i];
    laps_[i].done = known.done[i];
  }
  follow(n);
}

Pace::~Pace() {
  if (laps_.empty() || known.busy.size() != laps_.size()) return;
  for (size_t i = 0; i < laps_.size(); ++i) {
    known.busy[i] = laps_[i].busy;
    known.done[i] = laps_[i].done;
  }
  known.time = now();
}

// Shares in proportion to paces. False: too little is known, or too little would be gained.
bool Pace::follow(size_t of) {
  const auto pace = [&](size_t i) { return laps_[i].done / laps_[i].busy; };
  double all = 0, slowest = 0;
  for (size_t i = 0; i < of; ++i) {
    if (laps_[i].busy <= 0 || laps_[i].done <= 0) return false;
    const Part now = part(int(i), int(of));
    all += pace(i);
    slowest = std::max(slowest, (now.end - now.begin) / pace(i));
  }
  if (slowest * all < 1 + worth_a_change) return false;
  const auto share = [&](size_t i) { return std::max(pace(i) / all, least_of_even / double(of)); };
  double sum = 0;
  for (size_t i = 0; i < of; ++i) sum += share(i);
  bounds_.assign(of + 1, 1);
  bounds_[0] = 0;
  for (size_t i = 0; i + 1 < of; ++i) bounds_[i + 1] = bounds_[i] + share(i) / sum;
  return true;
}

void Pace::share_anew(int threads) {
  const size_t of = size_t(threads);
  if (unsigned seed = shuffled.load(std::memory_order_relaxed)) {
    bounds_.assign(of + 1, 1);
    bounds_[0] = 0;
    for (size_t i = 1; i < of; ++i) {
      seed = seed * 1664525u + 1013904223u; // a linear congruential generator (Numerical Recipes)
      bounds_[i] = double(seed >> 8) / double(1u << 24);
    }
    std::sort(bounds_.begin(), bounds_.end());
    shuffled.store(seed | 1u);
    ++changes_;
    return;
  }
  for (size_t i = 0; i < of; ++i)
    if (laps_[i].busy < settled) return;
  if (follow(of)) ++changes_;
  for (Lap &lap : laps_) {
    lap.busy /= 2;
    lap.done /= 2;
  }
}

} // namespace fastrnn
