// Launchers of spectral_norm_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

// One weight as contiguous (outer, rows, inner); see spectral_norm_layout.h. `scratch` is where its
// part of the call's scratch begins, in elements.
struct SpectralLayer {
  const void *w, *y;  // backward: the gradient, and W / sigma; forward: W alone
  void* out;
  const void *u0, *v0;  // given
  void *u, *v;          // after the iterations; null in the backward
  int64_t outer, rows, inner, scratch;
};

struct SpectralLaunch {
  DType dtype;
  const SpectralLayer* layers;
  int64_t count;
  CudaStream stream;
};

int64_t spectral_forward_scratch(const SpectralLayer& l);   // of the computed type
int64_t spectral_backward_scratch(const SpectralLayer& l);  // of double

int spectral_forward_launch(const SpectralLaunch& a, int64_t steps, double eps, void* scratch,
                            void* sigmas);
int spectral_backward_launch(const SpectralLaunch& a, double* scratch, const void* sigmas);

}  // namespace ganops
