// module: the extension module fastrnn._core. It only registers; every area has a file of its own.
#include "bindings/interpreter.hpp"
#include "bindings/register.hpp"
#include "kernels/dispatch.hpp"

// An interpreter without a lock need not bring its lock back for this module: what a call checks it copies, a tape is
// taken once, and a stream takes one call at a time.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace fastrnn;
  kernels(); // an unknown FASTRNN_ISA is an error of the import
  remember_main_thread();
  register_network(m);
  register_stream(m);
  register_linear(m);
  register_training(m);
  register_machine(m);
}
