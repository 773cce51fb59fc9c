// ada's random numbers on CUDA: a thread a sample. Included by ada_cuda.cu alone.
#pragma once

#include "../common/cuda_kernels.cuh"
#include "ada_cuda.h"

namespace ganops {
namespace {

constexpr int kDrawThreads = 128;  // many registers, few samples

__global__ void __launch_bounds__(kDrawThreads)
    params_kernel(AdaPlan plan, const double* __restrict__ p, int64_t n, uint64_t seed,
                  uint64_t offset, int64_t height, int64_t width, double* __restrict__ table,
                  int64_t* __restrict__ maps) {
  const int64_t i = blockIdx.x * int64_t(kDrawThreads) + threadIdx.x;
  if (i >= n) return;
  ada_draw(plan, *p, seed, offset + uint64_t(i), height, width, table + i * kAdaColumns,
           maps + i * kAdaMap);
}

}  // namespace

int ada_params_launch(const AdaPlan& plan, const double* p, int64_t n, uint64_t seed,
                      uint64_t offset, int64_t height, int64_t width, double* table, int64_t* maps,
                      CudaStream stream) {
  if (n == 0) return 0;
  params_kernel<<<unsigned((n + kDrawThreads - 1) / kDrawThreads), kDrawThreads, 0,
                  static_cast<cudaStream_t>(stream)>>>(plan, p, n, seed, offset, height, width,
                                                       table, maps);
  return int(cudaGetLastError());
}

}  // namespace ganops
