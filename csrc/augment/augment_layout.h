// The images as the kernels see them, and the tensors they come in.
#pragma once

#include "../common/tensors.h"
#include "augment_math.h"

namespace ganops {

// Twin of is_channels_last in reference.py.
inline bool is_channels_last(const Tensor& x) {
  if (x.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (x.size(d) > 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

// x itself where its memory is in one of the two orders, else a copy.
inline Tensor in_image_order(const Tensor& x) {
  return is_channels_last(x) ? x : torch::stable::contiguous(x);
}

inline AugmentShape augment_shape(const Tensor& x, const Tensor& params, bool pair_of_x) {
  STD_TORCH_CHECK(x.dim() == 4 && (!pair_of_x || x.size(0) % 2 == 0), "augment: bad images");
  const int64_t batch = x.size(0) / (pair_of_x ? 2 : 1);
  STD_TORCH_CHECK(
      params.dim() == 2 && params.size(0) == batch && params.size(1) == kAugmentColumns &&
          params.is_contiguous() && params.scalar_type() == ScalarType::Float,
      "augment: expected params of shape (", batch, ", ", kAugmentColumns, "), contiguous float32");
  return {batch, x.size(1), x.size(2), x.size(3), is_channels_last(x)};
}

inline ScalarType floating_type(int64_t code) {
  constexpr ScalarType types[] = {ScalarType::Float, ScalarType::Double, ScalarType::BFloat16,
                                  ScalarType::Half};
  STD_TORCH_CHECK(code >= 0 && code < 4, "augment: no dtype ", code);
  return types[code];
}

// New images of this shape: `batch` of them, in the memory order of x.
inline Tensor new_images(const Tensor& x, const AugmentShape& s, int64_t batch, int64_t dtype) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::empty(
      {batch, s.channels, s.height, s.width}, floating_type(dtype), std::nullopt, x.device(),
      std::nullopt, s.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline AugmentPlan augment_plan(int64_t height, int64_t width, int64_t flip, int64_t gate,
                                int64_t shift_y, int64_t shift_x, int64_t cut_y, int64_t cut_x,
                                double sub_y, double sub_x, double brightness, double saturation,
                                double contrast, double noise) {
  return {height,
          width,
          flip,
          gate,
          shift_y,
          shift_x,
          cut_y,
          cut_x,
          float(sub_y),
          float(sub_x),
          float(brightness),
          float(saturation),
          float(contrast),
          float(noise)};
}

}  // namespace ganops
