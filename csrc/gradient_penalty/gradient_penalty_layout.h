// A gradient seen as (samples, row): any memory order inside a sample, samples outermost.
#pragma once

#include "../common/tensors.h"
#include "gradient_penalty_math.h"

namespace ganops {

inline Tensor dense_rows(const Tensor& t) {
  STD_TORCH_CHECK(t.dim() >= 1 && t.size(0) > 0,
                  "gradient_penalty: expected at least one sample in dim 0");
  return has_dense_rows(t) ? t : torch::stable::contiguous(t);
}

struct Rows {
  int64_t samples, row;
};
inline Rows rows_of(const Tensor& t) { return {t.size(0), t.numel() / t.size(0)}; }

inline void check_norms(const Tensor& norms, const Tensor& grad) {
  STD_TORCH_CHECK(norms.dim() == 1 && norms.size(0) == grad.size(0) && norms.is_contiguous() &&
                      norms.scalar_type() == reduced_dtype(grad.scalar_type()),
                  "gradient_penalty: expected one norm per sample");
}
inline void check_scalar(const Tensor& go, const Tensor& grad) {
  STD_TORCH_CHECK(go.numel() == 1 && go.scalar_type() == reduced_dtype(grad.scalar_type()),
                  "gradient_penalty: expected a scalar of the penalty's dtype");
}

}  // namespace ganops
