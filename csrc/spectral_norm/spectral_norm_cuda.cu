// spectral_norm on CUDA: every launch serves up to kGroup weights, whose pointers travel as its
// argument, so that a step of a network and its division take four launches. No atomics: sums
// are finished in a fixed order.
#include "../common/cuda_kernels.cuh"
#include "spectral_norm_cuda.h"
#include "spectral_norm_math.h"

namespace ganops {
namespace {

constexpr int kGroup = 32;            // keeps the argument under 4 KiB
constexpr int kRows = kThreads / 32;  // of a block: a row for each warp, and W again from cache
constexpr int64_t kChunk = 16 * kThreads;  // numbers of a block that goes through W

struct Group {
  SpectralLayer layers[kGroup];
  int first[kGroup + 1];  // block of each
  int count, base;        // the group's first weight among all
};

__device__ __forceinline__ int layer_of(const Group& g) {
  int i = 0;
  while (int(blockIdx.x) >= g.first[i + 1]) ++i;
  return i;
}

// Weights have fewer than 2^31 numbers: divisions of 64 bits would take longer than the memory.
__device__ __forceinline__ unsigned place(const SpectralLayer& l, unsigned row, unsigned column) {
  const unsigned rows = unsigned(l.rows), inner = unsigned(l.inner);
  if (l.outer == 1) return row * inner + column;
  const unsigned o = column / inner;
  return (o * rows + row) * inner + (column - o * inner);
}

__host__ __device__ inline int64_t columns_of(const SpectralLayer& l) { return l.outer * l.inner; }
__host__ __device__ inline int64_t numel_of(const SpectralLayer& l) {
  return l.outer * l.rows * l.inner;
}
__host__ __device__ inline int64_t blocks_of(int64_t n, int64_t each) {
  return (n + each - 1) / each;
}

// A layer's scratch: s (rows), t (columns), and the parts of t, one for each block of rows.
template <class D, class C>
__global__ void __launch_bounds__(kThreads, 4)
    products_kernel(const __grid_constant__ Group g, C* __restrict__ scratch, bool given,
                    bool want_t) {
  const int i = layer_of(g);
  const SpectralLayer& l = g.layers[i];
  const int64_t columns = columns_of(l), block = int(blockIdx.x) - g.first[i];
  const D* w = static_cast<const D*>(l.w);
  const C* v = static_cast<const C*>(given ? l.v0 : l.v);
  C* s = scratch + l.scratch;
  C* part = s + l.rows + columns + block * columns;
  __shared__ C found[kRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row = block * kRows + warp;
  C sum(0);
  if (row < l.rows) {
    for (int64_t c = lane; c < columns; c += 32) sum += widen<C>(w[place(l, row, c)]) * v[c];
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset);
  if (lane == 0) {
    found[warp] = sum;
    if (row < l.rows) s[row] = sum;
  }
  if (!want_t) return;
  __syncthreads();
  const int64_t start = block * kRows, left = l.rows - start;
  const int rows = left < kRows ? int(left) : kRows;
  for (int64_t c = threadIdx.x; c < columns; c += kThreads) {
    C along(0);
    for (int r = 0; r < rows; ++r) along += found[r] * widen<C>(w[place(l, start + r, c)]);
    part[c] = along;
  }
}

template <class C>
__global__ void __launch_bounds__(kThreads)
    collect_kernel(const __grid_constant__ Group g, C* __restrict__ scratch) {
  const int i = layer_of(g);
  const SpectralLayer& l = g.layers[i];
  const int64_t columns = columns_of(l), blocks = blocks_of(l.rows, kRows);
  const int64_t c = int64_t(int(blockIdx.x) - g.first[i]) * kThreads + threadIdx.x;
  if (c >= columns) return;
  C* t = scratch + l.scratch + l.rows;
  C sum(0);
  for (int64_t b = 0; b < blocks; ++b) sum += t[columns + b * columns + c];
  t[c] = sum;
}

// The sum over i < n of f(i), known to every thread.
template <class F>
__device__ __forceinline__ double sum_to_all(int64_t n, const F& f) {
  __shared__ double total;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += f(i);
  sum = block_sum(sum);
  if (threadIdx.x == 0) total = sum;
  __syncthreads();
  sum = total;
  __syncthreads();
  return sum;
}

// A block for each layer: u, v and sigma from s and t.
template <class C>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const __grid_constant__ Group g, const C* __restrict__ scratch,
                  C* __restrict__ sigmas, double eps, bool iterate) {
  const SpectralLayer& l = g.layers[blockIdx.x];
  const int64_t columns = columns_of(l);
  const C *s = scratch + l.scratch, *t = s + l.rows;
  C *u = static_cast<C*>(l.u), *v = static_cast<C*>(l.v);
  double sigma;
  if (iterate) {
    const auto square = [](C x) { return double(x) * double(x); };
    const double ss = sum_to_all(l.rows, [&](int64_t i) { return square(s[i]); });
    const C unit = C(spectral_unit(sqrt(ss), eps));
    const double tt = sum_to_all(columns, [&](int64_t i) { return square(unit * t[i]); });
    const double other = spectral_unit(sqrt(tt), eps);
    for (int64_t i = threadIdx.x; i < l.rows; i += kThreads) u[i] = unit * s[i];
    for (int64_t i = threadIdx.x; i < columns; i += kThreads) v[i] = C(other) * (unit * t[i]);
    sigma = tt * other;
  } else {
    const C *u0 = static_cast<const C*>(l.u0), *v0 = static_cast<const C*>(l.v0);
    sigma = sum_to_all(l.rows, [&](int64_t i) { return double(u0[i]) * double(s[i]); });
    for (int64_t i = threadIdx.x; i < l.rows; i += kThreads) u[i] = u0[i];
    for (int64_t i = threadIdx.x; i < columns; i += kThreads) v[i] = v0[i];
  }
  if (threadIdx.x == 0) sigmas[g.base + blockIdx.x] = C(sigma);
}

template <class D, class C>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(const __grid_constant__ Group g, const C* __restrict__ sigmas) {
  const int i = layer_of(g);
  const SpectralLayer& l = g.layers[i];
  const C inverse = C(1) / sigmas[g.base + i];
  const int64_t start = int64_t(int(blockIdx.x) - g.first[i]) * kChunk, n = numel_of(l);
  const int64_t stop = start + kChunk < n ? start + kChunk : n;
  const D* w = static_cast<const D*>(l.w);
  D* out = static_cast<D*>(l.out);
  for (int64_t k = start + threadIdx.x; k < stop; k += kThreads) {
    out[k] = narrow<D>(inverse * widen<C>(w[k]));
  }
}

// <G, Y> of each chunk.
template <class D, class C>
__global__ void __launch_bounds__(kThreads)
    dots_kernel(const __grid_constant__ Group g, double* __restrict__ scratch) {
  const int i = layer_of(g);
  const SpectralLayer& l = g.layers[i];
  const int64_t chunk = int(blockIdx.x) - g.first[i], start = chunk * kChunk, n = numel_of(l);
  const int64_t stop = start + kChunk < n ? start + kChunk : n;
  const D *a = static_cast<const D*>(l.w), *b = static_cast<const D*>(l.y);
  C sum(0);
  for (int64_t k = start + threadIdx.x; k < stop; k += kThreads) {
    sum += widen<C>(a[k]) * widen<C>(b[k]);
  }
  const double total = block_sum(double(sum));
  if (threadIdx.x == 0) scratch[l.scratch + chunk] = total;
}

template <class D, class C>
__global__ void __launch_bounds__(kThreads)
    grad_kernel(const __grid_constant__ Group g, const double* __restrict__ scratch,
                const C* __restrict__ sigmas) {
  const int i = layer_of(g);
  const SpectralLayer& l = g.layers[i];
  const int64_t start = int64_t(int(blockIdx.x) - g.first[i]) * kChunk, n = numel_of(l);
  const int64_t stop = start + kChunk < n ? start + kChunk : n;
  const double dot =
      sum_to_all(blocks_of(n, kChunk), [&](int64_t k) { return scratch[l.scratch + k]; });
  const C sigma = sigmas[g.base + i], inverse = C(1) / sigma, along = C(dot / double(sigma));
  const D* a = static_cast<const D*>(l.w);
  const C *u = static_cast<const C*>(l.u0), *v = static_cast<const C*>(l.v0);
  D* out = static_cast<D*>(l.out);
  for (int64_t k = start + threadIdx.x; k < stop; k += kThreads) {
    const unsigned at = unsigned(k), inner = unsigned(l.inner), rows = unsigned(l.rows);
    const unsigned segment = at / inner, o = segment / rows;
    const C factor = along * u[segment - o * rows];
    out[k] = narrow<D>(spectral_grad(widen<C>(a[k]), inverse, factor, v[o * inner + at % inner]));
  }
}

// Calls f(group, blocks) for every kGroup layers; a layer takes blocks(layer) of the grid.
template <class B, class F>
void for_groups(const SpectralLaunch& a, const B& blocks, const F& f) {
  for (int64_t base = 0; base < a.count; base += kGroup) {
    Group g;
    g.base = int(base);
    g.count = int(a.count - base < kGroup ? a.count - base : kGroup);
    g.first[0] = 0;
    for (int i = 0; i < g.count; ++i) {
      g.layers[i] = a.layers[base + i];
      g.first[i + 1] = g.first[i] + int(blocks(g.layers[i]));
    }
    if (g.first[g.count] > 0) f(g, unsigned(g.first[g.count]));
  }
}

int64_t chunks(const SpectralLayer& l) { return blocks_of(numel_of(l), kChunk); }

}  // namespace

int64_t spectral_forward_scratch(const SpectralLayer& l) {
  return l.rows + columns_of(l) * (1 + blocks_of(l.rows, kRows));
}
int64_t spectral_backward_scratch(const SpectralLayer& l) { return chunks(l); }

int spectral_forward_launch(const SpectralLaunch& a, int64_t steps, double eps, void* scratch_,
                            void* sigmas_) {
  return dispatch_dtype(a.dtype, [&](auto type) {
    using D = typename DeviceType<decltype(type)>::type;
    using C = compute_t<decltype(type)>;
    C *scratch = static_cast<C*>(scratch_), *sigmas = static_cast<C*>(sigmas_);
    const auto stream = static_cast<cudaStream_t>(a.stream);
    const auto row_blocks = [](const SpectralLayer& l) { return blocks_of(l.rows, kRows); };
    const auto column_blocks = [](const SpectralLayer& l) {
      return blocks_of(columns_of(l), kThreads);
    };
    const auto one = [](const SpectralLayer&) { return int64_t(1); };
    const bool iterate = steps > 0;
    for (int64_t k = 0; k < (iterate ? steps : 1); ++k) {
      for_groups(a, row_blocks, [&](const Group& g, unsigned n) {
        products_kernel<D, C><<<n, kThreads, 0, stream>>>(g, scratch, k == 0, iterate);
      });
      if (iterate) {
        for_groups(a, column_blocks, [&](const Group& g, unsigned n) {
          collect_kernel<C><<<n, kThreads, 0, stream>>>(g, scratch);
        });
      }
      for_groups(a, one, [&](const Group& g, unsigned n) {
        finish_kernel<C><<<n, kThreads, 0, stream>>>(g, scratch, sigmas, eps, iterate);
      });
    }
    for_groups(a, chunks, [&](const Group& g, unsigned n) {
      scale_kernel<D, C><<<n, kThreads, 0, stream>>>(g, sigmas);
    });
    return int(cudaGetLastError());
  });
}

int spectral_backward_launch(const SpectralLaunch& a, double* scratch, const void* sigmas) {
  return dispatch_dtype(a.dtype, [&](auto type) {
    using D = typename DeviceType<decltype(type)>::type;
    using C = compute_t<decltype(type)>;
    const auto stream = static_cast<cudaStream_t>(a.stream);
    for_groups(a, chunks, [&](const Group& g, unsigned n) {
      dots_kernel<D, C><<<n, kThreads, 0, stream>>>(g, scratch);
    });
    for_groups(a, chunks, [&](const Group& g, unsigned n) {
      grad_kernel<D, C><<<n, kThreads, 0, stream>>>(g, scratch, static_cast<const C*>(sigmas));
    });
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
