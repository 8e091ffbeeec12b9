// module: the extension module fastrnn._core. It only registers; every area has a file of its own.
#include "bindings/interpreter.hpp"
#include "bindings/register.hpp"
#include "kernels/dispatch.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace fastrnn;
  kernels(); // an unknown FASTRNN_ISA is an error of the import
  remember_main_thread();
  register_network(m);
  register_stream(m);
  register_training(m);
  register_machine(m);
}
