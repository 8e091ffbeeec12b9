// cell_settings: the options of general cells as a layer is given them, the same in every layer of a network.
#pragma once

#include "kernels/kernels.hpp"

namespace fastrnn {

struct CellSettings {
  static constexpr size_t most_gates = 4, output = 4; // where the LSTM's output stands among the functions
  struct Function {
    CellFunction kind = CellFunction::linear;
    double alpha = 0, beta = 0;
    bool operator==(const Function &f) const { return kind == f.kind && alpha == f.alpha && beta == f.beta; }
  };
  Function functions[2][most_gates + 1]; // by direction: of the gates, in their order, and of the LSTM's output
  bool peepholes = false, coupled = false;
  double clip = 0; // 0: none
  double leak = 1, zoneout_h = 0, zoneout_c = 0;

  bool operator==(const CellSettings &other) const {
    for (size_t d = 0; d < 2; ++d)
      for (size_t i = 0; i <= most_gates; ++i)
        if (!(functions[d][i] == other.functions[d][i])) return false;
    return peepholes == other.peepholes && coupled == other.coupled && clip == other.clip && leak == other.leak &&
           zoneout_h == other.zoneout_h && zoneout_c == other.zoneout_c;
  }

  // What the kernels are told, but for pointers.
  template <class T> CellOptions<T> options(size_t direction) const {
    const auto function = [&](size_t i) {
      const Function &f = functions[direction][i];
      return CellActivation<T>{f.kind, T(f.alpha), T(f.beta)};
    };
    CellOptions<T> o;
    for (size_t g = 0; g < most_gates; ++g) o.gate[g] = function(g);
    o.output = function(output);
    o.clip = T(clip);
    o.coupled = coupled;
    o.leak = T(leak);
    o.zoneout = zoneout_h > 0 || zoneout_c > 0;
    o.expected_h = T(zoneout_h);
    o.expected_c = T(zoneout_c);
    return o;
  }
};

} // namespace fastrnn
