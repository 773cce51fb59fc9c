// The gradient penalty's reduction on CUDA. A row is cut into pieces of one block each, so that a
// few long rows fill the device; sums are finished in a fixed order, without atomics.
#include "../common/cuda_kernels.cuh"
#include "gradient_penalty_cuda.h"
#include "gradient_penalty_math.h"

namespace ganops {
namespace {

constexpr int64_t kPiece = 16 * 1024;  // elements per block

__host__ __device__ inline int64_t pieces_of(int64_t row) {
  return row == 0 ? 1 : (row + kPiece - 1) / kPiece;
}

// Calls f(i) for every N-th element of this block's piece: offsets into the tensor.
template <int N, class F>
__device__ __forceinline__ void for_piece(int64_t row, const F& f) {
  const int64_t begin = int64_t(blockIdx.y) * kPiece;
  const int64_t end = begin + kPiece < row ? begin + kPiece : row;
  const int64_t base = int64_t(blockIdx.x) * row;
  for (int64_t i = begin + threadIdx.x * N; i < end; i += int64_t(kThreads) * N) f(base + i);
}

// |g|^2 of each piece, and |s g|^2 for samples that turn out to be small.
template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const D* __restrict__ g, double* __restrict__ partial, int64_t row) {
  C sum(0), scaled_sum(0);
  for_piece<N>(row, [&](int64_t i) {
    const Pack<D, N> x = load_pack<N>(g, i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const C plain = widen<C>(x.v[j]), scaled = SmallNorm<C>::scale * plain;
      sum += plain * plain;
      scaled_sum += scaled * scaled;
    }
  });
  const double total = block_sum(double(sum)), scaled_total = block_sum(double(scaled_sum));
  if (threadIdx.x != 0) return;
  const int64_t at = int64_t(blockIdx.x) * gridDim.y + blockIdx.y;
  partial[at] = total;
  partial[int64_t(gridDim.x) * gridDim.y + at] = scaled_total;
}

// <v, s g> of each piece.
template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    dots_kernel(const D* __restrict__ v, const D* __restrict__ g, const C* __restrict__ norms,
                double* __restrict__ partial, int64_t row, double center) {
  const C s = penalty_scale<C>(norms[blockIdx.x], center);
  C sum(0);
  for_piece<N>(row, [&](int64_t i) {
    const Pack<D, N> x = load_pack<N>(v, i), y = load_pack<N>(g, i);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += widen<C>(x.v[j]) * (s * widen<C>(y.v[j]));
  });
  const double total = block_sum(double(sum));
  if (threadIdx.x == 0) partial[int64_t(blockIdx.x) * gridDim.y + blockIdx.y] = total;
}

template <class C>
__global__ void __launch_bounds__(kThreads)
    finish_value_kernel(const double* __restrict__ partial, C* __restrict__ value,
                        C* __restrict__ norms, int64_t samples, int64_t pieces, double center,
                        bool one_sided) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < samples; b += kThreads) {
    double squares = 0, scaled = 0;
    for (int64_t k = 0; k < pieces; ++k) {
      squares += partial[b * pieces + k];
      scaled += partial[(samples + b) * pieces + k];
    }
    using Small = SmallNorm<C>;
    const bool small = squares < double(Small::below) * double(Small::below);
    const C n = C(small ? sqrt(scaled) / Small::scale : sqrt(squares));
    norms[b] = n;
    sum += penalty_value<double>(n, center, one_sided);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *value = C(sum / double(samples));
}

