// Launchers of gradient_penalty_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

struct PenaltyLaunch {
  DType dtype;
  int64_t samples, row;
  double center;
  bool one_sided;
  CudaStream stream;
};

// Doubles of scratch for `partial`: at most two sums per piece of a row.
int64_t penalty_partials(const PenaltyLaunch& a);

// (value, norms) from g.
int penalty_value_launch(const PenaltyLaunch& a, const void* g, double* partial, void* value,
                         void* norms);
// out = go dP/dg.
int penalty_grad_launch(const PenaltyLaunch& a, const void* go, const void* g, const void* norms,
                        void* out);
// (d_go, d_grad) from the cotangent v.
int penalty_grad2_launch(const PenaltyLaunch& a, const void* v, const void* go, const void* g,
                         const void* norms, double* partial, void* d_go, void* d_grad);

}  // namespace ganops
