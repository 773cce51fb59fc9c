// bias_act, the formulas: y = clamp(gain * f(x + b)) and its derivatives, one element at a time.
//
//   order 0  y   = c(gain f(t)),        t = x + b,  c = clamp to [-clamp, clamp] (off if < 0)
//   order 1  dx  = gain f'(t)  dy       where |gain f(t)| < clamp, else 0
//   order 2  d2x = gain f''(t) dy v     where |gain f(t)| < clamp, else 0
//
// Every f but swish is monotone, so with gain > 0 (and alpha >= 0) y alone tells f': the slope is
// a function s(y) = gain f' of the output, which saves the exponential, and x with it. There
// order 2 is taken with respect to y: d2y = s'(y) dy v, and the chain rule through order 1
// does the rest.
//
// At a kink the derivative is the one from the left (0 for relu, alpha for lrelu), and it is 0
// where the clamp binds, |y| = clamp included: the convention of StyleGAN's op of this name.
// Piecewise linear f have f'' = 0. Comparisons are written so that NaN takes the branch it takes
// in the reference: no clamp binds there, and nothing is flat.
#pragma once

#include "../common/numeric.h"

namespace ganops {

// Order and names as in ganops/ops/bias_act/__init__.py; a test compares the two.
enum class Act : int { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish, count };

GANOPS_HD constexpr bool is_piecewise_linear(Act a) {
  return a == Act::linear || a == Act::relu || a == Act::lrelu;
}

// Klambauer et al. 2017: the fixed point of mean 0, variance 1.
constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;

template <class T>
struct Jet {  // f, f', f'' at one point
  T f, d1, d2;
};

// All three orders at once; the unused ones are dead code that the compiler drops.
template <Act A, class T>
GANOPS_HD GANOPS_INLINE Jet<T> act_jet(T t, T alpha) {
  const T zero(0), one(1);
  if constexpr (A == Act::linear) return {t, one, zero};
  if constexpr (A == Act::relu) return {t <= zero ? zero : t, t <= zero ? zero : one, zero};
  if constexpr (A == Act::lrelu) return {t > zero ? t : alpha * t, t > zero ? one : alpha, zero};
  if constexpr (A == Act::tanh) {
    const T y = tanh_(t), d = one - y * y;
    return {y, d, T(-2) * y * d};
  }
  if constexpr (A == Act::elu) {
    const T low = t > zero ? zero : t, e = exp_negative(low), y = expm1_negative(low);
    return {t > zero ? t : y, t > zero ? one : e, t > zero ? zero : e};
  }
  if constexpr (A == Act::selu) {
    const T s = T(kSeluScale), a = T(kSeluScale * kSeluAlpha);
    const T low = t > zero ? zero : t, e = a * exp_negative(low), y = a * expm1_negative(low);
    return {t > zero ? s * t : y, t > zero ? s : e, t > zero ? zero : e};
  }
  // The rest are built on the logistic s(t), computed from exp(-|t|) <= 1 so nothing overflows.
  const T e = exp_negative(t < zero ? t : -t);
  const T p = one / (one + e), q = e * p;  // s(|t|), s(-|t|)
  const T s = t < zero ? q : p, r = t < zero ? p : q;
  const T ds = p * q;
  if constexpr (A == Act::sigmoid) return {s, ds, ds * (r - s)};
  if constexpr (A == Act::softplus) return {(t <= zero ? zero : t) + log1p_(e), s, ds};
  // swish = t s(t):  f' = s + t s',  f'' = 2 s' + t s''
  return {t * s, s + t * ds, T(2) * ds + t * ds * (r - s)};
}

template <class T>
GANOPS_HD GANOPS_INLINE bool act_open(T y, T clamp) {  // is y outside the clamp's reach?
  return clamp < T(0) || !(y >= clamp || y <= -clamp);
}

template <Act A, class T>
GANOPS_HD GANOPS_INLINE T bias_act_value(T t, T alpha, T gain, T clamp) {
  // No branch on clamp: it would keep the compiler from vectorising.
  const T limit = clamp < T(0) ? T(INFINITY) : clamp;
  T y = gain * act_jet<A>(t, alpha).f;
  y = y > limit ? limit : y;
  return y < -limit ? -limit : y;
}

// From t = x + b.
template <Act A, class T>
GANOPS_HD GANOPS_INLINE T bias_act_grad(T dy, T t, T alpha, T gain, T clamp) {
  const Jet<T> j = act_jet<A>(t, alpha);
  return act_open(gain * j.f, clamp) ? gain * j.d1 * dy : T(0);
}

// Is the slope a function of the output?
GANOPS_HD constexpr bool has_output_slope(Act a) { return a != Act::swish; }

template <class T>
struct Slope {  // s(y) and s'(y)
  T s, d;
};

template <Act A, class T>
GANOPS_HD GANOPS_INLINE Slope<T> output_slope(T y, T alpha, T gain) {
  static_assert(has_output_slope(A), "swish is not monotone: its slope needs x");
  const T zero(0), one(1);
  if constexpr (is_piecewise_linear(A)) return {gain * act_jet<A>(y, alpha).d1, zero};
  const T u = y * (one / gain);  // f(t)
  if constexpr (A == Act::tanh) return {gain * (one - u * u), T(-2) * u};
  if constexpr (A == Act::sigmoid) return {gain * (u * (one - u)), one - T(2) * u};
  if constexpr (A == Act::elu) return {u > zero ? gain : y + gain, u > zero ? zero : one};
  if constexpr (A == Act::selu) {
    const T scaled = gain * T(kSeluScale);
    return {u > zero ? scaled : y + scaled * T(kSeluAlpha), u > zero ? zero : one};
  }
  // softplus: f' = 1 - exp(-f)
  return {-gain * expm1_negative(-u), exp_negative(-u)};
}

template <Act A, class T>
GANOPS_HD GANOPS_INLINE T bias_act_grad_from_output(T dy, T y, T alpha, T gain, T clamp) {
  return act_open(y, clamp) ? output_slope<A>(y, alpha, gain).s * dy : T(0);
}

// With respect to y.
template <Act A, class T>
GANOPS_HD GANOPS_INLINE T bias_act_grad2_from_output(T v, T dy, T y, T alpha, T gain, T clamp) {
  return act_open(y, clamp) ? output_slope<A>(y, alpha, gain).d * dy * v : T(0);
}

// From t = x + b, with respect to x.
template <Act A, class T>
GANOPS_HD GANOPS_INLINE T bias_act_grad2(T v, T dy, T t, T alpha, T gain, T clamp) {
  const Jet<T> j = act_jet<A>(t, alpha);
  return act_open(gain * j.f, clamp) ? gain * j.d2 * dy * v : T(0);
}

}  // namespace ganops
