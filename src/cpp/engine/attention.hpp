// attention: dot-product attention of Luong et al. 2015, one sequence of the batch at a time.
//
//   p = softmax(q m^T)    context = p m
//   dp = dcontext m^T    ds = p * (dp - sum(dp * p))    dq = ds m    dm = p^T dcontext + ds^T q
#pragma once

#include "kernels/kernels.hpp"
#include "runtime/memory.hpp"
#include "runtime/pieces.hpp"

namespace fastrnn {

template <class T> struct Attention {
  size_t steps = 0, places = 0, rows = 0, width = 0; // T, S, B, H
  const T *query = nullptr;                          // [T, B, H]
  const T *memory = nullptr;                         // [S, B, H]
  const int64_t *lengths = nullptr;                  // [B] places of each sequence that count, at most S
};

// context [T, B, H] and p [B, T, S], which is 0 beyond the lengths. False: interrupted.
template <class T> bool attend(const Kernels<T> &, const Attention<T> &, T *context, T *p, PieceWork &);

// dquery and dmemory from dcontext [T, B, H].
template <class T>
bool attend_backward(const Kernels<T> &, const Attention<T> &, const T *p, const T *dcontext, T *dquery, T *dmemory,
                     PieceWork &);

} // namespace fastrnn
