// Launchers of consistency_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

struct ConsistencyLaunch {
  DType dtype;
  int64_t samples, row;  // of one half
  double scale;
  CudaStream stream;
};

// Doubles of scratch for `partial`: one sum per piece of a row; 0 where a row is one piece.
int64_t consistency_partials(const ConsistencyLaunch& l);

// out[sample] = scale <Dx, Dy>; y == x reads each number once.
int consistency_sum_launch(const ConsistencyLaunch& l, const void* x, const void* y,
                           double* partial, void* out);
// out = scale s Lx.
int consistency_grad_launch(const ConsistencyLaunch& l, const void* s, const void* x, void* out);

}  // namespace ganops
