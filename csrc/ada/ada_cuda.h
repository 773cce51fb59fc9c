// Launchers of ada_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"
#include "ada_draw.h"

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

// p: one number on the device; table: (n, kAdaColumns), maps: (n, 7).
int ada_params_launch(const AdaPlan& plan, const double* p, int64_t n, uint64_t seed,
                      uint64_t offset, int64_t height, int64_t width, double* table, int64_t* maps,
                      CudaStream stream);

int ada_launch(const AdaLaunch& l, const void* x, void* y);

// lattice: (samples, channels, 2 height + 10, 2 width + 10) in the dtype of computation.
int ada_grad_launch(const AdaLaunch& l, const void* dy, void* lattice, void* dx);

}  // namespace ganops
