// Launchers of augment_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"
#include "augment_math.h"

namespace ganops {

struct AugmentLaunch {
  AugmentShape shape;
  const float* params;
  double* sums;  // kAugmentSlots per sample, where flags ask for contrast
  uint64_t seed, offset;
  int flags;
  bool pair, linear;
  CudaStream stream;
};

// Partial sums of an image mean: enough to fill a GPU from a few images on.
constexpr int kAugmentSlots = 32;

// in_bytes: x is uint8, and `in` is not looked at.
int augment_params_launch(const AugmentPlan& plan, int64_t n, uint64_t seed, uint64_t offset,
                          float* params, CudaStream stream);
int augment_launch(const AugmentLaunch& l, DType in, bool in_bytes, DType out, const void* x,
                   void* y);
int augment_grad_launch(const AugmentLaunch& l, DType in, DType out, const void* dy, void* dx);

}  // namespace ganops
