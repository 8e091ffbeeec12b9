// interpreter: leaving Python's interpreter during a call, and coming back to ask whether the user wants to stop.
#pragma once

#include <pybind11/pybind11.h>

namespace fastrnn {

namespace py = pybind11;

// Called once, when the module is imported: remembers the main thread, which alone receives signals.
void remember_main_thread();

// What a long call of the engine asks now and then; null on threads that receive no signals.
using InterruptionHook = bool (*)();
InterruptionHook interruption_hook();

// Sets KeyboardInterrupt, unless a signal handler has raised something else, and throws it.
[[noreturn]] void throw_interruption();

// Runs a pass with the interpreter released. The pass returns false where it was interrupted.
template <class F> void without_interpreter(F &&pass) {
  bool done;
  {
    py::gil_scoped_release release;
    done = pass();
  }
  if (!done) throw_interruption();
}

} // namespace fastrnn
