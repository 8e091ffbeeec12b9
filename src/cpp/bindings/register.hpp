// register: every area of the bindings adds its classes and functions to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace fastrnn {

void register_network(pybind11::module_ &m);
void register_stream(pybind11::module_ &m);
void register_linear(pybind11::module_ &m);
void register_training(pybind11::module_ &m);
void register_machine(pybind11::module_ &m);

} // namespace fastrnn
