#include "runtime/callers.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include <omp.h>

#include "runtime/helpers.hpp"

namespace fastrnn {

namespace {

std::atomic<int> wanted{0}, limit_when_set{0};

ThreadLimits find_limits() {
  const char *const set = std::getenv("OMP_NUM_THREADS");
  return {read_cpus("", allowed_cpus()), set && *set ? omp_get_max_threads() : 0};
}

int default_threads() {
  const ThreadLimits &limits = thread_limits();
  const int openmp = omp_get_max_threads();
  if (limits.from_openmp || openmp < int(limits.cpus.allowed.size())) return openmp; // somebody asked for so many
  return std::min(openmp, int(limits.cpus.usable()));
}

// ---- callers of this process

constexpr int most_counted = 64;
constexpr int64_t remembered = 20'000'000; // ns
std::atomic<int> active{0}, most_seen{1};
std::atomic<int64_t> seen_at[most_counted + 1];

// ---- cores that others take

// A single delay says little. A core that goes to another thread again after so short a time of work is one that
// somebody else computes on. Then calls do without helpers for a while, twice as long each time it happens
// again.
constexpr int64_t soon = 10'000'000, shortest_pause = 2'000'000, longest_pause = 256'000'000; // ns
struct Contention {
  std::atomic<int64_t> paused_until{0}, last_pause{0};
  std::atomic<int64_t> undisturbed{soon}; // ns of work since a core was lost
};
Contention contention[2]; // by Waits
Contention &of(Waits waits) { return contention[size_t(waits)]; }

} // namespace

const ThreadLimits &thread_limits() {
  static const ThreadLimits limits = find_limits();
  return limits;
}

int num_threads() {
  const int n = wanted.load(std::memory_order_relaxed);
  if (n == 0) return default_threads();
  const int limit = omp_get_max_threads(); // threadpoolctl may have lowered it since
  return limit < limit_when_set.load(std::memory_order_relaxed) ? std::min(n, limit) : n;
}

void set_num_threads(int n) {
  wanted.store(n);
  limit_when_set.store(omp_get_max_threads());
}

ActiveCall::ActiveCall() : now_(std::min(active.fetch_add(1, std::memory_order_relaxed) + 1, most_counted)) {
  if (now_ < 2) return;
  seen_at[now_].store(clock_now(), std::memory_order_relaxed);
  if (now_ > most_seen.load(std::memory_order_relaxed)) most_seen.store(now_, std::memory_order_relaxed);
}

ActiveCall::~ActiveCall() { active.fetch_sub(1, std::memory_order_relaxed); }

int ActiveCall::share_of(int threads) const {
  int callers = now_;
  const int most = most_seen.load(std::memory_order_relaxed);
  if (most > now_) {
    const int64_t now = clock_now();
    for (int n = most; n > now_; --n)
      if (now - seen_at[n].load(std::memory_order_relaxed) < remembered) {
        callers = n;
        break;
      }
    if (callers < most) most_seen.store(callers, std::memory_order_relaxed);
  }
  return std::max(threads / callers, 1);
}

bool note_lost_core(Waits waits, int64_t worked, bool preempted) {
  Contention &c = of(waits);
  const bool again = preempted && c.undisturbed.load(std::memory_order_relaxed) + worked < soon;
  c.undisturbed.store(0, std::memory_order_relaxed);
  if (!again) {
    c.last_pause.store(0, std::memory_order_relaxed);
    return false;
  }
  const int64_t pause =
      std::min(std::max(2 * c.last_pause.load(std::memory_order_relaxed), shortest_pause), longest_pause);
  c.last_pause.store(pause, std::memory_order_relaxed);
  c.paused_until.store(clock_now() + pause, std::memory_order_relaxed);
  return true;
}

bool cores_are_contended(Waits waits) {
  const int64_t until = of(waits).paused_until.load(std::memory_order_relaxed);
  return until != 0 && clock_now() < until;
}

void note_undisturbed(Waits waits, int64_t worked) {
  Contention &c = of(waits);
  if (c.undisturbed.load(std::memory_order_relaxed) < soon) c.undisturbed.fetch_add(worked, std::memory_order_relaxed);
}

} // namespace fastrnn
