// The threads of a forward or backward call: how they start, pack the weights, and divide the rest.
#pragma once

#include "engine/layer.hpp"
#include "engine/tasks.hpp"

namespace fastrnn {

template <class T> class CallThreads {
public:
  // pack: the call packs the weights itself
  CallThreads(Execution &how, const Shape &shape, Packed<T> &weights, bool pack)
      : board(how.plan.split == Split::wavefront ? shape.count() : 0), how_(how), team_(how.interrupted, how.team()),
        weights_(weights), pack_(pack) {}

  TaskBoard board; // of a wavefront

  // Runs together(worker) on all threads, or wavefront(worker) where each works alone. Returns false when interrupted.
  template <class Together, class Wavefront> bool run(Together &&together, Wavefront &&wavefront) {
    team_.run(how_.lease, [&](int index) {
      const Worker w{&team_, index, index, how_.plan.threads};
      w.begin();
      if (pack_) {
        weights_.pack(w);
        if (!w.wait_and_share()) return;
      }
      if (how_.plan.split == Split::wavefront)
        wavefront(w.alone());
      else
        together(w);
    });
    return !team_.stopped();
  }

private:
  Execution &how_;
  Team team_;
  Packed<T> &weights_;
  const bool pack_;
};

} // namespace fastrnn
