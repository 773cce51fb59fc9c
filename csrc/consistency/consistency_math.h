// The squared difference of a batch's halves [a ; b], as a quadratic form:
//
//   order 0  <Dx, Dx>             Dx = a - b
//   order 1  2 Lx                 Lx = D'Dx = [a - b ; b - a]
//   order 2  2 L
//
// L is linear and symmetric, so the derivatives of <Dx, Dy> and of s Lx, which are all there are
// at any order, are made of <D., D.> and L again.
#pragma once

#include "../common/macros.h"

namespace ganops {

// What a pair of entries (a, b) of x and (c, d) of y adds to <Dx, Dy>.
template <class T>
GANOPS_HD GANOPS_INLINE T consistency_term(T a, T b, T c, T d) {
  return (a - b) * (c - d);
}

// An entry of k Lx, for `mine` and its counterpart in the other half.
template <class T>
GANOPS_HD GANOPS_INLINE T consistency_slope(T k, T mine, T other) {
  return k * (mine - other);
}

}  // namespace ganops
