// A batch of pairs seen as (samples, row) twice: samples one after the other, any memory order
// inside one. What gives one number for the whole batch sees each half as a single sample.
#pragma once

#include "../common/tensors.h"
#include "consistency_math.h"

namespace ganops {

struct Halves {
  int64_t samples, row;
  int64_t size() const { return samples * row; }  // of one half
};

inline Tensor paired(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() >= 1 && x.size(0) > 0 && x.size(0) % 2 == 0,
                  "consistency: expected a batch of 2 B samples in dim 0, B >= 1");
  return has_dense_rows(x) ? x : torch::stable::contiguous(x);
}

inline Halves halves_of(const Tensor& x, bool per_sample) {
  const int64_t samples = per_sample ? x.size(0) / 2 : 1;
  return {samples, x.numel() / 2 / samples};
}

inline std::vector<int64_t> sums_shape(const Halves& h, bool per_sample) {
  return per_sample ? std::vector<int64_t>{h.samples} : std::vector<int64_t>{};
}

// The factors of consistency_grad, contiguous: one, or one per pair.
inline Tensor factors(const Tensor& s, const Tensor& x) {
  STD_TORCH_CHECK(s.scalar_type() == reduced_dtype(x.scalar_type()) &&
                      (s.dim() == 0 || (s.dim() == 1 && s.size(0) == x.size(0) / 2)),
                  "consistency: expected s as a scalar or one number per pair, in the dtype of the "
                  "sums");
  return s.is_contiguous() ? s : torch::stable::contiguous(s);
}

}  // namespace ganops
