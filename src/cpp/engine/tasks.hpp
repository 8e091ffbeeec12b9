// tasks: which chunk of steps of which direction a thread takes next, where the work is a wavefront (Split::wavefront).
// A task is one direction of one layer. Chunks are long (tens of microseconds), so one lock serves.
#pragma once

#include <vector>

#include "runtime/team.hpp"

namespace fastrnn {

class TaskBoard {
public:
  explicit TaskBoard(size_t tasks) : state_(tasks), left_(tasks) {}

  static constexpr size_t none = size_t(-1);
  // The task that a thread asks for first. It is the same in every call, since this core's cache may still hold its
  // weights.
  size_t first(const Worker &w) const { return size_t(w.thread) < state_.size() ? size_t(w.thread) : none; }

  // Waits for a task whose next chunk can be computed, marks it busy and returns it. Returns `none` when all are
  // complete or the call was stopped. ready(task) may ask done() and complete(). A thread stays with its `last` task
  // where it can, since this core's cache holds its weights; otherwise it takes the last one in the chain that is
  // ready.
  template <class Ready> size_t claim(const Worker &w, size_t last, Ready &&ready) {
    for (unsigned spins = 0;; ++spins) {
      lock();
      if (left_ == 0 || w.stopped()) {
        unlock();
        return none;
      }
      size_t found = none;
      if (last != none && open(last) && ready(last)) found = last;
      for (size_t i = state_.size(); found == none && i-- > 0;)
        if (open(i) && ready(i)) found = i;
      if (found != none) state_[found].busy = true;
      unlock();
      if (found != none) return found;
      w.poll(Team::poll_work); // other threads may take seconds for their chunks
      if (spins < 200)
        cpu_relax();
      else
        yield_thread();
    }
  }
  // A chunk has been computed: `done` steps of the task are, and with `complete` all of it is.
  void release(size_t task, size_t done, bool complete) {
    lock();
    state_[task].done = done;
    state_[task].busy = false;
    if (complete) {
      state_[task].complete = true;
      --left_;
    }
    unlock();
  }

  // counter + 1, taken by one thread at a time
  int count_in(int &counter) {
    lock();
    const int n = ++counter;
    unlock();
    return n;
  }

  size_t done(size_t task) const { return state_[task].done; }
  bool complete(size_t task) const { return state_[task].complete; }

private:
  struct State {
    size_t done = 0;
    bool busy = false, complete = false;
  };
  bool open(size_t i) const { return !state_[i].busy && !state_[i].complete; }
  void lock() {
    for (unsigned spins = 0; locked_.exchange(true, std::memory_order_acquire); ++spins)
      spins < 200 ? cpu_relax() : yield_thread();
  }
  void unlock() { locked_.store(false, std::memory_order_release); }

  std::vector<State> state_;
  size_t left_;
  std::atomic<bool> locked_{false};
};

} // namespace fastrnn
