// callers: how many threads a call gets, given who else computes.
//
// Callers of one process share its cores. What cannot be seen, other processes and other libraries' threads, shows when
// a helper loses its core again and again: then calls that would wait at a barrier in every step do without helpers for
// a while.
#pragma once

#include <cstdint>

#include "runtime/cpus.hpp"

namespace fastrnn {

// How many threads a call may use when nobody else calls: what was set with set_num_threads, else OMP_NUM_THREADS or
// what OpenMP was told since, else one for each physical core that the process may use.
int num_threads();
void set_num_threads(int n); // 0: the default again

// What the default rests on, for show_config.
struct ThreadLimits {
  Cpus cpus;
  int from_openmp; // OMP_NUM_THREADS, 0: not set
};
const ThreadLimits &thread_limits();

// Operations of a call from which on helpers that sleep are worth waking: some hundred microseconds of them.
constexpr double worth_waking = 1e7;
// Operations that take about as long as the system lets a thread run before it gives the core to another one.
constexpr double time_slice = 5e8;

// A call that could use several threads, while it lives.
class ActiveCall {
public:
  ActiveCall();
  ~ActiveCall();
  ActiveCall(const ActiveCall &) = delete;
  ActiveCall &operator=(const ActiveCall &) = delete;
  // This call's share of so many threads. It counts who calls now, and who did a moment ago at the same time as others:
  // callers in a loop leave short gaps.
  int share_of(int threads) const;

private:
  int now_;
};

// How often the threads of a call wait for each other: in every step, or so seldom that somebody else must have
// computed on a core for long before it matters.
enum class Waits { often, seldom };
// A helper kept a call waiting, after so many nanoseconds of work without that; `preempted`: while another thread had
// its core. Returns whether this happens again and again: then somebody else computes there.
bool note_lost_core(Waits, int64_t worked, bool preempted);
// Whether that was so lately: a call that waits so often is not to wait for helpers.
bool cores_are_contended(Waits);
// A call worked for so long without losing a core.
void note_undisturbed(Waits, int64_t worked);

} // namespace fastrnn
