// upfirdn2d, the formulas, along one axis: put up - 1 zeros after every number, pad by `pad` zeros
// in front (or crop), correlate with g, keep every down-th:
//
//   order 0   y[o] = sum over k of g[k] z[o down + k - pad],   z[i up] = x[i], z = 0 elsewhere
//             y[o] = sum over j of g[tap + j up] x[index + j]   the same without the zeros
//   order 1   the adjoint is the same operation: up and down swapped, g reversed,
//             pad' = taps - 1 - pad; and of the adjoint, the operation itself
//   order 2   of a linear operation: nothing
#pragma once

#include "../common/macros.h"

namespace ganops {

template <class I>
struct FirstTap {
  I tap, index;  // 0 <= tap < up
};

// index is the first i with i up >= o down - pad.
template <class I>
GANOPS_HD GANOPS_INLINE FirstTap<I> first_tap(I o, I up, I down, I pad) {
  const I from = o * down - pad;
  const I index = from > 0 ? (from + up - 1) / up : -(-from / up);
  return {index * up - from, index};
}

// How many of tap, tap + up, tap + 2 up, ... are below taps.
template <class I>
GANOPS_HD GANOPS_INLINE I tap_count(I tap, I up, I taps) {
  return tap < taps ? (taps - tap + up - 1) / up : I(0);
}

}  // namespace ganops
