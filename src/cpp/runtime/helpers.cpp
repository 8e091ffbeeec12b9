#include "runtime/helpers.hpp"
#include "runtime/callers.hpp"

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>
#include <memory>
#include <mutex>

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#if defined(__linux__)
#include <ctime>
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fastrnn {

int64_t clock_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void cpu_relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void yield_thread() { sched_yield(); }

#if defined(__linux__)
bool was_preempted() {
  static thread_local long seen = 0;
  rusage usage;
  if (getrusage(RUSAGE_THREAD, &usage) != 0) return true;
  return std::exchange(seen, usage.ru_nivcsw) != usage.ru_nivcsw;
}

namespace {
void wait_on(const std::atomic<unsigned> &word, unsigned value, const timespec *most) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, most, nullptr, 0);
}
} // namespace
void sleep_while(const std::atomic<unsigned> &word, unsigned value) {
  const timespec most = {0, 20'000'000}; // then whoever sleeps asks whether the call was stopped
  wait_on(word, value, &most);
}
void sleep_until_woken(const std::atomic<unsigned> &word, unsigned value) { wait_on(word, value, nullptr); }
void wake_all(const std::atomic<unsigned> &word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
#else
bool was_preempted() { return true; }
void sleep_while(const std::atomic<unsigned> &, unsigned) { yield_thread(); }
void sleep_until_woken(const std::atomic<unsigned> &, unsigned) { yield_thread(); }
void wake_all(const std::atomic<unsigned> &) {}
#endif

// ---- one helper ---------------------------------------------------------------------------------------

enum HelperState : unsigned {
  idle,    // nobody's, or leased and not begun
  offered, // the caller has a body for it, which it has not begun
  begun,   // at work
  through  // has finished; the caller has not noticed yet
};

struct Helper {
  // written by callers
  alignas(64) std::atomic<bool> leased{false};
  std::atomic<unsigned> state{idle};
  std::atomic<unsigned> signal{0};  // what it sleeps on
  std::atomic<bool> awaited{false}; // the caller has been through for a while, and waits for it
  HelperBody body = nullptr;
  void *context = nullptr;
  int index = 0;
  // written by the helper
  alignas(64) std::atomic<int64_t> seen{0}; // when it last looked for work, spinning
  std::atomic<bool> asleep{false};
};

namespace {

// A helper spins for so long after its last work. Longer than what Python does between two calls; short enough that
// another library's threads hardly notice.
constexpr int64_t spin_time = 60'000;
// A spinning helper looks for work several times a microsecond. One that has not looked for so long has lost its core.
constexpr int64_t running_within = 3'000;
// A call that begins so soon after the last one of its thread belongs to a series: helpers that sleep are woken.
constexpr int64_t series_within = 50'000;

// Who waits for so long at the end of a call waits for a helper that may have lost its core.
constexpr int64_t late = 300'000;

thread_local int64_t last_call_ended = 0;

void wake(Helper &helper) {
  helper.signal.fetch_add(1, std::memory_order_seq_cst);
  wake_all(helper.signal);
}

bool is_running(const Helper &helper, int64_t now) {
  return now - helper.seen.load(std::memory_order_relaxed) < running_within;
}

// What a helper does for ever.
void stand_by(Helper &helper) {
  int64_t since = clock_now();
  for (;;) {
    const unsigned signal = helper.signal.load(std::memory_order_acquire);
    unsigned state = offered;
    if (helper.state.load(std::memory_order_acquire) == offered &&
        helper.state.compare_exchange_strong(state, begun, std::memory_order_acq_rel)) {
      const int64_t begin = clock_now();
      helper.body(helper.context, helper.index);
      if (helper.awaited.load(std::memory_order_relaxed)) {
        helper.awaited.store(false, std::memory_order_relaxed);
        note_lost_core(Waits::seldom, clock_now() - begin, was_preempted());
      }
      helper.state.store(through, std::memory_order_release);
      since = clock_now();
      helper.seen.store(since, std::memory_order_relaxed);
      continue;
    }
    const int64_t now = clock_now();
    if (now - since < spin_time) {
      helper.seen.store(now, std::memory_order_relaxed);
      cpu_relax();
      continue;
    }
    helper.asleep.store(true, std::memory_order_seq_cst);
    // a caller first offers or signals, then looks whether the helper sleeps: one of the two sees the other
    while (helper.state.load(std::memory_order_seq_cst) != offered &&
           helper.signal.load(std::memory_order_seq_cst) == signal)
      sleep_until_woken(helper.signal, signal);
    helper.asleep.store(false, std::memory_order_relaxed);
    since = clock_now();
  }
}

// ---- all helpers of the process -----------------------------------------------------------------------

// Never destroyed: helpers sleep in it until the process ends. A child forgets those of its parent, which do not
// survive a fork.
struct Pool {
  static constexpr size_t most = 1024;
  std::atomic<size_t> count{0};
  std::atomic<Helper *> helpers[most] = {};
  std::mutex growing;
  size_t asked = 0; // for so many helpers OpenMP was asked; it may have given fewer
};
Pool *pool = new Pool;

struct Region {
  size_t first, size; // places in the pool
  std::atomic<size_t> ready{0};
  std::atomic<bool> done{false};
};

// The thread that opens the region of a group of helpers. It has no part in the work, so that OpenMP's places, where
// they are set, count from it as from the caller.
void *open_region(void *argument) {
  auto *const region = static_cast<Region *>(argument);
  Pool *const own = pool;
  omp_set_dynamic(0);
#pragma omp parallel num_threads(int(region->size) + 1)
  {
    const int index = omp_get_thread_num();
    if (index == 0) {
      // those that OpenMP did not give are not waited for
      const size_t given = size_t(omp_get_num_threads()) - 1;
      while (region->ready.load(std::memory_order_acquire) < given) yield_thread();
      own->count.store(region->first + given, std::memory_order_release);
      region->done.store(true, std::memory_order_release);
      // it stays in the region: at the region's end it would wait as OMP_WAIT_POLICY says, which may be spinning
      for (;;) pause();
    } else {
      auto *const helper = new Helper;
      own->helpers[region->first + size_t(index) - 1].store(helper, std::memory_order_release);
      region->ready.fetch_add(1, std::memory_order_acq_rel);
      stand_by(*helper);
    }
  }
  return nullptr;
}

// Makes sure that there are so many helpers, as far as OpenMP gives them.
void grow(size_t wanted) {
  wanted = std::min(wanted, Pool::most);
  if (pool->count.load(std::memory_order_acquire) >= wanted) return;
  const std::lock_guard<std::mutex> hold(pool->growing);
  const size_t there = pool->count.load(std::memory_order_acquire);
  if (there >= wanted || pool->asked >= wanted) return;
  pool->asked = wanted;
  // signals are for the threads that Python knows
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  auto *const region = new Region{there, wanted - there, {}, {}};
  pthread_t thread;
  const bool made = pthread_create(&thread, nullptr, open_region, region) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!made) {
    delete region;
    return;
  }
  pthread_detach(thread);
  while (!region->done.load(std::memory_order_acquire)) yield_thread();
  delete region;
}

void in_child() {
  pool = new Pool;
  last_call_ended = 0;
}
const int registered = pthread_atfork(nullptr, nullptr, in_child);

} // namespace

