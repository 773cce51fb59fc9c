// Philox streams on CUDA: one thread per block of four elements.
#include "../common/cuda_kernels.cuh"
#include "philox_cuda.h"
#include "philox_math.h"

namespace ganops {
namespace {

template <int kKind, class T>
__global__ void __launch_bounds__(kThreads)
    philox_kernel(T* __restrict__ out, int64_t n, uint64_t seed, uint64_t stream, int64_t offset) {
  const int64_t block = offset / 4 + int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t at = 4 * block - offset;
  if (at >= n) return;
  const Words w = philox_block(seed, stream, uint64_t(block));
  Pack<T, 4> values;
  if constexpr (kKind == 2) {
    normals_from_block(w, values.v);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      values.v[j] = kKind == 0 ? T(w.w[j]) : T(uniform_from_bits(w.w[j]));
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (at + j >= 0 && at + j < n) out[at + j] = values.v[j];
  }
}

}  // namespace

int philox_launch(int64_t n, uint64_t seed, uint64_t stream, int64_t offset, int kind, void* out,
                  CudaStream cuda_stream) {
  if (n == 0) return 0;
  const int64_t blocks = (offset + n + 3) / 4 - offset / 4;
  const unsigned grid = unsigned((blocks + kThreads - 1) / kThreads);
  const auto s = static_cast<cudaStream_t>(cuda_stream);
  if (kind == 0) {
    philox_kernel<0><<<grid, kThreads, 0, s>>>(static_cast<int64_t*>(out), n, seed, stream, offset);
  } else if (kind == 1) {
    philox_kernel<1><<<grid, kThreads, 0, s>>>(static_cast<float*>(out), n, seed, stream, offset);
  } else {
    philox_kernel<2><<<grid, kThreads, 0, s>>>(static_cast<float*>(out), n, seed, stream, offset);
  }
  return int(cudaGetLastError());
}

}  // namespace ganops
