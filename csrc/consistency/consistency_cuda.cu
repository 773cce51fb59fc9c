// The consistency loss on CUDA. A row is cut into pieces of one block each, so that a batch seen as
// one row fills the device; sums are finished in a fixed order, without atomics, and a row of one
// piece (the logits of a batch) in the same launch.
#include "../common/cuda_kernels.cuh"
#include "consistency_cuda.h"
#include "consistency_math.h"

namespace ganops {
namespace {

constexpr int64_t kPiece = 8 * 1024;  // pairs per block

__host__ __device__ inline int64_t pieces_of(int64_t row) {
  return row == 0 ? 1 : (row + kPiece - 1) / kPiece;
}

// Calls f(i) for every N-th pair of this block's piece: offsets into a half.
template <int N, class F>
__device__ __forceinline__ void for_piece(int64_t row, const F& f) {
  const int64_t pieces = pieces_of(row), begin = blockIdx.x % pieces * kPiece;
  const int64_t end = begin + kPiece < row ? begin + kPiece : row;
  const int64_t base = blockIdx.x / pieces * row;
#pragma unroll(N == 1 ? 4 : 1)  // whole packs of several rounds spill
  for (int64_t i = begin + threadIdx.x * N; i < end; i += int64_t(kThreads) * N) f(base + i);
}

template <int N, bool Square, class D, class C>
__global__ void __launch_bounds__(kThreads, 2)
    sum_kernel(const D* __restrict__ x, const D* __restrict__ y, double* __restrict__ partial,
               C* __restrict__ out, int64_t row, int64_t half, double scale) {
  C sum(0);
  for_piece<N>(row, [&](int64_t i) {
    const Pack<D, N> a = load_pack<N>(x, i), b = load_pack<N>(x, half + i);
    Pack<D, N> c = a, d = b;
    if constexpr (!Square) {
      c = load_pack<N>(y, i);
      d = load_pack<N>(y, half + i);
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum +=
          consistency_term(widen<C>(a.v[j]), widen<C>(b.v[j]), widen<C>(c.v[j]), widen<C>(d.v[j]));
    }
  });
  const double total = block_sum(double(sum));
  if (threadIdx.x != 0) return;
  if (pieces_of(row) == 1) {
    out[blockIdx.x] = C(scale * total);
  } else {
    partial[blockIdx.x] = total;
  }
}

template <class C>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const double* __restrict__ partial, C* __restrict__ out, int64_t pieces,
                  double scale) {
  double sum = 0;
  for (int64_t k = threadIdx.x; k < pieces; k += kThreads) sum += partial[blockIdx.x * pieces + k];
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = C(scale * sum);
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad_kernel(const C* __restrict__ s, const D* __restrict__ x, D* __restrict__ out, int64_t row,
                int64_t half, double scale) {
  const C k = C(scale * double(s[blockIdx.x / pieces_of(row)]));
  for_piece<N>(row, [&](int64_t i) {
    const Pack<D, N> a = load_pack<N>(x, i), b = load_pack<N>(x, half + i);
    Pack<D, N> p, q;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      p.v[j] = narrow<D>(consistency_slope(k, widen<C>(a.v[j]), widen<C>(b.v[j])));
      q.v[j] = narrow<D>(consistency_slope(k, widen<C>(b.v[j]), widen<C>(a.v[j])));
    }
    store_pack<N>(out, i, p);
    store_pack<N>(out, half + i, q);
  });
}

unsigned grid_of(const ConsistencyLaunch& l) { return unsigned(l.samples * pieces_of(l.row)); }
cudaStream_t stream_of(const ConsistencyLaunch& l) { return static_cast<cudaStream_t>(l.stream); }

// Calls f(device type, compute type, pack size); packs need aligned rows in both halves.
template <class F>
int launch(const ConsistencyLaunch& l, bool aligned, const F& f) {
  return dispatch_dtype(l.dtype, [&](auto t) {
    using T = decltype(t);
    using D = typename DeviceType<T>::type;
    using C = compute_t<T>;
    constexpr int N = kPack<D>;
    if (aligned && l.row % N == 0) {
      f(D{}, C{}, std::integral_constant<int, N>{});
    } else {
      f(D{}, C{}, std::integral_constant<int, 1>{});
    }
    return int(cudaGetLastError());
  });
}

}  // namespace

int64_t consistency_partials(const ConsistencyLaunch& l) {
  const int64_t pieces = pieces_of(l.row);
  return pieces == 1 ? 0 : l.samples * pieces;
}

int consistency_sum_launch(const ConsistencyLaunch& l, const void* x_, const void* y_,
                           double* partial, void* out_) {
  return launch(l, aligned16(x_) && aligned16(y_), [&](auto dt, auto ct, auto n) {
    using D = decltype(dt);
    using C = decltype(ct);
    const auto *x = static_cast<const D*>(x_), *y = static_cast<const D*>(y_);
    auto* out = static_cast<C*>(out_);
    const int64_t half = l.samples * l.row, pieces = pieces_of(l.row);
    if (x == y) {
      sum_kernel<n.value, true, D, C>
          <<<grid_of(l), kThreads, 0, stream_of(l)>>>(x, y, partial, out, l.row, half, l.scale);
    } else {
      sum_kernel<n.value, false, D, C>
          <<<grid_of(l), kThreads, 0, stream_of(l)>>>(x, y, partial, out, l.row, half, l.scale);
    }
    if (pieces > 1) {
      finish_kernel<C>
          <<<unsigned(l.samples), kThreads, 0, stream_of(l)>>>(partial, out, pieces, l.scale);
    }
  });
}

int consistency_grad_launch(const ConsistencyLaunch& l, const void* s, const void* x, void* out) {
  return launch(l, aligned16(x) && aligned16(out), [&](auto dt, auto ct, auto n) {
    using D = decltype(dt);
    using C = decltype(ct);
    grad_kernel<n.value, D, C><<<grid_of(l), kThreads, 0, stream_of(l)>>>(
        static_cast<const C*>(s), static_cast<const D*>(x), static_cast<D*>(out), l.row,
        l.samples * l.row, l.scale);
  });
}

}  // namespace ganops
