// bias_act on CUDA: 16-byte loads and stores; the bias gradient's sums ride along with dx and are
// finished by a second small kernel in a fixed order (no atomics: same input, same bits).
//
// The activation is a run-time argument: the branch is uniform and the kernels wait for memory,
// while a template per activation made this file 23 MB and over a minute to compile.
#include <algorithm>
#include <type_traits>

#include "../common/cuda_kernels.cuh"
#include "bias_act_cuda.h"

namespace ganops {
namespace {

// Partial sums per channel: 64 fill a GPU from one channel on, fewer where channels are many, so
// that they stay below this number in all (or are one per channel or column).
constexpr int64_t kSlots = 64, kMostSums = int64_t(1) << 20;

template <class C>
struct Params {
  Act act;
  bool from_output;
  C alpha, gain, clamp;
  int64_t numel, channels, inner;
};

template <class C, class F>
__device__ __forceinline__ C with_act(Act act, const F& f) {
  switch (act) {
    case Act::linear:
      return f(std::integral_constant<Act, Act::linear>{});
    case Act::relu:
      return f(std::integral_constant<Act, Act::relu>{});
    case Act::lrelu:
      return f(std::integral_constant<Act, Act::lrelu>{});
    case Act::tanh:
      return f(std::integral_constant<Act, Act::tanh>{});
    case Act::sigmoid:
      return f(std::integral_constant<Act, Act::sigmoid>{});
    case Act::elu:
      return f(std::integral_constant<Act, Act::elu>{});
    case Act::selu:
      return f(std::integral_constant<Act, Act::selu>{});
    case Act::softplus:
      return f(std::integral_constant<Act, Act::softplus>{});
    default:
      return f(std::integral_constant<Act, Act::swish>{});
  }
}

// Bias of element j of a pack that starts at p. A pack lies in one channel if inner % N == 0, in
// N consecutive ones if inner == 1 and channels % N == 0; the launcher sees to either.
template <class C, class D>
__device__ __forceinline__ C bias_at(const D* b, const Params<C>& p, int64_t start, int j) {
  if (b == nullptr) return C(0);
  const int64_t channel = start / p.inner % p.channels + (p.inner == 1 ? j : 0);
  return widen<C>(b[channel]);
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    value_kernel(const D* __restrict__ x, const D* __restrict__ b, D* __restrict__ y, Params<C> p) {
  const int64_t step = int64_t(gridDim.x) * kThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N; i < p.numel; i += step) {
    const Pack<D, N> in = load_pack<N>(x, i);
    Pack<D, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const C t = widen<C>(in.v[j]) + bias_at<C>(b, p, i, j);
      out.v[j] = narrow<D>(with_act<C>(
          p.act, [&](auto act) { return bias_act_value<act.value>(t, p.alpha, p.gain, p.clamp); }));
    }
    store_pack<N>(y, i, out);
  }
}

// One element of order kOrder.
template <int kOrder, class C>
__device__ __forceinline__ C derivative(C v, C dy, C ref, C bias, const Params<C>& p) {
  return with_act<C>(p.act, [&](auto act) {
    constexpr Act A = act.value;
    if constexpr (has_output_slope(A)) {
      if (p.from_output && kOrder == 2) {
        return bias_act_grad2_from_output<A>(v, dy, ref, p.alpha, p.gain, p.clamp);
      }
      if (p.from_output) return bias_act_grad_from_output<A>(dy, ref, p.alpha, p.gain, p.clamp);
    }
    if (kOrder == 2) return bias_act_grad2<A>(v, dy, ref + bias, p.alpha, p.gain, p.clamp);
    return bias_act_grad<A>(dy, ref + bias, p.alpha, p.gain, p.clamp);
  });
}

template <int kOrder, int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad_kernel(const D* __restrict__ v, const D* __restrict__ dy, const D* __restrict__ ref,
                const D* __restrict__ b, D* __restrict__ out, Params<C> p) {
  const int64_t step = int64_t(gridDim.x) * kThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N; i < p.numel; i += step) {
    const Pack<D, N> g = load_pack<N>(dy, i), r = load_pack<N>(ref, i);
    Pack<D, N> w = g, result;
    if constexpr (kOrder == 2) w = load_pack<N>(v, i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const C bias = p.from_output ? C(0) : bias_at<C>(b, p, i, j);
      result.v[j] = narrow<D>(
          derivative<kOrder>(widen<C>(w.v[j]), widen<C>(g.v[j]), widen<C>(r.v[j]), bias, p));
    }
    store_pack<N>(out, i, result);
  }
}

