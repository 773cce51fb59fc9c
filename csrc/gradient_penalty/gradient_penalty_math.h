// The gradient penalty of one sample, n = |g|_2, as a function of its norm:
//
//   phi(n)   = (n - c)^2, or max(0, n - c)^2 if one-sided
//   order 1  dphi/dg       = k1(n) g,                      k1 = phi'(n) / n
//   order 2  (dphi/dg)'[v] = k1(n) v + k2(n) <g/n, v> g,   k2 = k1'(n) = 2 c / n^2
//
// At n = 0 the norm has no derivative; 0 is the subgradient taken (k1 = k2 = 0), so a zero row is
// finite. With c = 0 the penalty is |g|^2, smooth everywhere: k1 = 2, k2 = 0, at n = 0 too.
#pragma once

#include "../common/macros.h"

namespace ganops {

template <class T>
GANOPS_HD GANOPS_INLINE bool penalty_is_flat(T n, T center, bool one_sided) {
  return (one_sided && n <= center) || (n == T(0) && center != T(0));
}

template <class T>
GANOPS_HD GANOPS_INLINE T penalty_value(T n, T center, bool one_sided) {
  const T d = n - center;
  return one_sided && d < T(0) ? T(0) : d * d;
}

template <class T>
GANOPS_HD GANOPS_INLINE T penalty_k1(T n, T center, bool one_sided) {
  if (center == T(0)) return T(2);
  return penalty_is_flat(n, center, one_sided) ? T(0) : T(2) * (n - center) / n;
}

template <class T>
GANOPS_HD GANOPS_INLINE T penalty_k2(T n, T center, bool one_sided) {
  if (center == T(0)) return T(0);
  return penalty_is_flat(n, center, one_sided) ? T(0) : T(2) * center / n / n;
}

}  // namespace ganops
