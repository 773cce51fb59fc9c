// What the kernels of feature_stats ask of their tensors.
#pragma once

#include "../common/tensors.h"
#include "feature_stats_math.h"

namespace ganops {

inline void check_stats(const Tensor& rows, const Tensor& mean, const Tensor& m2, int64_t count) {
  STD_TORCH_CHECK(rows.dim() == 2 && rows.size(0) > 0 && count >= 0,
                  "feature_stats: expected rows (n >= 1, d) and a count >= 0");
  const int64_t d = rows.size(1);
  STD_TORCH_CHECK(mean.dim() == 1 && mean.size(0) == d && mean.is_contiguous() &&
                      mean.scalar_type() == ScalarType::Double,
                  "feature_stats: expected a float64 mean of ", d, " numbers");
  STD_TORCH_CHECK(m2.dim() == 2 && m2.size(0) == d && m2.size(1) == d && m2.is_contiguous() &&
                      m2.scalar_type() == ScalarType::Double,
                  "feature_stats: expected a contiguous float64 m2 (d, d) with d = ", d);
}

}  // namespace ganops
