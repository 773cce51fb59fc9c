// spectral_norm, the formulas. W is a matrix of rows w_i, and one step of its power iteration from
// v needs W once only, since what u is divided by is a number:
//
//   s = W v,  t = W^T s = sum_i s_i w_i      row by row, while w_i is in cache
//   u = s / max(|s|, eps),  W^T u = t / max(|s|, eps)
//   v' = W^T u / max(|W^T u|, eps),  sigma = u^T W v' = <W^T u, v'>
//
//   order 0   Y = W / sigma
//   order 1   dW = (G - <G, Y> u v^T) / sigma        u and v are constants
//
// Further orders are compositions, in ganops/ops/spectral_norm/reference.py.
#pragma once

#include "../common/numeric.h"

namespace ganops {

// What a vector of this norm is multiplied by.
template <class T>
GANOPS_HD GANOPS_INLINE T spectral_unit(T norm, T eps) {
  return T(1) / (norm < eps ? eps : norm);  // a NaN stays one
}

// One number of dW; `along` is <G, Y> u_i / sigma.
template <class T>
GANOPS_HD GANOPS_INLINE T spectral_grad(T g, T inverse, T along, T v) {
  return g * inverse - along * v;
}

}  // namespace ganops