// dx with the sums over slabs of `inner` contiguous elements: the blocks (channel, slot) of a
// channel take turns at its packs.
template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad_slab_kernel(const D* __restrict__ dy, const D* __restrict__ ref, const D* __restrict__ b,
                     D* __restrict__ out, C* __restrict__ partial, Params<C> p) {
  const int64_t channel = blockIdx.x, slot = blockIdx.y;
  const C bias = p.from_output ? C(0) : widen<C>(b[channel]);
  const int64_t packs_per_slab = p.inner / N;
  const int64_t packs = p.numel / (p.channels * p.inner) * packs_per_slab;
  C sum(0);
  const int64_t step = int64_t(gridDim.y) * kThreads;
  for (int64_t k = slot * kThreads + threadIdx.x; k < packs; k += step) {
    const int64_t outer = k / packs_per_slab, within = k % packs_per_slab * N;
    const int64_t i = (outer * p.channels + channel) * p.inner + within;
    const Pack<D, N> g = load_pack<N>(dy, i), r = load_pack<N>(ref, i);
    Pack<D, N> result;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const C d = derivative<1>(C(0), widen<C>(g.v[j]), widen<C>(r.v[j]), bias, p);
      result.v[j] = narrow<D>(d);
      sum += d;
    }
    store_pack<N>(out, i, result);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[slot * p.channels + channel] = sum;
}

// The same for short slabs (channels last, matrices): a row is `period` = channels * inner
// elements; thread x owns a column, blocks share the rows. partial: (slots, period).
template <class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad_column_kernel(const D* __restrict__ dy, const D* __restrict__ ref, const D* __restrict__ b,
                       D* __restrict__ out, C* __restrict__ partial, Params<C> p) {
  constexpr int kColumns = 32, kRows = kThreads / kColumns;
  __shared__ C sums[kRows][kColumns + 1];
  const int64_t period = p.channels * p.inner, rows = p.numel / period;
  const int column_in_block = threadIdx.x % kColumns, row_in_block = threadIdx.x / kColumns;
  const int64_t column = int64_t(blockIdx.x) * kColumns + column_in_block;
  C sum(0);
  if (column < period) {
    const C bias = p.from_output ? C(0) : widen<C>(b[column / p.inner]);
    for (int64_t row = int64_t(blockIdx.y) * kRows + row_in_block; row < rows;
         row += int64_t(gridDim.y) * kRows) {
      const int64_t i = row * period + column;
      const C d = derivative<1>(C(0), widen<C>(dy[i]), widen<C>(ref[i]), bias, p);
      out[i] = narrow<D>(d);
      sum += d;
    }
  }
  sums[row_in_block][column_in_block] = sum;
  __syncthreads();
  if (row_in_block == 0 && column < period) {
    for (int r = 1; r < kRows; ++r) sum += sums[r][column_in_block];
    partial[blockIdx.y * period + column] = sum;
  }
}

// db[channel] = sum over slots and, for columns, over the channel's `inner` columns.
template <class D, class C>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const C* __restrict__ partial, D* __restrict__ db, int64_t slots,
                  int64_t channels, int64_t inner) {
  const int64_t channel = blockIdx.x, count = slots * inner;
  C sum(0);
  for (int64_t k = threadIdx.x; k < count; k += kThreads) {
    const int64_t slot = k / inner, within = k % inner;
    sum += partial[(slot * channels + channel) * inner + within];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) db[channel] = narrow<D>(sum);
}

template <class C>
Params<C> params(const BiasActLaunch& a, bool from_output) {
  return {a.act, from_output, C(a.alpha), C(a.gain), C(a.clamp), a.numel, a.channels, a.inner};
}

// Can n elements be handled at once?
bool packable(const BiasActLaunch& a, int n, bool has_bias) {
  const bool one_channel = !has_bias || a.inner % n == 0;
  const bool consecutive = a.inner == 1 && a.channels % n == 0;
  return a.numel % n == 0 && (one_channel || consecutive);
}

