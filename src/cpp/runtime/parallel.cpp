#include "runtime/parallel.hpp"

#include <algorithm>
#include <climits>
#include <omp.h>
#include <pthread.h>
#include <sched.h>

#if defined(__linux__)
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastrnn {

namespace {
std::atomic<int> wanted{0}, limit_when_set{0};
std::atomic<bool> forked{false};

void in_child() { forked.store(true); }
const int registered = pthread_atfork(nullptr, nullptr, in_child);
} // namespace

int num_threads() {
  (void)registered;
  if (forked.load(std::memory_order_relaxed)) return 1;
  const int n = wanted.load(std::memory_order_relaxed);
  const int limit = omp_get_max_threads(); // OMP_NUM_THREADS, or what threadpoolctl set
  if (n == 0) return limit;
  return limit < limit_when_set.load(std::memory_order_relaxed) ? std::min(n, limit) : n;
}
void set_num_threads(int n) {
  wanted.store(n);
  limit_when_set.store(omp_get_max_threads());
}

void yield_thread() { sched_yield(); }

#if defined(__linux__)
void sleep_while(const std::atomic<unsigned> &word, unsigned value) {
  const timespec most = {0, 20'000'000}; // 20 ms: then whoever sleeps asks whether the call was stopped
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, &most, nullptr, 0);
}
void wake_all(const std::atomic<unsigned> &word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
#else
void sleep_while(const std::atomic<unsigned> &, unsigned) { yield_thread(); }
void wake_all(const std::atomic<unsigned> &) {}
#endif

void run_region(int threads, void (*body)(void *, int, int), void *context) {
  if (threads == 1) {
    const FlushSubnormals mode;
    body(context, 0, 1);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const FlushSubnormals mode;
    body(context, omp_get_thread_num(), omp_get_num_threads());
  }
}

} // namespace fastrnn
