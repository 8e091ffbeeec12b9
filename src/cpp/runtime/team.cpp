#include "runtime/team.hpp"

#include "runtime/callers.hpp"

namespace fastrnn {

namespace {

// A waiting thread first looks so often (some 30 us), then lets others run between one look and the next, and then
// sleeps. Waking a sleeper takes longer than most delays, which are interrupts or uneven work. A thread that lost its
// core may get that of a thread that yields or sleeps.
constexpr unsigned spin_limit = 2000, yield_limit = 500;

} // namespace

Team::Team(bool (*interrupted)(), const Kind &kind)
    : pace(kind.paced ? kind.n_threads : 0), n_threads_(kind.n_threads), coarse_(kind.coarse), patience_(kind.patience),
      interruption_(interrupted) {
  if (n_threads_ == 1) return;
  seats_ = std::make_unique<Seat[]>(size_t(n_threads_));
  shares_.resize(size_t(n_threads_)); // no memory is asked for while threads are at work
  members_.reserve(size_t(n_threads_));
}

// Members from the start are the caller and those helpers that are known to be running.
void Team::seat_members(int running) {
  for (int i = 0; i <= std::min(running, n_threads_ - 1); ++i) {
    if (i > 0 && shares_are_shuffled() && shuffled() < 0.5) continue;
    seats_[size_t(i)].member_from.store(0, std::memory_order_relaxed);
    members_.push_back(i);
  }
  size_ = int(members_.size());
  share_out();
  if (pace.measures() && pace.follow(members_, shares_)) even_ = false;
  for (const int i : members_) {
    seats_[size_t(i)].member = true;
    take_notes(i, seats_[size_t(i)]);
  }
}

// Even shares of the members; the others have none.
void Team::share_out() {
  for (Part &share : shares_) share = {0, 0};
  for (size_t i = 0; i < members_.size(); ++i) shares_[size_t(members_[i])] = Part::even(i, members_.size());
  even_ = true;
  ++changes_;
}

void Team::take_notes(int index, Seat &seat) {
  if (seat.changes == changes_) return;
  seat.changes = changes_;
  seat.share = shares_[size_t(index)];
}

bool Team::wait(int index, bool may_change) {
  Seat &seat = seats_[size_t(index)];
  if (!seat.member) return watch(index, seat, may_change);
  const unsigned round = seat.round;
  const bool paced = pace.measures();
  if (paced) pace.arrive(index);
  bool slept = false;
  const int size = size_; // read before this thread has arrived: after that the last one may change it
  if (size == 1 || arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
    arrived_.store(0, std::memory_order_relaxed);
    taken_.store(0, std::memory_order_relaxed);
    if (paced) pace.release(index);
    if (may_change) regroup(index, round + 1);
    round_.store(round + 1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst)) wake_all(round_);
  } else {
    for (unsigned spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (stopped()) return false;
      if (spins < spin_limit + yield_limit) {
        spins < spin_limit ? cpu_relax() : yield_thread();
        continue;
      }
      slept = true;
      kept_waiting_.store(true, std::memory_order_relaxed);
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      sleep_while(round_, round);
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  if (paced) pace.leave(index, slept);
  seat.round = round + 1;
  if (seat.member_from.load(std::memory_order_relaxed) == never) { // it has left the team
    seat.member = seat.asked = false;
    seat.share = {0, 0};
    seat.changes = never;
    return !stopped() && seat.may_return;
  }
  take_notes(index, seat);
  return !stopped();
}

// A thread that is not a member goes past the barriers that lie behind the team, and waits for it at the next one.
bool Team::watch(int index, Seat &seat, bool may_change) {
  const unsigned round = seat.round;
  // The caller is through, and nobody counts on this thread.
  const auto not_needed = [&] {
    return closed_.load(std::memory_order_acquire) && seat.member_from.load(std::memory_order_relaxed) == never;
  };
  if (may_change && !seat.asked && round_.load(std::memory_order_acquire) == round) {
    seat.asked = true;
    seat.joins.store(true, std::memory_order_relaxed);
    joining_.fetch_add(1, std::memory_order_release);
  }
  for (unsigned spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
    if (stopped() || not_needed()) return false;
    if (spins < spin_limit + yield_limit) {
      spins < spin_limit ? cpu_relax() : yield_thread();
      continue;
    }
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    sleep_while(round_, round);
    sleeping_.fetch_sub(1, std::memory_order_relaxed);
  }
  if (stopped() || not_needed()) return false;
  seat.round = round + 1;
  if (seat.member_from.load(std::memory_order_relaxed) == seat.round) {
    seat.member = true;
    take_notes(index, seat);
    if (pace.measures()) pace.begin(index);
  }
  return true;
}

// By the last one to arrive, while all other members wait.
void Team::regroup(int last, unsigned next_round) {
  bool changed = false;
  const bool shuffle = shares_are_shuffled();
  const auto dismiss = [&](int index) {
    seats_[size_t(index)].member_from.store(never, std::memory_order_relaxed);
    members_.erase(std::find(members_.begin(), members_.end(), index));
    changed = true;
  };
  // Others went to sleep waiting for this one: it had lost its core.
  if (kept_waiting_.load(std::memory_order_relaxed)) {
    kept_waiting_.store(false, std::memory_order_relaxed);
    if (last != 0 && !coarse_ && !shuffle) {
      const int64_t now = clock_now();
      seats_[size_t(last)].may_return = !note_lost_core(Waits::often, now - since_, was_preempted());
      since_ = now;
      dismiss(last);
    }
  }
  if (shuffle && last != 0 && shuffled() < 0.25) {
    seats_[size_t(last)].may_return = true;
    dismiss(last);
  }
  if (joining_.load(std::memory_order_acquire) > 0)
    for (int i = 1; i < n_threads_; ++i)
      if (seats_[size_t(i)].joins.load(std::memory_order_relaxed)) {
        seats_[size_t(i)].joins.store(false, std::memory_order_relaxed);
        joining_.fetch_sub(1, std::memory_order_relaxed);
        seats_[size_t(i)].member_from.store(next_round, std::memory_order_relaxed);
        members_.insert(std::upper_bound(members_.begin(), members_.end(), i), i);
        changed = true;
      }
  if (changed) {
    size_ = int(members_.size());
    share_out();
  }
  if (!pace.measures()) return;
  if (shuffle) {
    double at = 0;
    for (const int i : members_) {
      const double end = i == members_.back() ? 1 : at + (1 - at) * shuffled();
      shares_[size_t(i)] = {at, end};
      at = end;
    }
    even_ = false;
    ++changes_;
  } else if (pace.seen_long_enough(members_)) {
    if (pace.follow(members_, shares_)) {
      even_ = false;
      ++changes_;
    }
    pace.fade(members_);
  }
}

void Team::ask() {
  if (!interruption_.requested()) return;
  stop_.store(true, std::memory_order_relaxed);
  wake_all(round_); // they look at `stop_` now and then anyway
}

void Team::note_end() {
  if (!coarse_ && size_ > 1) note_undisturbed(Waits::often, clock_now() - since_);
}

void Team::close() {
  closed_.store(true, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst)) wake_all(round_);
}

} // namespace fastrnn
