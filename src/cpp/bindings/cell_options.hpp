// cell_options: the cell of a network by its name, and its options, as Python hands them over.
#pragma once

#include <memory>
#include <string>

#include "bindings/arrays.hpp"
#include "engine/cell_settings.hpp"

namespace fastrnn {

// The general cell of a kind where there are options, else the plain one.
Cell cell_named(const std::string &name, bool with_options);

// Checks a dict of options; null for None.
std::shared_ptr<const CellSettings> settings_of(Cell cell, size_t directions, py::handle options);

} // namespace fastrnn
