#include "bindings/cell_options.hpp"

#include <cmath>

namespace fastrnn {

namespace {

constexpr std::pair<const char *, CellFunction> functions[] = {
    {"sigmoid", CellFunction::sigmoid},
    {"tanh", CellFunction::tanh},
    {"relu", CellFunction::relu},
    {"linear", CellFunction::linear},
    {"affine", CellFunction::affine},
    {"leaky_relu", CellFunction::leaky_relu},
    {"thresholded_relu", CellFunction::thresholded_relu},
    {"scaled_tanh", CellFunction::scaled_tanh},
    {"hard_sigmoid", CellFunction::hard_sigmoid},
    {"elu", CellFunction::elu},
    {"softsign", CellFunction::softsign},
    {"softplus", CellFunction::softplus},
};

CellSettings::Function function_of(py::handle entry) {
  const auto [name, alpha, beta] = py::cast<std::tuple<std::string, double, double>>(entry);
  for (const auto &[known, kind] : functions)
    if (name == known) return {kind, alpha, beta};
  throw py::value_error("options: expected an activation of the core, got '" + name + "'");
}

// A number that may be from `least` to `most`.
double number_of(const char *name, py::handle value, double least, double most) {
  const double number = py::cast<double>(value);
  if (number >= least && number <= most) return number;
  throw py::value_error(std::string("options: expected ") + name + " from " + std::to_string(least) + " to " +
                        std::to_string(most) + ", got " + std::to_string(number));
}

} // namespace

Cell cell_named(const std::string &name, bool with_options) {
  struct Kind {
    const char *name;
    Cell plain, general;
  };
  const Kind kinds[] = {{"rnn_tanh", Cell::rnn_tanh, Cell::rnn_general},
                        {"rnn_relu", Cell::rnn_relu, Cell::rnn_general},
                        {"lstm", Cell::lstm, Cell::lstm_general},
                        {"gru", Cell::gru, Cell::gru_general},
                        {"gru_before", Cell::gru_before, Cell::gru_before_general}};
  for (const Kind &kind : kinds)
    if (name == kind.name) return with_options ? kind.general : kind.plain;
  throw py::value_error("cell: expected a cell of the core, got '" + name + "'");
}

std::shared_ptr<const CellSettings> settings_of(Cell cell, size_t directions, py::handle options) {
  if (options.is_none()) return nullptr;
  const size_t gates = gate_count(cell), count = gates + (is_lstm(cell) ? 1 : 0);
  auto settings = std::make_shared<CellSettings>();
  for (const auto &[key, value] : py::cast<py::dict>(options)) {
    const std::string name = py::cast<std::string>(key);
    if (name == "activations") {
      const py::sequence all = py::cast<py::sequence>(value);
      if (py::len(all) != directions) throw py::value_error("options: expected activations for each direction");
      for (size_t d = 0; d < directions; ++d) {
        const py::sequence own = py::cast<py::sequence>(all[d]);
        if (py::len(own) != count) throw py::value_error("options: expected one activation for each gate");
        for (size_t i = 0; i < count; ++i)
          settings->functions[d][i < gates ? i : CellSettings::output] = function_of(own[i]);
      }
    } else if (name == "peepholes" && is_lstm(cell)) {
      settings->peepholes = py::cast<bool>(value);
    } else if (name == "input_forget" && is_lstm(cell)) {
      settings->coupled = py::cast<bool>(value);
    } else if (name == "clip") {
      settings->clip = number_of("clip", value, 0, HUGE_VAL);
    } else if (name == "leak" && gates == 1) {
      settings->leak = number_of("leak", value, 0, 1);
    } else if (name == "zoneout_h") {
      settings->zoneout_h = number_of("zoneout_h", value, 0, 1);
    } else if (name == "zoneout_c" && is_lstm(cell)) {
      settings->zoneout_c = number_of("zoneout_c", value, 0, 1);
    } else {
      throw py::value_error("options: expected options of this cell, got '" + name + "'");
    }
  }
  return settings;
}

} // namespace fastrnn
