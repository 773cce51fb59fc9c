// resize, the formulas: what one output number is made of.
// ganops/ops/resize/reference.py is the specification, and says where the taps come from.
//
// Bits must agree on every machine, so products and sums are rounded one by one: on CUDA by the
// _rn intrinsics; on the CPU by -ffp-contract=off.
#pragma once

#include "../philox/philox_math.h"

namespace ganops {

#if defined(__CUDA_ARCH__)
GANOPS_HD inline double mul_rn(double a, double b) { return __dmul_rn(a, b); }
GANOPS_HD inline double add_rn(double a, double b) { return __dadd_rn(a, b); }
GANOPS_HD inline float div_rn(float a, float b) { return __fdiv_rn(a, b); }
#else
GANOPS_HD GANOPS_INLINE double mul_rn(double a, double b) { return a * b; }
GANOPS_HD GANOPS_INLINE double add_rn(double a, double b) { return a + b; }
GANOPS_HD GANOPS_INLINE float div_rn(float a, float b) { return a / b; }
#endif

// Between two neighbours: a + (b - a) d.
GANOPS_HD GANOPS_INLINE float resize_lerp(float a, float b, float d) {
  return add_rn(a, mul_rn(add_rn(b, -a), d));
}

// One more tap of a filter.
GANOPS_HD GANOPS_INLINE double resize_tap(double sum, double weight, float pixel) {
  return add_rn(sum, mul_rn(weight, double(pixel)));
}

// A bicubic filter overshoots the range of bytes.
GANOPS_HD GANOPS_INLINE float resize_clip(float v) {
  v = v < 0.0f ? 0.0f : v;
  return v > 255.0f ? 255.0f : v;
}

// What the network is given: (v - shift) / divisor.
GANOPS_HD GANOPS_INLINE float resize_normalise(float v, float shift, float divisor) {
  return div_rn(add_rn(v, -shift), divisor);
}

}  // namespace ganops
