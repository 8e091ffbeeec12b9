// pace: how much each thread of a call gets done in its time, and the shares of work that follow from it.
//
// Threads that share work evenly wait for the slowest of them, and cores are seldom equally fast: other processes, the
// other half of a core, clocks, cores of two kinds. Shares in proportion to what each got done lately let all arrive
// together. Results do not depend on shares: every sum has one order, whoever takes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastrnn {

struct Range {
  size_t begin = 0, end = 0;
  size_t size() const { return end - begin; }
};
// From one fraction of n things to another: whole ones, or whole groups of `grain`.
struct Part {
  double begin = 0, end = 1;
  static Part even(size_t index, size_t of) { return {double(index) / double(of), double(index + 1) / double(of)}; }
  Range operator()(size_t n, size_t grain = 1) const { return {at(begin, n, grain), at(end, n, grain)}; }

private:
  static size_t at(double fraction, size_t n, size_t grain) {
    const size_t whole = size_t(fraction * double(n) / double(grain) + 0.5) * grain;
    return fraction == 1 || whole > n ? n : whole;
  }
};

// Of the threads of one call. Each writes its own lap; shares change only while all others wait.
class Pace {
public:
  // threads: how many a call asks for; 0 where shares are even and no clock is read. Starts from what the calling
  // thread's last call found, if that was a moment ago.
  explicit Pace(int threads);
  ~Pace();
  Pace(const Pace &) = delete;
  Pace &operator=(const Pace &) = delete;

  bool measures() const { return !laps_.empty(); }
  bool even() const { return bounds_.empty(); }
  // What thread `rank` of the `of` there are is to take. (OpenMP may give fewer threads than a call asked for.)
  Part part(int rank, int of) const {
    if (bounds_.size() != size_t(of) + 1) return Part::even(size_t(rank), size_t(of));
    return {bounds_[size_t(rank)], bounds_[size_t(rank) + 1]};
  }
  // How often shares have changed.
  unsigned changes() const { return changes_; }

  // A thread begins; has done so much work; arrives at a meeting; goes on, at once or after it slept.
  void begin(int rank) { lap(rank).since = now(); }
  void did(int rank, double work) { lap(rank).done += work; }
  void arrive(int rank) {
    const int64_t time = now();
    lap(rank).busy += double(time - lap(rank).since);
    lap(rank).since = time;
  }
  void leave(int rank, bool slept) { lap(rank).since = slept ? now() : released_; }
  // By the last one to arrive, before the others may go on.
  void release(int rank) { released_ = lap(rank).since; }
  void share_anew(int of);

private:
  struct alignas(64) Lap {
    double busy = 0, done = 0; // nanoseconds, and work in any unit: both fade
    int64_t since = 0;
  };
  Lap &lap(int rank) { return laps_[size_t(rank)]; }
  static int64_t now();
  bool follow(size_t of);

  std::vector<Lap> laps_;
  std::vector<double> bounds_; // [threads + 1] from 0 to 1; empty: even
  int64_t released_ = 0;
  unsigned changes_ = 0;
};

// For tests: every call of several threads that share rows or units is given shares at random, at every meeting that
// allows it. 0: no longer.
void shuffle_shares(unsigned seed);
bool shares_are_shuffled();

} // namespace fastrnn
