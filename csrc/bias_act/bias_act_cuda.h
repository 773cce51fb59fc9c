// Launchers of bias_act_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"
#include "bias_act_math.h"

namespace ganops {

struct BiasActLaunch {
  DType dtype;
  Act act;
  double alpha, gain, clamp;
  int64_t numel, channels, inner;  // position p is in channel p / inner % channels
  CudaStream stream;
};

int bias_act_value_launch(const BiasActLaunch& a, const void* x, const void* b, void* y);

// order 1 (v unused) or 2. `partial` holds bias_act_partials(a) compute-type sums, `db` channels
// results; both null where no bias gradient is wanted.
int bias_act_grad_launch(const BiasActLaunch& a, int order, bool from_output, const void* v,
                         const void* dy, const void* ref, const void* b, void* out, void* partial,
                         void* db);
int64_t bias_act_partials(const BiasActLaunch& a);

}  // namespace ganops
