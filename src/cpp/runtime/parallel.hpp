// The threads of one call: one parallel region, a light barrier, the floating-point mode, the stop flag.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "runtime/pace.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fastrnn {

// How many threads a call may use: OMP_NUM_THREADS or the number of cores, until set_num_threads.
// One in a forked child: the pool of libgomp, which others of the process may have filled, does not survive a fork.
int num_threads();
void set_num_threads(int n);

inline void cpu_relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}
void yield_thread();
// Sleep while *word is `value`; wake all who do. (Without such a call in the system: yield.)
void sleep_while(const std::atomic<unsigned> &word, unsigned value);
void wake_all(const std::atomic<unsigned> &word);

// The control register of floating-point arithmetic, of this thread.
#if defined(__x86_64__) || defined(_M_X64)
typedef unsigned FloatMode;
inline FloatMode float_mode() { return _mm_getcsr(); }
inline void set_float_mode(FloatMode mode) { _mm_setcsr(mode); }
// FTZ, DAZ, exceptions masked, round to nearest
inline FloatMode flushing(FloatMode mode) { return (mode | 0x9fc0u) & ~0x6000u; }
#elif defined(__aarch64__)
typedef uint64_t FloatMode;
inline FloatMode float_mode() {
  FloatMode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
inline FloatMode flushing(FloatMode mode) { return (mode | (1u << 24)) & ~(3ull << 22); }
#endif

// A mode while it lives; what was there before comes back after.
class WithFloatMode {
public:
  explicit WithFloatMode(FloatMode mode) : before_(float_mode()) { set_float_mode(mode); }
  ~WithFloatMode() { set_float_mode(before_); }
  WithFloatMode(const WithFloatMode &) = delete;
  WithFloatMode &operator=(const WithFloatMode &) = delete;

private:
  const FloatMode before_;
};
// Subnormals are flushed to zero.
struct FlushSubnormals : WithFloatMode {
  FlushSubnormals() : WithFloatMode(flushing(float_mode())) {}
};

// What the threads of a call share.
class Team {
public:
  // paced: so many threads, whose shares follow their pace; 0: shares are even.
  explicit Team(bool (*interrupted)(), int paced = 0) : pace(paced), interrupted_(interrupted) {}

  Pace pace;

  // All `size` threads of the team meet, this one is number `rank`; false when the call was interrupted. Waiting
  // threads spin for a moment, then sleep: a thread that lost its core to another process would find its peers' cores
  // gone as well if they had spun or yielded instead, whereas sleepers are scheduled at once when it arrives.
  // shares_anew: what the threads take may be another share from here on.
  bool meet(int rank, int size, bool shares_anew) {
    if (size == 1) return !stopped();
    const bool paced = pace.measures();
    if (paced) pace.arrive(rank);
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      taken_.store(0, std::memory_order_relaxed);
      if (paced) pace.release(rank);
      if (paced && shares_anew) pace.share_anew(size);
      round_.store(round + 1, std::memory_order_seq_cst);
      if (sleeping_.load(std::memory_order_seq_cst)) wake_all(round_);
      return !stopped();
    }
    bool slept = false;
    for (unsigned spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (stopped()) return false;
      if (spins < spin_limit) {
        cpu_relax();
        continue;
      }
      slept = true;
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      sleep_while(round_, round);
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (paced) pace.leave(rank, slept);
    return !stopped();
  }

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // Pieces of work that threads take one by one between two meetings: 0, 1, 2 ...
  size_t take() { return taken_.fetch_add(1, std::memory_order_relaxed); }

  static constexpr size_t poll_work = size_t(1) << 22;

  // The calling thread asks now and then whether the user wants to stop (Ctrl-C): `work` counts operations,
  // the clock is read every few million of them and the question asked every 50 ms.
  void poll(size_t work) {
    if (!interrupted_ || (work_ += work) < poll_work) return;
    work_ = 0;
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < std::chrono::milliseconds(50)) return;
    asked_ = now;
    const WithFloatMode mode(caller_mode_); // signal handlers run in it
    if (!interrupted_()) return;
    stop_.store(true, std::memory_order_relaxed);
    wake_all(round_); // they look at `stop_` now and then anyway
  }

private:
  static constexpr unsigned spin_limit = 2000; // some 30 us: longer than any step between two barriers waits
  bool (*const interrupted_)();
  const FloatMode caller_mode_ = float_mode(); // the team is made outside of the threads' region
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
  std::atomic<int> sleeping_{0};
  alignas(64) std::atomic<size_t> taken_{0};
  alignas(64) std::atomic<bool> stop_{false};
  alignas(64) size_t work_ = 0; // written at every step by the thread that polls; the others read `stop_`
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

// One thread as a pass sees it: number `rank` of the `of` threads that share a piece of work. Where threads take
// whole pieces of their own, each is alone: rank 0 of 1.
struct Worker {
  Team *team;
  int thread; // of the call: whose scratch memory
  int rank, of;

  bool meet() const { return team->meet(rank, of, false); }
  // The same; shares may have changed then.
  bool meet_and_share() const { return team->meet(rank, of, true); }
  // The thread begins; and has got so much work done, in multiply-adds or the like.
  void begin() const {
    if (team->pace.measures()) team->pace.begin(rank);
  }
  void did(double work) const {
    if (of > 1 && team->pace.measures()) team->pace.did(rank, work);
  }
  bool stopped() const { return team->stopped(); }
  void poll(size_t work) const {
    if (thread == 0) team->poll(work);
  }
  // how many steps of so many operations may go by without asking
  static size_t steps_between_polls(size_t work) { return std::max<size_t>(Team::poll_work / work, 1); }
  Worker alone() const { return {team, thread, 0, 1}; }
};

inline Part share_of(const Worker &w) { return w.of == 1 ? Part() : w.team->pace.part(w.rank, w.of); }
inline Range share(size_t n, const Worker &w) { return share_of(w)(n); }

// body(rank, of) on up to `threads` threads in one region (none for one thread), subnormals flushed on each. OpenMP may
// give fewer than asked (OMP_THREAD_LIMIT, OMP_DYNAMIC, a region around this one): `of` says how many there are.
void run_region(int threads, void (*body)(void *context, int rank, int of), void *context);
template <class F> void parallel(int threads, F &&body) {
  run_region(threads, [](void *context, int rank, int of) { (*static_cast<F *>(context))(rank, of); }, &body);
}

} // namespace fastrnn
