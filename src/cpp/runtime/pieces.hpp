// pieces: work that is cut into pieces, which threads take one by one.
//
// The caller takes pieces as its helpers do, so it never depends on a helper that has not begun; at the end it waits
// for pieces that helpers are at, and for nothing else.
#pragma once

#include "runtime/interruption.hpp"

namespace fastrnn {

// What a call with pieces has: its helpers, and the question whether the user wants to stop it.
class PieceWork {
public:
  PieceWork(Lease &lease, bool (*interrupted)()) : lease_(lease), interruption_(interrupted) {}

  int n_threads() const { return 1 + lease_.size(); }
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // Subnormals are flushed while pieces run, unless they matter.
  enum Subnormals { flushes_subnormals, keeps_subnormals };

  // f(piece, thread index) for every piece. False: interrupted; some pieces may be undone then.
  template <class F> bool run(size_t pieces, F &&f, Subnormals subnormals = flushes_subnormals) {
    const FloatMode mode =
        subnormals == flushes_subnormals ? flushing(interruption_.caller_mode()) : interruption_.caller_mode();
    Pieces<F> all{*this, f, pieces, mode};
    const bool shared = pieces > 1 && lease_.size() > 0;
    if (shared) lease_.begin([](void *context, int index) { static_cast<Pieces<F> *>(context)->take(index); }, &all);
    all.take(0);
    if (shared) lease_.end();
    return !stopped();
  }

private:
  template <class F> struct Pieces {
    PieceWork &work;
    F &f;
    const size_t count;
    const FloatMode mode;
    alignas(64) std::atomic<size_t> next{0};
    void take(int index) {
      const WithFloatMode as(mode);
      for (size_t i; !work.stopped() && (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
        f(i, index);
        if (index == 0 && work.interruption_.requested()) work.stop_.store(true, std::memory_order_relaxed);
      }
    }
  };

  Lease &lease_;
  Interruption interruption_;
  std::atomic<bool> stop_{false};
};

} // namespace fastrnn
