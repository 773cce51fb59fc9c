// Device-side tools: half types, 16-byte loads, block sums. No torch header: nvcc compiles these
// files anywhere.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "cuda_launch.h"
#include "numeric.h"

namespace ganops {

// CUDA's own half types carry the same bits as Half and BFloat16, with hardware conversions.
template <class T>
struct DeviceType {
  using type = T;
};
template <>
struct DeviceType<Half> {
  using type = __half;
};
template <>
struct DeviceType<BFloat16> {
  using type = __nv_bfloat16;
};

template <class C>
__device__ __forceinline__ C widen(float v) {
  return C(v);
}
template <class C>
__device__ __forceinline__ C widen(double v) {
  return C(v);
}
template <class C>
__device__ __forceinline__ C widen(__half v) {
  return __half2float(v);
}
template <class C>
__device__ __forceinline__ C widen(__nv_bfloat16 v) {
  return __bfloat162float(v);
}
template <class T>
__device__ __forceinline__ T narrow(double v) {
  return T(v);
}
template <class T>
__device__ __forceinline__ T narrow(float v) {
  if constexpr (sizeof(T) == 2) {
    if constexpr (std::is_same_v<T, __half>) {
      return __float2half_rn(v);
    } else {
      return __float2bfloat16_rn(v);
    }
  } else {
    return T(v);
  }
}

// N consecutive elements, moved by one instruction where N fills 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <class T>
constexpr int kPack = 16 / int(sizeof(T));

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* p, int64_t i) {
  return *reinterpret_cast<const Pack<T, N>*>(p + i);
}
template <int N, class T>
__device__ __forceinline__ void store_pack(T* p, int64_t i, const Pack<T, N>& v) {
  *reinterpret_cast<Pack<T, N>*>(p + i) = v;
}

// Sum over the threads of a block (a multiple of 32, at most 1024), in a fixed order; the result
// is valid in thread 0. Safe to call again.
template <class C>
__device__ __forceinline__ C block_sum(C v) {
  __shared__ C warp_sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_down_sync(0xffffffffu, v, offset);
  __syncthreads();  // an earlier call may still be reading
  if (lane == 0) warp_sums[warp] = v;
  __syncthreads();
  v = threadIdx.x < blockDim.x / 32 ? warp_sums[lane] : C(0);
  if (warp == 0) {
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_down_sync(0xffffffffu, v, offset);
  }
  return v;
}

}  // namespace ganops
