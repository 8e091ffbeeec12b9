#include "bindings/interpreter.hpp"

#include <pthread.h>

namespace fastrnn {

namespace {

unsigned long main_thread = 0;

// A forked child has another main thread where another thread forked.
void in_child() { main_thread = PyThread_get_thread_ident(); }

// Asked by the calling thread of a long call, which has released the interpreter.
bool interrupted() {
  const PyGILState_STATE gil = PyGILState_Ensure();
  const bool stop = PyErr_CheckSignals() != 0;
  PyGILState_Release(gil);
  return stop;
}

} // namespace

void remember_main_thread() {
  main_thread = py::cast<unsigned long>(py::module_::import("threading").attr("main_thread")().attr("ident"));
  pthread_atfork(nullptr, nullptr, in_child);
}

InterruptionHook interruption_hook() { return PyThread_get_thread_ident() == main_thread ? &interrupted : nullptr; }

void throw_interruption() {
  if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
  throw py::error_already_set();
}

} // namespace fastrnn
