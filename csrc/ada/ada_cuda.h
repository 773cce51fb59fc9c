// Launchers of ada_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"
#include "ada_math.h"

namespace ganops {

struct AdaStrides {
  int64_t n, c, y, x;
};

struct AdaLaunch {
  DType dtype;
  int64_t samples, channels, height, width;
  const int64_t* maps;  // (samples, 7)
  const void* color;    // (samples, channels, channels + 1) in the dtype of computation, or null
  AdaStrides in, out;
  CudaStream stream;
};

int ada_launch(const AdaLaunch& l, const void* x, void* y);

// lattice: (samples, channels, 2 height + 10, 2 width + 10) in the dtype of computation.
int ada_grad_launch(const AdaLaunch& l, const void* dy, void* lattice, void* dx);

}  // namespace ganops
