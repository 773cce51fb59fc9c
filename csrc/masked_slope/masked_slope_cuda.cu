// masked_slope on CUDA: 16-byte loads and stores of numbers, and their masks packed beside them.
//
// The activation is a run-time argument: the branch is uniform and the kernel waits for memory.
#include <algorithm>

#include "../common/cuda_kernels.cuh"
#include "masked_slope_cuda.h"

namespace ganops {
namespace {

template <class C>
__device__ __forceinline__ bool value(Piece act, C x, C a, C b, C* y) {
  GANOPS_SWITCH_PIECE(act, {
    *y = piece_keeps<P>(x, a, b) ? x : piece_else<P>(x, a, b);
    return piece_inside<P>(x, a, b);
  })
  return false;
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    value_kernel(const D* __restrict__ x, D* __restrict__ y, uint8_t* __restrict__ mask, Piece act,
                 C a, C b, int64_t numel) {
  const int64_t step = int64_t(gridDim.x) * kThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N; i < numel; i += step) {
    const Pack<D, N> from = load_pack<N>(x, i);
    Pack<D, N> to;
    Pack<uint8_t, N> inside;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      C out;
      inside.v[j] = value<C>(act, widen<C>(from.v[j]), a, b, &out);
      to.v[j] = narrow<D>(out);
    }
    store_pack<N>(y, i, to);
    store_pack<N>(mask, i, inside);
  }
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    slope_kernel(const D* __restrict__ g, const uint8_t* __restrict__ mask, D* __restrict__ out,
                 C outside, int64_t numel) {
  const int64_t step = int64_t(gridDim.x) * kThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N; i < numel; i += step) {
    const Pack<D, N> from = load_pack<N>(g, i);
    const Pack<uint8_t, N> inside = load_pack<N>(mask, i);
    Pack<D, N> to;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const D other = narrow<D>(slope_else(widen<C>(from.v[j]), outside));
      to.v[j] = inside.v[j] != 0 ? from.v[j] : other;
    }
    store_pack<N>(out, i, to);
  }
}

unsigned blocks_for(int64_t numel, int64_t each) {
  return unsigned(std::min<int64_t>((numel + each - 1) / each, 1 << 16));
}

}  // namespace

int masked_slope_value_launch(const MaskedLaunch& l, Piece act, double a_, double b_,
                              const void* x_, void* y_, void* mask_) {
  if (l.numel == 0) return 0;
  return dispatch_dtype(l.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    constexpr int N = kPack<D>;
    const auto* x = static_cast<const D*>(x_);
    auto* y = static_cast<D*>(y_);
    auto* mask = static_cast<uint8_t*>(mask_);
    const auto stream = static_cast<cudaStream_t>(l.stream);
    const C a = C(a_), b = C(b_);
    if (l.numel % N == 0 && aligned16(x) && aligned16(y) && aligned16(mask)) {
      value_kernel<N><<<blocks_for(l.numel, kThreads * N), kThreads, 0, stream>>>(x, y, mask, act,
                                                                                  a, b, l.numel);
    } else {
      value_kernel<1>
          <<<blocks_for(l.numel, kThreads), kThreads, 0, stream>>>(x, y, mask, act, a, b, l.numel);
    }
    return int(cudaGetLastError());
  });
}

int masked_slope_launch(const MaskedLaunch& l, double outside_, const void* g_, const void* mask_,
                        void* out_) {
  if (l.numel == 0) return 0;
  return dispatch_dtype(l.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    constexpr int N = kPack<D>;
    const auto* g = static_cast<const D*>(g_);
    const auto* mask = static_cast<const uint8_t*>(mask_);
    auto* out = static_cast<D*>(out_);
    const auto stream = static_cast<cudaStream_t>(l.stream);
    const C outside = C(outside_);
    if (l.numel % N == 0 && aligned16(g) && aligned16(mask) && aligned16(out)) {
      slope_kernel<N><<<blocks_for(l.numel, kThreads * N), kThreads, 0, stream>>>(g, mask, out,
                                                                                  outside, l.numel);
    } else {
      slope_kernel<1>
          <<<blocks_for(l.numel, kThreads), kThreads, 0, stream>>>(g, mask, out, outside, l.numel);
    }
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
