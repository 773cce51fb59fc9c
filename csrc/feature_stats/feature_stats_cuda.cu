// feature_stats on CUDA: centring and casting in one pass. The product is cuBLAS's.
#include <algorithm>

#include "../common/cuda_kernels.cuh"
#include "feature_stats_cuda.h"
#include "feature_stats_math.h"

namespace ganops {
namespace {

constexpr int kColumns = 32, kLanes = 8;  // a block of threads: 32 columns, 8 rows at a time

template <class T, class S>
__global__ void __launch_bounds__(kColumns* kLanes)
    center_kernel(const T* __restrict__ rows, const double* __restrict__ mean,
                  double* __restrict__ merged, S* __restrict__ block, StatsLaunch l) {
  __shared__ double sums[kLanes][kColumns];
  const int64_t column = int64_t(blockIdx.x) * kColumns + threadIdx.x;
  const bool inside = column < l.d;
  double sum = 0;
  for (int64_t r = threadIdx.y; inside && r < l.n; r += kLanes) {
    sum += widen<double>(rows[r * l.stride + column]);
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (!inside) return;
  double own = 0;
  for (int lane = 0; lane < kLanes; ++lane) own += sums[lane][threadIdx.x];
  own /= double(l.n);
  if (threadIdx.y == 0) {
    const double way = own - mean[column];
    merged[column] = mean[column] + merge_step(double(l.count), double(l.n)) * way;
    block[l.n * l.d + column] = S(merge_spread(double(l.count), double(l.n)) * way);
  }
  for (int64_t r = threadIdx.y; r < l.n; r += kLanes) {
    block[r * l.d + column] = S(widen<double>(rows[r * l.stride + column]) - own);
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    add_kernel(const S* __restrict__ product, double* __restrict__ m2, int64_t d) {
  const int64_t i = blockIdx.x;
  for (int64_t j = i + threadIdx.x; j < d; j += kThreads) {
    m2[i * d + j] += double(product[i * d + j]);
  }
}

}  // namespace

int feature_stats_center_launch(const StatsLaunch& l, const void* rows, const double* mean,
                                double* merged, void* block) {
  const unsigned grid = unsigned((l.d + kColumns - 1) / kColumns);
  const dim3 threads(kColumns, kLanes);
  const auto s = static_cast<cudaStream_t>(l.stream);
  if (l.d == 0) return 0;
  return dispatch_dtype(l.dtype, [&](auto t) {
    using T = typename DeviceType<decltype(t)>::type;
    const T* x = static_cast<const T*>(rows);
    if (l.fast) {
      center_kernel<<<grid, threads, 0, s>>>(x, mean, merged, static_cast<float*>(block), l);
    } else {
      center_kernel<<<grid, threads, 0, s>>>(x, mean, merged, static_cast<double*>(block), l);
    }
    return int(cudaGetLastError());
  });
}

int feature_stats_add_launch(const StatsLaunch& l, const void* product, double* m2) {
  if (l.d == 0) return 0;
  const auto s = static_cast<cudaStream_t>(l.stream);
  if (l.fast) {
    add_kernel<<<unsigned(l.d), kThreads, 0, s>>>(static_cast<const float*>(product), m2, l.d);
  } else {
    add_kernel<<<unsigned(l.d), kThreads, 0, s>>>(static_cast<const double*>(product), m2, l.d);
  }
  return int(cudaGetLastError());
}

}  // namespace ganops
