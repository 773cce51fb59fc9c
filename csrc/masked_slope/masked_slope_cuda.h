// Launchers of masked_slope_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"
#include "masked_slope_math.h"

namespace ganops {

struct MaskedLaunch {
  DType dtype;
  int64_t numel;
  CudaStream stream;
};

int masked_slope_value_launch(const MaskedLaunch& l, Piece act, double a, double b, const void* x,
                              void* y, void* mask);
int masked_slope_launch(const MaskedLaunch& l, double outside, const void* g, const void* mask,
                        void* out);

}  // namespace ganops
