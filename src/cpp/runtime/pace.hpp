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
  static Part even(size_t index, size_t count) {
    return {double(index) / double(count), double(index + 1) / double(count)};
  }
  bool empty() const { return begin >= end; }
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
  // threads: how many a call has; 0 where no clock is read. Starts from what the calling thread's last call found, if
  // that was a moment ago.
  explicit Pace(int threads);
  ~Pace();
  Pace(const Pace &) = delete;
  Pace &operator=(const Pace &) = delete;

  bool measures() const { return !laps_.empty(); }

  // A thread begins; has done so much work; arrives at a barrier; goes on, at once or after it slept.
  void begin(int thread) { lap(thread).since = now(); }
  void did(int thread, double work) { lap(thread).done += work; }
  void arrive(int thread) {
    const int64_t time = now();
    lap(thread).busy += double(time - lap(thread).since);
    lap(thread).since = time;
  }
  void leave(int thread, bool slept) { lap(thread).since = slept ? now() : released_; }
  // By the last one to arrive, before the others may go on.
  void release(int thread) { released_ = lap(thread).since; }

  // Makes the shares of these threads (which add up to 1) proportional to their pace. False, and nothing is changed:
  // nothing is known of one of them, or too little would be gained.
  bool follow(const std::vector<int> &threads, std::vector<Part> &shares);
  // Whether each of these threads has been seen at work for so long that its pace is more than noise.
  bool seen_long_enough(const std::vector<int> &threads);
  // Older laps of these threads count half as much from here on. (Others may be writing theirs.)
  void fade(const std::vector<int> &threads);

private:
  struct alignas(64) Lap {
    double busy = 0, done = 0; // nanoseconds, and work in any unit
    int64_t since = 0;
  };
  Lap &lap(int thread) { return laps_[size_t(thread)]; }
  static int64_t now();

  std::vector<Lap> laps_;
  int64_t released_ = 0;
};

// For tests: threads join and leave every call at random, and those that share rows or units get shares at random, at
// every barrier that allows it. 0: no longer.
void shuffle_shares(unsigned seed);
bool shares_are_shuffled();
// The next random number of that mode, from 0 to 1.
double shuffled();

} // namespace fastrnn
