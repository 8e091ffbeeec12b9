#include "parallel.hpp"

#include <omp.h>
#include <pthread.h>
#include <sched.h>

namespace fastrnn {

namespace {
std::atomic<int> wanted{0};
std::atomic<bool> region_ran{false}, forked_after_region{false};

void in_child() {
  if (region_ran.load()) forked_after_region.store(true);
}
const int registered = pthread_atfork(nullptr, nullptr, in_child);
} // namespace

int num_threads() {
  (void)registered;
  if (forked_after_region.load(std::memory_order_relaxed)) return 1;
  const int n = wanted.load(std::memory_order_relaxed);
  const int limit = omp_get_max_threads(); // OMP_NUM_THREADS, or what threadpoolctl set
  return n > 0 ? n : limit;
}
void set_num_threads(int n) { wanted.store(n); }

void yield_thread() { sched_yield(); }

void run_region(int threads, void (*body)(void *, int), void *context) {
  if (threads == 1) {
    const FlushSubnormals mode;
    body(context, 0);
    return;
  }
  region_ran.store(true, std::memory_order_relaxed);
#pragma omp parallel num_threads(threads)
  {
    const FlushSubnormals mode;
    body(context, omp_get_thread_num());
  }
}

} // namespace fastrnn
