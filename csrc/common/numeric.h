// Half types and elementary functions that a compiler can vectorise: no calls, no branches.
//
// Half formats are carried as their 16 bits; arithmetic is done in float and rounded once (nearest
// even) on store. exp is a polynomial on the CPU, so that a loop over it vectorises, and the
// built-in on CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "macros.h"

namespace ganops {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that values of T are computed in.
template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

template <class To, class From>
GANOPS_HD GANOPS_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

GANOPS_INLINE float to_compute(float v) { return v; }
GANOPS_INLINE double to_compute(double v) { return v; }
GANOPS_INLINE float to_compute(BFloat16 v) { return bit_cast<float>(uint32_t(v.bits) << 16); }
GANOPS_INLINE float to_compute(Half v) {
  const uint32_t sign = uint32_t(v.bits & 0x8000u) << 16;
  const uint32_t magnitude = v.bits & 0x7fffu;
  // Scaling by 2^112 re-biases the exponent and normalises subnormals in one exact product.
  float f = bit_cast<float>(magnitude << 13) * 5.192296858534828e33f;
  f = magnitude >= 0x7c00u ? bit_cast<float>((magnitude << 13) | 0x7f800000u) : f;
  return bit_cast<float>(bit_cast<uint32_t>(f) | sign);
}

template <class T>
GANOPS_INLINE T from_compute(compute_t<T> v);
template <>
GANOPS_INLINE float from_compute<float>(float v) {
  return v;
}
template <>
GANOPS_INLINE double from_compute<double>(double v) {
  return v;
}
template <>
GANOPS_INLINE BFloat16 from_compute<BFloat16>(float v) {
  const uint32_t b = bit_cast<uint32_t>(v);
  const uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  return BFloat16{uint16_t((b & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
}
template <>
GANOPS_INLINE Half from_compute<Half>(float v) {
  const uint32_t b = bit_cast<uint32_t>(v);
  const uint32_t sign = (b >> 16) & 0x8000u;
  const uint32_t a = b & 0x7fffffffu;
  const uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  // Below 2^-14 the result is subnormal: adding 1/2 makes the float unit round to its last bit.
  const float tiny = bit_cast<float>(a) + 0.5f;
  const uint32_t subnormal = bit_cast<uint32_t>(tiny) - 0x3f000000u;
  uint32_t h = a < 0x38800000u ? subnormal : normal;
  h = a >= 0x477ff000u ? 0x7c00u : h;  // rounds past 65504, or is infinite
  h = a > 0x7f800000u ? 0x7e00u : h;
  return Half{uint16_t(h | sign)};
}

#if defined(__CUDA_ARCH__)
GANOPS_HD inline float exp_(float x) { return expf(x); }
GANOPS_HD inline double exp_(double x) { return exp(x); }
GANOPS_HD inline float exp_negative(float x) { return expf(x); }
GANOPS_HD inline double exp_negative(double x) { return exp(x); }
GANOPS_HD inline float expm1_negative(float x) { return expm1f(x); }
GANOPS_HD inline double expm1_negative(double x) { return expm1(x); }
GANOPS_HD inline float log1p_(float x) { return log1pf(x); }
GANOPS_HD inline double log1p_(double x) { return log1p(x); }
GANOPS_HD inline float tanh_(float x) { return tanhf(x); }
GANOPS_HD inline double tanh_(double x) { return tanh(x); }
#else

// exp(x) = 2^k exp(r), |r| <= log(2)/2, with exp(r) = 1 + r + r^2 P(r), coefficients of P highest
// first: for float the minimax fit of Cephes' expf, for double the Taylor series, both within an
// ulp or two.
template <class T>
struct ExpTraits;
template <>
struct ExpTraits<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23, bias = 127, terms = 6;
  static constexpr float magic = 0x1.8p23f;  // adding it rounds to an integer
  static constexpr float low = -87.33654f, high = 88.72283f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float p[terms] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                     4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
};
template <>
struct ExpTraits<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52, bias = 1023, terms = 12;
  static constexpr double magic = 0x1.8p52;
  static constexpr double low = -708.3964185322641, high = 709.782712893384;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
  static constexpr double p[terms] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
      1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2};
};

// exp(r) - 1 on |r| <= log(2)/2.
template <class T>
GANOPS_HD GANOPS_INLINE T expm1_small(T r) {
  using R = ExpTraits<T>;
  T p = R::p[0];
  for (int k = 1; k < R::terms; ++k) p = p * r + R::p[k];
  return p * (r * r) + r;
}

// exp(x) for x <= 0: 0 below the smallest normal number. NaN passes through the arithmetic.
template <class T>
GANOPS_HD GANOPS_INLINE T exp_negative(T x) {
  using R = ExpTraits<T>;
  using Int = typename R::Int;
  const T clipped = x < R::low ? R::low : x;
  const T shifted = clipped * T(1.4426950408889634) + R::magic;
  const T k = shifted - R::magic;
  const T r = (clipped - k * R::ln2_high) - k * R::ln2_low;
  const Int e = bit_cast<Int>(shifted) - (bit_cast<Int>(R::magic) - R::bias);
  const T y = (expm1_small(r) + T(1)) * bit_cast<T>(e << R::mantissa);
  return x < R::low ? T(0) : y;
}

// exp(x) for any x: infinite past the largest number.
template <class T>
GANOPS_HD GANOPS_INLINE T exp_(T x) {
  using R = ExpTraits<T>;
  using Int = typename R::Int;
  const T clipped = x < R::low ? R::low : (x > R::high ? R::high : x);
  const T shifted = clipped * T(1.4426950408889634) + R::magic;
  const T k = shifted - R::magic;
  const T r = (clipped - k * R::ln2_high) - k * R::ln2_low;
  // k reaches one past the largest exponent: scale in two steps.
  const Int e = bit_cast<Int>(shifted) - bit_cast<Int>(R::magic), half = e >> 1;
  T y = (expm1_small(r) + T(1)) * bit_cast<T>((half + R::bias) << R::mantissa) *
        bit_cast<T>((e - half + R::bias) << R::mantissa);
  y = x < R::low ? T(0) : y;
  return x > R::high ? T(INFINITY) : y;
}

// exp(x) - 1 for x <= 0.
template <class T>
GANOPS_HD GANOPS_INLINE T expm1_negative(T x) {
  return x > T(-0.34) ? expm1_small(x) : exp_negative(x) - T(1);
}

// log(1 + x) for x in [0, 1], which is all a softplus needs: log(m) = 2 atanh((m - 1) / (m + 1)),
// an odd series, with m = 1 + x, or half of that where it is beyond sqrt(2).
template <class T>
GANOPS_HD GANOPS_INLINE T log1p_(T x) {
  const bool far = x > T(0.41421356237309503);
  const T s = (far ? x - T(1) : x) / (far ? x + T(3) : x + T(2)), z = s * s;
  constexpr int terms = sizeof(T) == 8 ? 10 : 4;
  T p = T(1) / T(2 * terms + 1);
  for (int k = terms - 1; k >= 1; --k) p = p * z + T(1) / T(2 * k + 1);
  const T y = T(2) * s + T(2) * s * (z * p);
  return far ? y + T(0.6931471805599453) : y;
}

template <class T>
GANOPS_HD GANOPS_INLINE T tanh_(T x) {  // by exp(-2|x|) - 1
  const T e = expm1_negative(T(-2) * (x < T(0) ? -x : x));
  const T y = e / (e + T(2));
  return x < T(0) ? y : -y;
}
#endif

}  // namespace ganops
