// smooth, the formulas: what the double backward of a smooth activation y = f(x) needs.
//
//   order 0, 1   torch's own kernels: y, and dx = s dy with s = f'(x)
//   order 2      d dy = s v,   d ref = (ds/d ref) v dy
//
// ref is x; for tanh and sigmoid it is y, which the next layer keeps anyway, and the chain through
// order 1 turns its gradient into one of x. Kinks and limits are torch's.
#pragma once

#include "../common/numeric.h"

namespace ganops {

// Order and names as in ganops/ops/smooth/autograd.py; a test compares the two.
enum class Smooth : int {
  silu,
  gelu,
  gelu_tanh,
  softplus,
  elu,
  tanh,
  sigmoid,
  mish,
  hardswish,
  count
};

template <class T>
struct Slopes {  // s and ds/d ref
  T s, d;
};

// exp(z^2) erfc(z) for z >= 0, as a polynomial in 1 / (1 + z/2): minimax to 4e-8 up to z = 9.5,
// past which float has no exp(-z^2). In double, the library's erfc.
GANOPS_HD GANOPS_INLINE float scaled_erfc(float z) {
  constexpr float p[] = {-0x1.e61912p-5f, 0x1.24d7dap-2f,  -0x1.f60aecp-2f,
                         0x1.208106p-2f,  -0x1.deec1cp-6f, 0x1.a16314p-3f,
                         0x1.f14dc2p-3f,  0x1.2130c6p-2f,  0x1.20dabcp-2f};
  const float t = 1.0f / (1.0f + 0.5f * z);
  float q = p[0];
  for (int k = 1; k < 9; ++k) q = q * t + p[k];
  return q * t;
}

// The normal distribution function at x, given e = exp(-x^2 / 2).
GANOPS_HD GANOPS_INLINE float normal_cdf(float x, float e) {
  const float z = (x < 0.0f ? -x : x) * 0.70710678f;
  const float tail = 0.5f * e * scaled_erfc(z);
  return x < 0.0f ? tail : 1.0f - tail;
}
GANOPS_HD GANOPS_INLINE double normal_cdf(double x, double) {
  return 0.5 * erfc(-0.7071067811865475244 * x);
}

// a, b: softplus beta and threshold; elu the scale below 0 and above it.
template <Smooth A, class T>
GANOPS_HD GANOPS_INLINE Slopes<T> smooth_slopes(T ref, T a, T b) {
  const T zero(0), one(1), two(2);
  if constexpr (A == Smooth::tanh) return {one - ref * ref, -two * ref};
  if constexpr (A == Smooth::sigmoid) return {ref * (one - ref), one - two * ref};
  if constexpr (A == Smooth::elu) {
    const T e = a * exp_negative(ref < zero ? ref : (ref != ref ? ref : zero));
    return {ref > zero ? b : e, ref > zero ? zero : e};
  }
  if constexpr (A == Smooth::hardswish) {
    const bool inside = ref > T(-3) && ref < T(3);
    const T line = ref <= T(-3) ? zero : (ref >= T(3) ? one : ref / T(3) + T(0.5));
    return {line, inside ? T(1.0 / 3.0) : zero};
  }
  if constexpr (A == Smooth::gelu || A == Smooth::gelu_tanh) {
    // Beyond 40 nothing changes any more, and squares would overflow.
    const T x = ref < T(-40) ? T(-40) : (ref > T(40) ? T(40) : ref);
    if constexpr (A == Smooth::gelu) {
      const T e = exp_negative(T(-0.5) * x * x), phi = T(0.39894228040143267794) * e;
      return {normal_cdf(x, e) + x * phi, phi * (two - x * x)};
    }
    const T k = T(0.79788456080286535588), c = T(0.044715), z = x * x;
    const T u = k * x * (one + c * z), du = k * (one + T(3) * c * z), ddu = T(6) * k * c * x;
    const T e = exp_negative(T(-2) * (u < zero ? -u : u)), p = one / (one + e);
    const T t = (u < zero ? e - one : one - e) * p, dt = T(4) * e * p * p;  // tanh u, 1 - tanh^2 u
    return {T(0.5) * (one + t) + T(0.5) * x * dt * du,
            dt * (du + T(0.5) * x * (ddu - two * t * du * du))};
  }
  // The rest are built on the logistic s(z), computed from exp(-|z|) <= 1 so nothing overflows.
  const T z = A == Smooth::softplus ? a * ref : ref;
  const T e = exp_negative(z < zero ? z : -z), p = one / (one + e), q = e * p;
  const T s = z < zero ? q : p, r = z < zero ? p : q, ds = p * q;
  if constexpr (A == Smooth::softplus) return {z > b ? one : s, z > b ? zero : a * ds};
  if constexpr (A == Smooth::mish) {  // x t, t = tanh(log(1 + exp x)), dt = s (1 - t^2)
    const T n = z < zero ? e * (e + two) : one + two * e, m = z < zero ? two : two * e * e;
    const T h = one / (n + m), t = n * h, dt = s * (m * h) * (one + t);
    return {t + z * dt, dt * (two + z * (r - two * t * s))};
  }
  return {s + z * ds, two * ds + z * ds * (r - s)};  // silu
}

}  // namespace ganops

// Runs the statement with A as a compile-time constant.
#define GANOPS_SMOOTH_CASE(NAME, ...)  \
  case Smooth::NAME: {                 \
    constexpr Smooth A = Smooth::NAME; \
    __VA_ARGS__;                       \
    break;                             \
  }
#define GANOPS_SWITCH_SMOOTH(act, ...)         \
  switch (act) {                               \
    GANOPS_SMOOTH_CASE(silu, __VA_ARGS__)      \
    GANOPS_SMOOTH_CASE(gelu, __VA_ARGS__)      \
    GANOPS_SMOOTH_CASE(gelu_tanh, __VA_ARGS__) \
    GANOPS_SMOOTH_CASE(softplus, __VA_ARGS__)  \
    GANOPS_SMOOTH_CASE(elu, __VA_ARGS__)       \
    GANOPS_SMOOTH_CASE(tanh, __VA_ARGS__)      \
    GANOPS_SMOOTH_CASE(sigmoid, __VA_ARGS__)   \
    GANOPS_SMOOTH_CASE(mish, __VA_ARGS__)      \
    GANOPS_SMOOTH_CASE(hardswish, __VA_ARGS__) \
    default:                                   \
      break;                                   \
  }
