// What both devices ask of the tensors of masked_slope.
#pragma once

#include "../common/tensors.h"
#include "masked_slope_math.h"

namespace ganops {

inline void check_piece(int64_t act) {
  STD_TORCH_CHECK(act >= 0 && act < int64_t(Piece::count), "masked_slope: no activation ", act);
}

inline void check_mask(const Tensor& g, const Tensor& mask) {
  STD_TORCH_CHECK(mask.scalar_type() == ScalarType::Bool, "mask must be bool");
  STD_TORCH_CHECK(mask.dim() == g.dim(), "mask must have the rank of g");
  for (int64_t d = 0; d < g.dim(); ++d) {
    STD_TORCH_CHECK(mask.size(d) == g.size(d), "mask must have the shape of g, differs in dim ", d,
                    ": expected ", g.size(d), ", got ", mask.size(d));
  }
}

// A tensor of some dtype, in the memory order of t, which is dense. The stable empty_like keeps the
// dtype.
inline Tensor empty_as(const Tensor& t, int32_t dtype) {
  std::vector<int64_t> sizes, strides;
  for (int64_t d = 0; d < t.dim(); ++d) {
    sizes.push_back(t.size(d));
    strides.push_back(t.stride(d));
  }
  int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &device));
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(t.dim(), sizes.data(), strides.data(), dtype,
                                                  device, t.get_device_index(), &made));
  return Tensor(made);
}

inline Tensor mask_like(const Tensor& t) { return empty_as(t, aoti_torch_dtype_bool()); }

// g in the memory order of the mask.
inline Tensor in_order_of(const Tensor& g, const Tensor& mask) {
  if (same_strides(g, mask)) return g;
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(g.get(), &dtype));
  Tensor copy = empty_as(mask, dtype);
  return torch::stable::copy_(copy, g);
}

}  // namespace ganops
