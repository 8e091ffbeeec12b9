// tasks: which chunk of which direction a thread takes next, where directions run side by side and layers as a
// wavefront. Chunks are long (tens of microseconds), so one lock serves.
#pragma once

#include <vector>

#include "runtime/team.hpp"

namespace fastrnn {

class TaskBoard {
public:
  explicit TaskBoard(size_t pieces) : state_(pieces), left_(pieces) {}

  static constexpr size_t none = size_t(-1);
  // What a thread asks for first: in every call the same, since its weights may still be in this core's cache.
  size_t first(const Worker &w) const { return size_t(w.thread) < state_.size() ? size_t(w.thread) : none; }

  // A piece with a chunk that can be worked on, busy from now on; waits for one; none when all are complete or
  // the call was stopped. ready(piece) may ask done() and complete(). A thread stays with its piece where it
  // can (its weights are in this core's cache) and otherwise takes the one furthest along the chain.
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
      w.poll(Team::poll_work); // others may be at their pieces for seconds
      if (spins < 200)
        cpu_relax();
      else
        yield_thread();
    }
  }
  // The chunk is done: so many steps are, and with `complete` the whole piece is.
  void release(size_t piece, size_t done, bool complete) {
    lock();
    state_[piece].done = done;
    state_[piece].busy = false;
    if (complete) {
      state_[piece].complete = true;
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

  size_t done(size_t piece) const { return state_[piece].done; }
  bool complete(size_t piece) const { return state_[piece].complete; }

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