unsigned blocks_for(int64_t numel, int n) {
  const int64_t blocks = (numel + int64_t(kThreads) * n - 1) / (int64_t(kThreads) * n);
  return unsigned(std::min<int64_t>(blocks, 1 << 16));
}

bool slabs(const BiasActLaunch& a) { return a.inner >= 256; }
int64_t columns(const BiasActLaunch& a) { return a.channels * (slabs(a) ? 1 : a.inner); }
int64_t slots(const BiasActLaunch& a) {
  return std::clamp<int64_t>(kMostSums / std::max<int64_t>(columns(a), 1), 1, kSlots);
}

}  // namespace

int64_t bias_act_partials(const BiasActLaunch& a) { return slots(a) * columns(a); }

int bias_act_value_launch(const BiasActLaunch& a, const void* x, const void* b, void* y) {
  if (a.numel == 0) return 0;
  return dispatch_dtype(a.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    constexpr int N = kPack<D>;
    const auto *px = static_cast<const D*>(x), *pb = static_cast<const D*>(b);
    auto* py = static_cast<D*>(y);
    const auto stream = static_cast<cudaStream_t>(a.stream);
    const Params<C> p = params<C>(a, false);
    if (packable(a, N, b != nullptr) && aligned16(x) && aligned16(y)) {
      value_kernel<N><<<blocks_for(a.numel, N), kThreads, 0, stream>>>(px, pb, py, p);
    } else {
      value_kernel<1><<<blocks_for(a.numel, 1), kThreads, 0, stream>>>(px, pb, py, p);
    }
    return int(cudaGetLastError());
  });
}

int bias_act_grad_launch(const BiasActLaunch& a, int order, bool from_output, const void* v_,
                         const void* dy_, const void* ref_, const void* b_, void* out_,
                         void* partial_, void* db_) {
  if (a.channels == 0 || (a.numel == 0 && db_ == nullptr)) return 0;
  return dispatch_dtype(a.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    constexpr int N = kPack<D>;
    const auto *v = static_cast<const D*>(v_), *dy = static_cast<const D*>(dy_),
               *ref = static_cast<const D*>(ref_), *b = static_cast<const D*>(b_);
    auto *out = static_cast<D*>(out_), *db = static_cast<D*>(db_);
    auto* partial = static_cast<C*>(partial_);
    const auto stream = static_cast<cudaStream_t>(a.stream);
    const Params<C> p = params<C>(a, from_output);
    const bool aligned = aligned16(v) && aligned16(dy) && aligned16(ref) && aligned16(out);
    const bool pack = aligned && packable(a, N, b != nullptr);
    const unsigned blocks = blocks_for(a.numel, pack ? N : 1);
    const unsigned channels = unsigned(a.channels);
    if (order == 2 && pack) {
      grad_kernel<2, N><<<blocks, kThreads, 0, stream>>>(v, dy, ref, b, out, p);
    } else if (order == 2) {
      grad_kernel<2, 1><<<blocks, kThreads, 0, stream>>>(v, dy, ref, b, out, p);
    } else if (db == nullptr && pack) {
      grad_kernel<1, N><<<blocks, kThreads, 0, stream>>>(v, dy, ref, b, out, p);
    } else if (db == nullptr) {
      grad_kernel<1, 1><<<blocks, kThreads, 0, stream>>>(v, dy, ref, b, out, p);
    } else if (slabs(a)) {
      const dim3 grid(channels, unsigned(slots(a)));
      if (aligned && a.inner % N == 0) {
        grad_slab_kernel<N><<<grid, kThreads, 0, stream>>>(dy, ref, b, out, partial, p);
      } else {
        grad_slab_kernel<1><<<grid, kThreads, 0, stream>>>(dy, ref, b, out, partial, p);
      }
      finish_kernel<<<channels, kThreads, 0, stream>>>(partial, db, slots(a), a.channels,
                                                       int64_t(1));
    } else {
      const dim3 grid(unsigned((columns(a) + 31) / 32), unsigned(slots(a)));
      grad_column_kernel<<<grid, kThreads, 0, stream>>>(dy, ref, b, out, partial, p);
      finish_kernel<<<channels, kThreads, 0, stream>>>(partial, db, slots(a), a.channels, a.inner);
    }
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
