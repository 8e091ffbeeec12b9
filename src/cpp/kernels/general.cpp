// The general cells of one kernel set for one number type. This file is compiled as kernels.cpp is, apart from it
// because it takes as long.
#include "kernels/general_cells.hpp"
#include "kernels/step.hpp"

namespace fastrnn {
namespace FASTRNN_ISA {

// Fills in what kernels.cpp leaves to this file.
template <class T> void add_general_cells(Kernels<T> &k) {
  k.forward[int(Cell::rnn_general)] = forward_steps<T, GeneralElmanForward<T>>;
  k.forward[int(Cell::lstm_general)] = forward_steps<T, GeneralLstmForward<T>>;
  k.forward[int(Cell::gru_general)] = forward_steps<T, GeneralGruForward<T>>;
  k.forward[int(Cell::gru_before_general)] = forward_steps<T, GeneralBeforeGatesForward<T>>;
  k.forward_candidate_general = forward_steps<T, GeneralBeforeCandidateForward<T>>;
  k.backward[int(Cell::rnn_general)] = backward_steps<T, GeneralElmanBackward<T>>;
  k.backward[int(Cell::lstm_general)] = backward_steps<T, GeneralLstmBackward<T>>;
  k.backward[int(Cell::gru_general)] = backward_steps<T, GeneralGruBackward<T>>;
  k.backward[int(Cell::gru_before_general)] = backward_steps<T, GeneralBeforeCandidateBackward<T>>;
  k.backward_gates_general = backward_steps<T, GeneralBeforeGatesBackward<T>>;
  k.backward_drop = backward_steps<T, DropBackward<T, false>>;
  k.backward_drop_carried = backward_steps<T, DropBackward<T, true>>;
}
template void add_general_cells(Kernels<FASTRNN_NUMBER> &);

} // namespace FASTRNN_ISA
} // namespace fastrnn
