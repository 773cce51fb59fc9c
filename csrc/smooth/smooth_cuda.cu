// smooth on CUDA: 16-byte loads and stores, both results in one pass.
//
// The activation is a run-time argument: the branch is uniform and the kernel waits for memory.
#include <algorithm>

#include "../common/cuda_kernels.cuh"
#include "smooth_cuda.h"

namespace ganops {
namespace {

template <class C>
__device__ __forceinline__ Slopes<C> slopes(Smooth act, C ref, C a, C b) {
  GANOPS_SWITCH_SMOOTH(act, return smooth_slopes<A>(ref, a, b))
  return {C(0), C(0)};
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad2_kernel(const D* __restrict__ v, const D* __restrict__ dy, const D* __restrict__ ref,
                 D* __restrict__ d_dy, D* __restrict__ d_ref, Smooth act, C a, C b, int64_t numel) {
  const int64_t step = int64_t(gridDim.x) * kThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N; i < numel; i += step) {
    const Pack<D, N> w = load_pack<N>(v, i), g = load_pack<N>(dy, i), r = load_pack<N>(ref, i);
    Pack<D, N> first, second;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const C u = widen<C>(w.v[j]);
      const Slopes<C> f = slopes<C>(act, widen<C>(r.v[j]), a, b);
      first.v[j] = narrow<D>(f.s * u);
      second.v[j] = narrow<D>(f.d * (u * widen<C>(g.v[j])));
    }
    store_pack<N>(d_dy, i, first);
    store_pack<N>(d_ref, i, second);
  }
}

}  // namespace

int smooth_grad2_launch(const SmoothLaunch& l, const void* v_, const void* dy_, const void* ref_,
                        void* d_dy_, void* d_ref_) {
  if (l.numel == 0) return 0;
  return dispatch_dtype(l.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    constexpr int N = sizeof(D) == 8 ? 1 : kPack<D>;  // two erfc in double spill on sm_90
    const auto *v = static_cast<const D*>(v_), *dy = static_cast<const D*>(dy_),
               *ref = static_cast<const D*>(ref_);
    auto *d_dy = static_cast<D*>(d_dy_), *d_ref = static_cast<D*>(d_ref_);
    const auto stream = static_cast<cudaStream_t>(l.stream);
    const bool pack = l.numel % N == 0 && aligned16(v) && aligned16(dy) && aligned16(ref) &&
                      aligned16(d_dy) && aligned16(d_ref);
    const int64_t each = int64_t(kThreads) * (pack ? N : 1);
    const unsigned blocks = unsigned(std::min<int64_t>((l.numel + each - 1) / each, 1 << 16));
    const C a = C(l.a), b = C(l.b);
    if (pack) {
      grad2_kernel<N>
          <<<blocks, kThreads, 0, stream>>>(v, dy, ref, d_dy, d_ref, l.act, a, b, l.numel);
    } else {
      grad2_kernel<1>
          <<<blocks, kThreads, 0, stream>>>(v, dy, ref, d_dy, d_ref, l.act, a, b, l.numel);
    }
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
