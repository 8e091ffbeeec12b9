// helpers: threads that stand by to help callers.
//
// OpenMP makes them, once, and they never leave their parallel region: how they wait is decided here. After a call a
// helper spins for a moment, since the next call often follows at once; then it sleeps, and its core is free for
// others. A caller leases helpers for one call. It counts on a helper only while that helper is known to be running:
// one that has to be woken joins when it gets there, and one that does not get there in time is not waited for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fastrnn {

// Nanoseconds of a clock that never goes back.
int64_t clock_now();

void cpu_relax();
void yield_thread();
// Whether the calling thread had to leave its core to another thread since it last asked. A thread that is late without
// that was kept by something else: an interrupt, cold caches, the host of a virtual machine. (Where the system does not
// tell: true.)
bool was_preempted();
// Sleeps while *word is `value`, 20 ms at most; wakes all who do. (Where the system has no such call: yields.)
void sleep_while(const std::atomic<unsigned> &word, unsigned value);
void sleep_until_woken(const std::atomic<unsigned> &word, unsigned value); // the same without a limit
void wake_all(const std::atomic<unsigned> &word);

// What a helper runs: body(context, index), with the thread's index in the call.
using HelperBody = void (*)(void *context, int index);

struct Helper; // one thread; see helpers.cpp

// Helpers leased for one call; given back when it ends.
class Lease {
public:
  Lease() = default;
  // Takes up to `wanted` helpers that nobody else has. patient: helpers that sleep are worth waking, which begins here.
  // Otherwise only those are taken that spin, and the others are woken for the next call where calls follow each other
  // closely.
  Lease(int wanted, bool patient);
  ~Lease() { give_back(); }
  Lease(Lease &&o) noexcept { *this = std::move(o); }
  Lease &operator=(Lease &&o) noexcept {
    std::swap(helpers_, o.helpers_);
    std::swap(began_, o.began_);
    std::swap(asked_, o.asked_);
    return *this;
  }

  int size() const { return int(helpers_.size()); }
  // Gives back all but so many.
  void keep(int size);
  // How many of them, the first ones, are running: these are certain to begin at once. Waits for so many nanoseconds,
  // at most, for those that have been woken.
  int running(int64_t patience);

  // Begins body(context, i + 1) on every helper i. `end` returns when all that have begun are through; those that have
  // not begun by then never will.
  void begin(HelperBody body, void *context);
  void end();

private:
  void give_back();
  std::vector<Helper *> helpers_;
  int64_t began_ = 0;
  bool asked_ = false; // for helpers, whether or not there were any
};

// For tests and show_config: how many helper threads there are, and how many of them are awake.
struct HelperCount {
  int all, awake;
};
HelperCount count_helpers();

} // namespace fastrnn
