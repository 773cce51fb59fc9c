// masked_slope, the formulas: a piecewise linear y = f(x) whose slope is 1 inside and one number
// outside, so that a byte a number says all that its derivatives need.
//
//   order 0        y = f(x), inside = (f'(x) == 1)
//   order 1 and up s g, s = inside ? 1 : outside: linear in g, and so its own derivative
//
// Kinks and NaN are torch's: outside, and y = NaN.
#pragma once

#include "../common/numeric.h"

namespace ganops {

// Order and names as in ganops/ops/masked_slope/reference.py; a test compares the two.
enum class Piece : int { relu, leaky_relu, hardtanh, threshold, count };

// a, b: the slope of leaky_relu; the limits of hardtanh; the limit of threshold and the value past
// it.
template <Piece P, class C>
GANOPS_HD GANOPS_INLINE bool piece_inside(C x, C a, C b) {
  if constexpr (P == Piece::hardtanh) return x > a && x < b;
  if constexpr (P == Piece::threshold) return x > a;
  return x > C(0);
}

// Is y = x? At a kink and where x is NaN it may be, outside.
template <Piece P, class C>
GANOPS_HD GANOPS_INLINE bool piece_keeps(C x, C a, C b) {
  if constexpr (P == Piece::leaky_relu) return x > C(0);
  if constexpr (P == Piece::hardtanh) return !(x < a || x > b);
  if constexpr (P == Piece::threshold) return !(x <= a);
  return !(x <= C(0));
}

// y where it is not x.
template <Piece P, class C>
GANOPS_HD GANOPS_INLINE C piece_else(C x, C a, C b) {
  if constexpr (P == Piece::leaky_relu) return a * x;
  if constexpr (P == Piece::hardtanh) return x < a ? a : b;
  if constexpr (P == Piece::threshold) return b;
  return C(0);
}

// s g outside. A zero slope keeps infinities and NaN out, as torch's kernels do.
template <class C>
GANOPS_HD GANOPS_INLINE C slope_else(C g, C outside) {
  return outside == C(0) ? C(0) : outside * g;
}

}  // namespace ganops

// Runs the statement with P as a compile-time constant.
#define GANOPS_PIECE_CASE(NAME, ...) \
  case Piece::NAME: {                \
    constexpr Piece P = Piece::NAME; \
    __VA_ARGS__;                     \
    break;                           \
  }
#define GANOPS_SWITCH_PIECE(act, ...)          \
  switch (act) {                               \
    GANOPS_PIECE_CASE(relu, __VA_ARGS__)       \
    GANOPS_PIECE_CASE(leaky_relu, __VA_ARGS__) \
    GANOPS_PIECE_CASE(hardtanh, __VA_ARGS__)   \
    GANOPS_PIECE_CASE(threshold, __VA_ARGS__)  \
    default:                                   \
      break;                                   \
  }
