// The gradient penalty of one sample, n = |g|_2, as a function of its norm:
//
//   phi(n)   = (n - c)^2, or max(0, n - c)^2 if one-sided
//   order 1  dphi/dg       = phi'(n) g/n
//   order 2  (dphi/dg)'[v] = phi'(n) v/n + 2c/n <g/n, v> g/n
//
// The squares of a small g underflow, and its 1/n^2 overflows, where the derivatives do neither.
// So the kernels compute on G = s g and N = s n, with a power of two s that is 1 for all but small
// norms:
//
//   order 1  k1 G                          k1 = phi'(n) / N
//   order 2  s (k1 v + k2 G)               k2 = 2c <G, v> / N^3
//
// At n = 0 the norm has no derivative; 0 is the subgradient taken (k1 = k2 = 0), so a zero row is
// finite. With c = 0 the penalty is |g|^2, smooth everywhere: k1 = 2, k2 = 0, at n = 0 too.
#pragma once

#include "../common/macros.h"

namespace ganops {

// Which norms are small, and their s: both ends of T's range end up far inside it.
template <class T>
struct SmallNorm;
template <>
struct SmallNorm<float> {
  static constexpr float below = 0x1p-50f, scale = 0x1p100f;
};
template <>
struct SmallNorm<double> {
  static constexpr double below = 0x1p-400, scale = 0x1p800;
};

// s, for a sample whose elements are computed on in T.
template <class T>
GANOPS_HD GANOPS_INLINE T penalty_scale(T n, double center) {
  return center != 0 && n < SmallNorm<T>::below ? SmallNorm<T>::scale : T(1);
}

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
GANOPS_HD GANOPS_INLINE T penalty_k1(T n, T scaled_n, T center, bool one_sided) {
  if (center == T(0)) return T(2);
  return penalty_is_flat(n, center, one_sided) ? T(0) : T(2) * (n - center) / scaled_n;
}

template <class T>
GANOPS_HD GANOPS_INLINE T penalty_k2(T n, T scaled_n, T dot, T center, bool one_sided) {
  if (center == T(0) || penalty_is_flat(n, center, one_sided)) return T(0);
  const T inverse = T(1) / scaled_n;  // its cube may overflow
  return T(2) * center * inverse * (dot * inverse) * inverse;
}

}  // namespace ganops
