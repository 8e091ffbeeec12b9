// tape: what a training pass hands to Python, and what its backward takes back.
#pragma once

#include <mutex>
#include <variant>

#include "bindings/arrays.hpp"
#include "engine/tape.hpp"

namespace fastrnn {

template <class T> using TapePointer = std::unique_ptr<Tape<T>>;

struct TapeHandle {
  std::variant<TapePointer<float>, TapePointer<double>> tape;
  py::object weights, x, h0, y, masks; // kept alive while the tape may serve; y is what the caller got
  Shape shape;
  Layout layout;
  double scale = 1;                          // of what dropout keeps
  bool learned_h = false, learned_c = false; // whether these parts of the initial state were the parameters
  std::mutex mutex;                          // held while the tape is taken or put back

  // The weights are None once the tape has served. Another thread may ask for them meanwhile.
  py::object current_weights() {
    const std::lock_guard<std::mutex> hold(mutex);
    return weights;
  }
  py::object exchange_weights(py::object other) { // what is returned is let go of without the mutex
    const std::lock_guard<std::mutex> hold(mutex);
    std::swap(weights, other);
    return other;
  }

  size_t bytes() {
    const std::lock_guard<std::mutex> hold(mutex);
    return std::visit([](const auto &t) { return t ? t->bytes() : size_t(0); }, tape);
  }
};

// The tape out of its handle. Another backward, from another thread or from within the conversion of this one's
// arguments, finds none meanwhile. It goes back where the call fails before it has changed anything.
template <class T> class TakenTape {
public:
  explicit TakenTape(TapeHandle &handle) : handle_(handle) {
    const std::lock_guard<std::mutex> hold(handle.mutex);
    auto *home = std::get_if<TapePointer<T>>(&handle.tape);
    if (!home) throw py::type_error("tape: expected a tape of this layer, got one of another dtype");
    if (!*home) throw py::value_error("tape: expected an unused tape, got one that already served a backward");
    tape_ = std::move(*home);
  }
  ~TakenTape() {
    if (!tape_) return;
    const std::lock_guard<std::mutex> hold(handle_.mutex);
    handle_.tape = std::move(tape_);
  }
  TakenTape(const TakenTape &) = delete;
  TakenTape &operator=(const TakenTape &) = delete;

  Tape<T> &operator*() const { return *tape_; }
  Tape<T> *operator->() const { return tape_.get(); }
  // From here on it does not go back, an interruption or not: BPTT changes its memory.
  TapePointer<T> use_up() { return std::move(tape_); }

private:
  TapeHandle &handle_;
  TapePointer<T> tape_;
};

} // namespace fastrnn
