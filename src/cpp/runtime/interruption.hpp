// interruption: whether the user wants a running call to stop (Ctrl-C). Its calling thread asks now and then.
#pragma once

#include "runtime/float_mode.hpp"
#include "runtime/helpers.hpp"

namespace fastrnn {

class Interruption {
public:
  // Made by the calling thread. hook: says whether the call is to stop; null where nobody can stop it.
  explicit Interruption(bool (*hook)()) : hook_(hook) {}

  bool possible() const { return hook_ != nullptr; }
  FloatMode caller_mode() const { return caller_mode_; }

  // Asks the hook, if that was not done a moment ago.
  bool requested() {
    if (!hook_) return false;
    const int64_t now = clock_now();
    if (now - asked_ < 50'000'000) return false; // ns
    asked_ = now;
    const WithFloatMode mode(caller_mode_); // signal handlers run in it
    return hook_();
  }

private:
  bool (*const hook_)();
  const FloatMode caller_mode_ = float_mode();
  int64_t asked_ = clock_now();
};

} // namespace fastrnn
