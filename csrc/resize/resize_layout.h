// Images, taps and results as the kernels see them.
#pragma once

#include "../common/tensors.h"
#include "resize_math.h"

namespace ganops {

struct ResizeShape {
  int64_t batch, channels, height, width, out_h, out_w, taps_y, taps_x;
  bool lerp;  // weights are float32, one a pixel: the fraction to the next one
};

inline int64_t check_taps(const Tensor& first, const Tensor& weight, ScalarType type) {
  STD_TORCH_CHECK(
      first.dim() == 1 && weight.dim() == 2 && weight.size(0) == first.size(0) &&
          first.size(0) > 0 && weight.size(1) > 0 && first.is_contiguous() &&
          weight.is_contiguous() && first.scalar_type() == ScalarType::Int &&
          weight.scalar_type() == type,
      "resize: expected taps as first (n,) int32 and weight (n, k), all float32 or all float64");
  return weight.size(1);
}

inline ResizeShape resize_shape(const Tensor& x, const Tensor& first_y, const Tensor& weight_y,
                                const Tensor& first_x, const Tensor& weight_x) {
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Byte &&
                      (x.size(1) == 1 || x.size(1) == 3) && x.size(2) > 0 && x.size(3) > 0,
                  "resize: expected uint8 (N, 1 or 3, H > 0, W > 0)");
  const bool lerp = weight_y.scalar_type() == ScalarType::Float;
  const ScalarType type = lerp ? ScalarType::Float : ScalarType::Double;
  const int64_t taps_y = check_taps(first_y, weight_y, type);
  const int64_t taps_x = check_taps(first_x, weight_x, type);
  STD_TORCH_CHECK(!lerp || (taps_y == 1 && taps_x == 1), "resize: expected one fraction a pixel");
  STD_TORCH_CHECK(x.size(2) < (1 << 24) && x.size(3) < (1 << 24) && first_y.size(0) < (1 << 24) &&
                      first_x.size(0) < (1 << 24),
                  "resize: expected sides below 2^24");
  return {x.size(0),       x.size(1), x.size(2), x.size(3), first_y.size(0),
          first_x.size(0), taps_y,    taps_x,    lerp};
}

// dtype: 0 float32, 2 bfloat16, 3 float16, as everywhere.
inline Tensor resize_result(const Tensor& x, const ResizeShape& s, int64_t dtype, bool last) {
  using torch::headeronly::MemoryFormat;
  STD_TORCH_CHECK(dtype == 0 || dtype == 2 || dtype == 3, "resize: no dtype ", dtype);
  const ScalarType type = dtype == 0   ? ScalarType::Float
                          : dtype == 2 ? ScalarType::BFloat16
                                       : ScalarType::Half;
  return torch::stable::empty({s.batch, 3, s.out_h, s.out_w}, type, std::nullopt, x.device(),
                              std::nullopt,
                              last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

}  // namespace ganops
