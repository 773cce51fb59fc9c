// What both libraries check of ada's arguments.
#pragma once

#include "../common/tensors.h"
#include "ada_draw.h"

namespace ganops {

constexpr int64_t kAdaMostSide = 32768;

inline void check_ada(const Tensor& x, const Tensor& maps, const std::optional<Tensor>& color) {
  STD_TORCH_CHECK(x.dim() == 4, "ada: expected x of shape (B, C, H, W)");
  const int64_t channels = x.size(1);
  STD_TORCH_CHECK(x.size(2) <= kAdaMostSide && x.size(3) <= kAdaMostSide,
                  "ada: expected sides up to ", kAdaMostSide);
  STD_TORCH_CHECK(maps.scalar_type() == ScalarType::Long && maps.dim() == 2 &&
                      maps.size(0) == x.size(0) && maps.size(1) == kAdaMap,
                  "ada: expected maps of shape (B, 7), int64");
  if (!color.has_value()) return;
  STD_TORCH_CHECK(channels == 1 || channels == 3, "ada: expected 1 or 3 channels with color");
  STD_TORCH_CHECK(color->dim() == 3 && color->size(0) == x.size(0) && color->size(1) == channels &&
                      color->size(2) == channels + 1 &&
                      color->scalar_type() == reduced_dtype(x.scalar_type()),
                  "ada: expected color of shape (B, C, C + 1) in the dtype of computation");
}

// The policy as the kernels take it: by value.
inline AdaPlan ada_plan(const Tensor& p, const Tensor& plan) {
  STD_TORCH_CHECK(p.numel() == 1 && p.scalar_type() == ScalarType::Double,
                  "ada_params: expected p as one float64 number");
  STD_TORCH_CHECK(plan.device().type() == torch::headeronly::DeviceType::CPU &&
                      plan.is_contiguous() && plan.numel() == kAdaPlan &&
                      plan.scalar_type() == ScalarType::Double,
                  "ada_params: expected the plan as ", kAdaPlan, " float64 numbers on the CPU");
  AdaPlan k;
  std::memcpy(&k, plan.const_data_ptr(), sizeof(k));
  return k;
}

struct AdaDrawn {
  Tensor maps, table;
};
inline AdaDrawn new_drawn(const Tensor& like, int64_t n) {
  return {torch::stable::new_empty(like, {n, kAdaMap}, std::make_optional(ScalarType::Long)),
          torch::stable::new_empty(like, {n, kAdaColumns})};
}

inline Tensor new_contiguous(const Tensor& x, std::optional<ScalarType> dtype = std::nullopt) {
  return torch::stable::new_empty(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, dtype);
}

}  // namespace ganops
