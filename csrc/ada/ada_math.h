// ada, the formulas: source coordinates, the continued image, and the taps of one resampled point.
// ganops/ops/ada/reference.py is the specification.
//
//   order 0   y = C T(x)            T: blit, or up, sample, down
//   order 1   dx = T' C' dy         the adjoint; every further order is one of the two again
#pragma once

#include "../common/numeric.h"

namespace ganops {

// Source coordinates, in 2^-32 pixels: (a x + b y + e, c x + d y + f) of output pixel (x, y).
struct AdaMap {
  int64_t a, b, e, c, d, f;
  int64_t resample;  // else the source is a whole pixel
};
constexpr int kAdaMap = 7;     // numbers of a map
constexpr int kAdaBefore = 5;  // lattice points that the filter reaches before the first pixel
constexpr int kAdaHalo = 10;   // and in all

// sym6, its sum 1; 0 beyond its ends. For constant k, a constant.
template <class C>
GANOPS_HD GANOPS_INLINE constexpr C sym6(int k) {
  switch (k) {
    case 0:
      return C(0.010892350163280001);
    case 1:
      return C(0.0024683061859200003);
    case 2:
      return C(-0.08343160770584002);
    case 3:
      return C(-0.03416156079324);
    case 4:
      return C(0.34722898647835004);
    case 5:
      return C(0.55694639196396);
    case 6:
      return C(0.23895218566605003);
    case 7:
      return C(-0.05136248493090002);
    case 8:
      return C(-0.014891875649220001);
    case 9:
      return C(0.031625281329940004);
    case 10:
      return C(0.0012499610463900003);
    case 11:
      return C(-0.005515933754690001);
    default:
      return C(0);
  }
}

// The pixel that stands at index i of n pixels continued by reflection.
GANOPS_HD GANOPS_INLINE int64_t ada_reflect(int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  const int64_t period = n > 1 ? 2 * (n - 1) : 1;
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

template <class C>
GANOPS_HD GANOPS_INLINE C ada_fraction(int64_t s) {  // in [0, 1)
  if constexpr (sizeof(C) == 8) {
    return C(uint32_t(s)) * C(0x1p-32);
  } else {
    return C(int32_t((s >> 8) & 0xFFFFFF)) * C(0x1p-24);  // float has 24 bits
  }
}

// The upsampled image at a point between lattice points i and i + 1 is sum_t w[t] x[first + t],
// t = 0 ... 6, along each axis; s is the point's coordinate on the lattice.
GANOPS_HD GANOPS_INLINE int64_t ada_first(int64_t s) {
  const int64_t i = s >> 32;
  return (i >> 1) - 3 + (i & 1);
}
template <class C>
GANOPS_HD GANOPS_INLINE C ada_tap(int64_t s, int t) {
  const bool odd = (s >> 32) & 1;
  const C far = ada_fraction<C>(s);
  const C one = odd ? sym6<C>(10 - 2 * t) : sym6<C>(11 - 2 * t);
  const C two = odd ? sym6<C>(11 - 2 * t) : sym6<C>(12 - 2 * t);
  return C(2) * ((C(1) - far) * one + far * two);
}

}  // namespace ganops