template <class C>
__global__ void __launch_bounds__(kThreads)
    finish_go_kernel(const double* __restrict__ partial, const C* __restrict__ norms,
                     C* __restrict__ d_go, int64_t samples, int64_t pieces, double center,
                     bool one_sided) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < samples; b += kThreads) {
    double dot = 0;
    for (int64_t k = 0; k < pieces; ++k) dot += partial[b * pieces + k];
    const C s = penalty_scale<C>(norms[b], center);
    sum += penalty_k1<double>(norms[b], s * norms[b], center, one_sided) * dot;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *d_go = C(sum / double(samples));
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad_kernel(const C* __restrict__ go, const D* __restrict__ g, const C* __restrict__ norms,
                D* __restrict__ out, int64_t samples, int64_t row, double center, bool one_sided) {
  const C n = norms[blockIdx.x], s = penalty_scale<C>(n, center);
  const C k = C(double(*go) / double(samples) * penalty_k1<double>(n, s * n, center, one_sided));
  for_piece<N>(row, [&](int64_t i) {
    const Pack<D, N> x = load_pack<N>(g, i);
    Pack<D, N> y;
#pragma unroll
    for (int j = 0; j < N; ++j) y.v[j] = narrow<D>(k * (s * widen<C>(x.v[j])));
    store_pack<N>(out, i, y);
  });
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad2_kernel(const D* __restrict__ v, const C* __restrict__ go, const D* __restrict__ g,
                 const C* __restrict__ norms, const double* __restrict__ partial,
                 D* __restrict__ out, int64_t samples, int64_t row, double center, bool one_sided) {
  __shared__ C factors[2];  // by one thread: divisions in double take registers
  const C n = norms[blockIdx.x], s = penalty_scale<C>(n, center);
  if (threadIdx.x == 0) {
    const double scale = double(*go) / double(samples);
    double dot = 0;
    for (unsigned k = 0; k < gridDim.y; ++k) dot += partial[int64_t(blockIdx.x) * gridDim.y + k];
    factors[0] = C(scale * penalty_k1<double>(n, s * n, center, one_sided));
    factors[1] = C(scale * penalty_k2<double>(n, s * n, dot, center, one_sided));
  }
  __syncthreads();
  const C kv = factors[0], kg = factors[1];
  for_piece<N>(row, [&](int64_t i) {
    const Pack<D, N> x = load_pack<N>(v, i), y = load_pack<N>(g, i);
    Pack<D, N> z;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      z.v[j] = narrow<D>(s * (kv * widen<C>(x.v[j]) + kg * (s * widen<C>(y.v[j]))));
    }
    store_pack<N>(out, i, z);
  });
}

dim3 grid_of(const PenaltyLaunch& a) {
  return dim3(unsigned(a.samples), unsigned(pieces_of(a.row)));
}
cudaStream_t stream_of(const PenaltyLaunch& a) { return static_cast<cudaStream_t>(a.stream); }

// Calls f(device type, compute type, pack size); packs need aligned rows.
template <class F>
int launch(const PenaltyLaunch& a, bool aligned, const F& f) {
  return dispatch_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    using D = typename DeviceType<T>::type;
    using C = compute_t<T>;
    constexpr int N = kPack<D>;
    if (aligned && a.row % N == 0) {
      f(D{}, C{}, std::integral_constant<int, N>{});
    } else {
      f(D{}, C{}, std::integral_constant<int, 1>{});
    }
    return int(cudaGetLastError());
  });
}

}  // namespace

int64_t penalty_partials(const PenaltyLaunch& a) { return 2 * a.samples * pieces_of(a.row); }

int penalty_value_launch(const PenaltyLaunch& a, const void* g, double* partial, void* value,
                         void* norms) {
  return launch(a, aligned16(g), [&](auto d, auto c, auto n) {
    using D = decltype(d);
    using C = decltype(c);
    const auto* pg = static_cast<const D*>(g);
    squares_kernel<n.value, D, C><<<grid_of(a), kThreads, 0, stream_of(a)>>>(pg, partial, a.row);
    finish_value_kernel<C>
        <<<1, kThreads, 0, stream_of(a)>>>(partial, static_cast<C*>(value), static_cast<C*>(norms),
                                           a.samples, pieces_of(a.row), a.center, a.one_sided);
  });
}

int penalty_grad_launch(const PenaltyLaunch& a, const void* go, const void* g, const void* norms,
                        void* out) {
  return launch(a, aligned16(g) && aligned16(out), [&](auto d, auto c, auto n) {
    using D = decltype(d);
    using C = decltype(c);
    grad_kernel<n.value, D, C><<<grid_of(a), kThreads, 0, stream_of(a)>>>(
        static_cast<const C*>(go), static_cast<const D*>(g), static_cast<const C*>(norms),
        static_cast<D*>(out), a.samples, a.row, a.center, a.one_sided);
  });
}

int penalty_grad2_launch(const PenaltyLaunch& a, const void* v, const void* go, const void* g,
                         const void* norms, double* partial, void* d_go, void* d_grad) {
  const bool aligned = aligned16(v) && aligned16(g) && aligned16(d_grad);
  return launch(a, aligned, [&](auto d, auto c, auto n) {
    using D = decltype(d);
    using C = decltype(c);
    const auto *pv = static_cast<const D*>(v), *pg = static_cast<const D*>(g);
    const auto* pn = static_cast<const C*>(norms);
    dots_kernel<n.value, D, C>
        <<<grid_of(a), kThreads, 0, stream_of(a)>>>(pv, pg, pn, partial, a.row, a.center);
    finish_go_kernel<C><<<1, kThreads, 0, stream_of(a)>>>(
        partial, pn, static_cast<C*>(d_go), a.samples, pieces_of(a.row), a.center, a.one_sided);
    grad2_kernel<n.value, D, C><<<grid_of(a), kThreads, 0, stream_of(a)>>>(
        pv, static_cast<const C*>(go), pg, pn, partial, static_cast<D*>(d_grad), a.samples, a.row,
        a.center, a.one_sided);
  });
}

}  // namespace ganops
