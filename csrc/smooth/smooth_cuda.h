// Launcher of smooth_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"
#include "smooth_math.h"

namespace ganops {

struct SmoothLaunch {
  DType dtype;
  Smooth act;
  double a, b;
  int64_t numel;
  CudaStream stream;
};

int smooth_grad2_launch(const SmoothLaunch& l, const void* v, const void* dy, const void* ref,
                        void* d_dy, void* d_ref);

}  // namespace ganops
