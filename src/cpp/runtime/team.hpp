// team: the threads of one call, which run the same code and wait for each other at barriers.
//
// The caller is thread 0. A helper belongs to the team only while it is known to be running: it joins at a barrier,
// when it has got there by itself, and until then it runs through the code with an empty share. So a call never waits
// for a helper that the system has not put on a core yet. A helper that lost its core, and kept the others waiting at a
// barrier that comes often, leaves the team: until it gets to a barrier by itself again, or for the rest of the call
// where somebody else computes on its core.
#pragma once

#include <algorithm>
#include <memory>

#include "runtime/interruption.hpp"
#include "runtime/pace.hpp"

namespace fastrnn {

class Team {
public:
  // Settings of a call with several threads.
  struct Kind {
    int n_threads = 1;
    bool paced = false;   // shares follow the pace of the threads
    bool coarse = false;  // barriers are so seldom that a thread which lost its core is rather waited for than left out
    int64_t patience = 0; // ns for which the call waits for helpers to wake up, before it begins without them
  };
  Team(bool (*interrupted)(), const Kind &kind);

  // Runs body(thread index) on the caller and on the helpers of the lease.
  template <class F> void run(Lease &lease, F &&body) {
    if (n_threads_ > 1) {
      seat_members(lease.running(patience_));
      since_ = coarse_ ? 0 : clock_now();
      lease.begin(
          [](void *context, int index) {
            const FlushSubnormals mode;
            (*static_cast<F *>(context))(index);
          },
          &body);
    }
    {
      const FlushSubnormals mode;
      body(0);
    }
    if (n_threads_ > 1) {
      close();
      lease.end();
      note_end();
    }
  }

  // All members wait for each other. False: the call was interrupted, or this thread is no longer needed. may_change:
  // threads may join or leave here, and what they take may be another share from here on.
  bool wait(int index, bool may_change);

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // This thread's share of the work, until the next barrier that may change it; and how often it has changed.
  const Part &share(int index) const { return seats_[size_t(index)].share; }
  unsigned changes(int index) const { return seats_[size_t(index)].changes; }
  bool shares_are_even() const { return even_; }
  // Whether all threads are members, of which this is one. It stays so in a coarse team, whose threads are never left
  // out (but in tests).
  bool is_complete(int index) const {
    return seats_[size_t(index)].member && size_ == n_threads_ && !shares_are_shuffled();
  }

  // Pieces of work that threads take one by one between two barriers: 0, 1, 2 ... A thread with an empty share gets
  // none.
  size_t take(int index) {
    if (n_threads_ > 1 && share(index).empty()) return size_t(-1);
    return taken_.fetch_add(1, std::memory_order_relaxed);
  }

  static constexpr size_t poll_work = size_t(1) << 22;
  // The calling thread asks now and then whether the user wants to stop (Ctrl-C): `work` counts operations,
  // the clock is read every few million of them and the question asked every 50 ms.
  void poll(size_t work) {
    if (!interruption_.possible() || (work_ += work) < poll_work) return;
    work_ = 0;
    ask();
  }

  Pace pace;

private:
  static constexpr unsigned never = ~0u;
  // one thread's own notes; others write member_from and joins alone
  struct alignas(64) Seat {
    Part share{0, 0};
    unsigned round = 0, changes = 0;
    bool member = false, asked = false, may_return = false;
    std::atomic<unsigned> member_from{never}; // the round from which on it belongs to the team
    std::atomic<bool> joins{false};           // it is at a barrier, or about to be, and wants to
  };

  void seat_members(int running);
  bool watch(int index, Seat &seat, bool may_change);
  void regroup(int last, unsigned next_round);
  void share_out();
  void take_notes(int index, Seat &seat);
  void ask();
  void close();
  void note_end();

  const int n_threads_;
  const bool coarse_;
  const int64_t patience_;
  std::unique_ptr<Seat[]> seats_;
  // written by the last one to arrive at a barrier, read by all members after it
  std::vector<int> members_;
  std::vector<Part> shares_;
  unsigned changes_ = 0;
  int size_ = 1;
  bool even_ = true;
  int64_t since_ = 0; // when the call began, or lost a core
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> kept_waiting_{false}; // a member went to sleep in this round
  std::atomic<int> joining_{0};
  std::atomic<bool> closed_{false};
  alignas(64) std::atomic<size_t> taken_{0};
  alignas(64) std::atomic<bool> stop_{false};
  alignas(64) size_t work_ = 0; // written at every step by the thread that polls; the others read `stop_`
  Interruption interruption_;
};

// One thread as a pass sees it: number `index` of the `n_threads` threads that share a piece of work. Where threads
// take whole pieces of their own, each is alone: 0 of 1.
struct Worker {
  Team *team;
  int thread; // of the call: whose scratch memory
  int index, n_threads;

  bool wait() const { return n_threads == 1 ? !team->stopped() : team->wait(index, false); }
  // The same; shares may have changed then.
  bool wait_and_share() const { return n_threads == 1 ? !team->stopped() : team->wait(index, true); }
  // Whether the thread's share has changed since `seen`, which is brought up to date.
  bool share_changed(unsigned &seen) const {
    if (n_threads == 1 || team->changes(index) == seen) return false;
    seen = team->changes(index);
    return true;
  }
  // The thread begins; and has got so much work done, in multiply-adds or the like.
  void begin() const {
    if (team->pace.measures()) team->pace.begin(index);
  }
  // (Who has no share has done nothing, and may be made a member meanwhile, whose notes others read.)
  void did(double work) const {
    if (n_threads > 1 && team->pace.measures() && !team->share(index).empty()) team->pace.did(index, work);
  }
  size_t take() const { return team->take(index); }
  bool team_is_complete() const { return n_threads == 1 || team->is_complete(index); }
  bool idle() const { return n_threads > 1 && team->share(index).empty(); }
  bool stopped() const { return team->stopped(); }
  void poll(size_t work) const {
    if (thread == 0) team->poll(work);
  }
  // how many steps of so many operations may go by without asking
  static size_t steps_between_polls(size_t work) { return std::max<size_t>(Team::poll_work / work, 1); }
  Worker alone() const { return {team, thread, 0, 1}; }
};

inline Part share_of(const Worker &w) { return w.n_threads == 1 ? Part() : w.team->share(w.index); }
inline Range share(size_t n, const Worker &w) { return share_of(w)(n); }

} // namespace fastrnn
