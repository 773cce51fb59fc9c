// Launchers of feature_stats_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

struct StatsLaunch {
  DType dtype;  // of the rows
  int64_t n, d, stride;
  int64_t count;
  bool fast;  // block and product are float32, else float64
  CudaStream stream;
};

// block (n + 1, d): the centred rows and the way from the old mean; merged (d,): the new mean.
int feature_stats_center_launch(const StatsLaunch& l, const void* rows, const double* mean,
                                double* merged, void* block);
// m2 += product, upper triangle.
int feature_stats_add_launch(const StatsLaunch& l, const void* product, double* m2);

}  // namespace ganops
