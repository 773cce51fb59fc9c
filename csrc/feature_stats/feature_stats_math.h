// Chan, Golub and LeVeque's merge of two sets' counts, means and centred second moments.
//
//   mean = mean_a + d n_b / n,  M2 = M2_a + M2_b + d d' n_a n_b / n,  d = mean_b - mean_a
//
// The last term is that of one more row, spread(n_a, n_b) d, so that one product does it all.
#pragma once

#include <cmath>

#include "../common/macros.h"

namespace ganops {

// n_b / n: how far the mean moves towards b's.
GANOPS_HD GANOPS_INLINE double merge_step(double n_a, double n_b) { return n_b / (n_a + n_b); }

// sqrt(n_a n_b / n), without the overflow or the lost bits of n_a n_b.
GANOPS_HD GANOPS_INLINE double merge_spread(double n_a, double n_b) {
  return sqrt(n_a * merge_step(n_a, n_b));
}

}  // namespace ganops