// ---- leases -------------------------------------------------------------------------------------------

Lease::Lease(int wanted, bool patient) {
  (void)registered;
  if (wanted < 1) return;
  asked_ = true;
  grow(size_t(wanted));
  helpers_.reserve(size_t(wanted));
  const size_t count = pool->count.load(std::memory_order_acquire);
  const int64_t now = clock_now();
  const bool series = now - last_call_ended < series_within;
  const auto take = [&](bool running) {
    for (size_t i = 0; i < count && helpers_.size() < size_t(wanted); ++i) {
      Helper &helper = *pool->helpers[i].load(std::memory_order_relaxed);
      if (helper.leased.load(std::memory_order_relaxed)) continue;
      if (is_running(helper, now) != running) continue;
      if (helper.leased.exchange(true, std::memory_order_acquire)) continue;
      helpers_.push_back(&helper);
    }
  };
  take(true);
  if (patient) {
    const size_t running = helpers_.size();
    take(false);
    for (size_t i = running; i < helpers_.size(); ++i)
      if (helpers_[i]->asleep.load(std::memory_order_seq_cst)) wake(*helpers_[i]);
  } else if (series) {
    for (size_t i = 0, left = size_t(wanted) - helpers_.size(); i < count && left > 0; ++i) {
      Helper &helper = *pool->helpers[i].load(std::memory_order_relaxed);
      if (helper.leased.load(std::memory_order_relaxed) || !helper.asleep.load(std::memory_order_relaxed)) continue;
      wake(helper);
      --left;
    }
  }
}

void Lease::keep(int size) {
  while (int(helpers_.size()) > size) {
    helpers_.back()->leased.store(false, std::memory_order_release);
    helpers_.pop_back();
  }
}

int Lease::running(int64_t patience) {
  const int64_t begin = clock_now();
  for (int64_t now = begin;; now = clock_now()) {
    size_t running = 0;
    for (Helper *&helper : helpers_)
      if (is_running(*helper, now)) std::swap(helper, helpers_[running++]);
    if (running == helpers_.size() || now - begin >= patience) return int(running);
    cpu_relax();
  }
}

void Lease::begin(HelperBody body, void *context) {
  began_ = clock_now();
  for (size_t i = 0; i < helpers_.size(); ++i) {
    Helper &helper = *helpers_[i];
    helper.body = body;
    helper.context = context;
    helper.index = int(i) + 1;
    helper.state.store(offered, std::memory_order_seq_cst);
    if (helper.asleep.load(std::memory_order_seq_cst)) wake(helper);
  }
}

void Lease::end() {
  const int64_t begin = clock_now();
  bool waited = false;
  for (Helper *helper : helpers_) {
    unsigned state = offered;
    if (helper->state.compare_exchange_strong(state, idle, std::memory_order_acq_rel)) continue;
    for (unsigned spins = 0; helper->state.load(std::memory_order_acquire) != through; ++spins) {
      if (spins < 2000) {
        cpu_relax();
        continue;
      }
      yield_thread();
      if (!waited && clock_now() - begin > late) {
        waited = true;
        helper->awaited.store(true, std::memory_order_relaxed);
      }
    }
    helper->awaited.store(false, std::memory_order_relaxed);
    helper->state.store(idle, std::memory_order_relaxed);
  }
  if (!waited && !helpers_.empty()) note_undisturbed(Waits::seldom, begin - began_);
}

void Lease::give_back() {
  keep(0);
  if (asked_) last_call_ended = clock_now();
  asked_ = false;
}

HelperCount count_helpers() {
  HelperCount n = {int(pool->count.load(std::memory_order_acquire)), 0};
  for (int i = 0; i < n.all; ++i)
    if (!pool->helpers[i].load(std::memory_order_relaxed)->asleep.load(std::memory_order_relaxed)) ++n.awake;
  return n;
}

} // namespace fastrnn
