// upfirdn2d on CUDA: a block brings the pixels that its results need into shared memory, once, and
// filters them there, along the columns and then along the rows where the filter is separable.
//
// A thread keeps its column, so that what depends on it is divided out once.
#include <algorithm>

#include "../common/cuda_kernels.cuh"
#include "upfirdn2d_cuda.h"

namespace ganops {
namespace {

constexpr int kLanes = 64;  // numbers of a row at a time
constexpr int kRows = kThreads / kLanes;

template <class C>
__device__ __forceinline__ C tap_at(const C* f, int k, int taps, bool flip) {
  return f[flip ? k : taps - 1 - k];
}

template <bool kSeparable, class D, class C>
__global__ void __launch_bounds__(kThreads, 4)
    tile_kernel(const D* __restrict__ x, const C* __restrict__ f, D* __restrict__ y,
                UpfirdnLaunch l, UpfirdnTile t, int tiles_x, int tiles_y, int groups) {
  extern __shared__ double shared[];
  C* const tile = reinterpret_cast<C*>(shared);
  const int line = t.columns * t.unit;
  C* const middle = tile + t.rows * line;
  C* const fy = middle + (kSeparable ? t.height * line : 0);
  C* const fx = fy + l.y.taps;  // separable; else fy is the whole filter

  const int64_t plane = blockIdx.x / (int64_t(tiles_x) * tiles_y);
  const int place = int(blockIdx.x % (int64_t(tiles_x) * tiles_y));
  const int oy = place / tiles_x * t.height, ox = place % tiles_x * t.width;
  const int c0 = int(plane % groups) * t.unit;
  const int64_t sample = plane / groups;
  const auto corner_y = first_tap(oy, l.y.up, l.y.down, l.y.pad);
  const auto corner_x = first_tap(ox, l.x.up, l.x.down, l.x.pad);
  const int row0 = corner_y.index, column0 = corner_x.index;
  const int lane = threadIdx.x % kLanes, first = threadIdx.x / kLanes;

  const int weights = kSeparable ? l.y.taps : l.x.taps * l.y.taps;
  for (int k = threadIdx.x; k < weights; k += kThreads) {
    fy[k] = tap_at(f, k, weights, l.flip) * C(l.gain);
  }
  if (kSeparable) {
    for (int k = threadIdx.x; k < l.x.taps; k += kThreads) fx[k] = tap_at(f, k, l.x.taps, l.flip);
  }
  const D* const from = x + sample * l.from.n + c0 * l.from.c;
  for (int e = lane; e < line; e += kLanes) {
    const int pixel = e / t.unit, c = e - pixel * t.unit, column = column0 + pixel;
    const bool there = column >= 0 && column < l.x.in && c0 + c < l.channels;
    const D* const p = from + column * l.from.w + c * l.from.c;
    for (int r = first; r < t.rows; r += kRows) {
      const int row = row0 + r;
      const bool inside = there && row >= 0 && row < l.y.in;
      tile[r * line + e] = inside ? widen<C>(p[row * l.from.h]) : C(0);
    }
  }
  __syncthreads();
  if (kSeparable) {
    for (int r = first; r < t.height; r += kRows) {
      const auto at = first_tap(oy + r, l.y.up, l.y.down, l.y.pad);
      for (int e = lane; e < line; e += kLanes) {
        const C* p = tile + (at.index - row0) * line + e;
        C sum(0);
        for (int k = at.tap; k < l.y.taps; k += l.y.up, p += line) sum += fy[k] * *p;
        middle[r * line + e] = sum;
      }
    }
    __syncthreads();
  }
  D* const to = y + sample * l.to.n + c0 * l.to.c;
  for (int e = lane; e < t.width * t.unit; e += kLanes) {
    const int pixel = e / t.unit, c = e - pixel * t.unit, column = ox + pixel;
    if (column >= l.x.out || c0 + c >= l.channels) continue;
    const auto at_x = first_tap(column, l.x.up, l.x.down, l.x.pad);
    const int offset = (at_x.index - column0) * t.unit + c;
    for (int r = first; r < t.height && oy + r < l.y.out; r += kRows) {
      C sum(0);
      if (kSeparable) {
        const C* p = middle + r * line + offset;
        for (int k = at_x.tap; k < l.x.taps; k += l.x.up, p += t.unit) sum += fx[k] * *p;
      } else {
        const auto at_y = first_tap(oy + r, l.y.up, l.y.down, l.y.pad);
        const C* row = tile + (at_y.index - row0) * line + offset;
        for (int j = at_y.tap; j < l.y.taps; j += l.y.up, row += line) {
          const C *p = row, *const g = fy + j * l.x.taps;
          for (int k = at_x.tap; k < l.x.taps; k += l.x.up, p += t.unit) sum += g[k] * *p;
        }
      }
      to[(oy + r) * l.to.h + column * l.to.w + c * l.to.c] = narrow<D>(sum);
    }
  }
}

template <class From, class To, class C>
__global__ void __launch_bounds__(kThreads)
    direct_kernel(const From* __restrict__ x, const C* __restrict__ f, To* __restrict__ y,
                  UpfirdnLaunch l) {
  const int64_t pixels = int64_t(l.x.out) * l.y.out, numel = l.batch * l.channels * pixels;
  const int inner = l.channels_last ? l.channels : 1, outer = l.channels_last ? 1 : l.channels;
  const int weights = l.x.taps * l.y.taps;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < numel;
       i += int64_t(gridDim.x) * kThreads) {  // in the order of y's memory
    const int64_t pixel = i / inner % pixels, plane = i / (inner * pixels);
    const int channel = int(i % inner + plane % outer), row = int(pixel / l.x.out);
    const int column = int(pixel % l.x.out);
    const int64_t sample = plane / outer;
    const auto at_y = first_tap(row, l.y.up, l.y.down, l.y.pad);
    const auto at_x = first_tap(column, l.x.up, l.x.down, l.x.pad);
    const From* const from = x + sample * l.from.n + channel * l.from.c;
    C sum(0);
    for (int j = at_y.tap, r = at_y.index; j < l.y.taps; j += l.y.up, ++r) {
      if (r < 0 || r >= l.y.in) continue;
      for (int k = at_x.tap, c = at_x.index; k < l.x.taps; k += l.x.up, ++c) {
        if (c < 0 || c >= l.x.in) continue;
        sum += tap_at(f, j * l.x.taps + k, weights, l.flip) *
               widen<C>(from[r * l.from.h + c * l.from.w]);
      }
    }
    y[sample * l.to.n + channel * l.to.c + row * l.to.h + column * l.to.w] =
        narrow<To>(sum * C(l.gain));
  }
}

template <class From, class To, class C>
int launch_direct(const UpfirdnLaunch& l, const void* x, const void* f, void* y) {
  const int64_t numel = l.batch * l.channels * int64_t(l.x.out) * l.y.out;
  if (numel == 0) return 0;
  const unsigned blocks = unsigned(std::min<int64_t>((numel + kThreads - 1) / kThreads, 1 << 20));
  direct_kernel<From, To, C><<<blocks, kThreads, 0, static_cast<cudaStream_t>(l.stream)>>>(
      static_cast<const From*>(x), static_cast<const C*>(f), static_cast<To*>(y), l);
  return int(cudaGetLastError());
}

}  // namespace

int upfirdn2d_tile_launch(const UpfirdnLaunch& l, const UpfirdnTile& t, const void* x,
                          const void* f, void* y) {
  return dispatch_dtype(l.dtype, [&](auto type) {
    using D = typename DeviceType<decltype(type)>::type;
    using C = compute_t<decltype(type)>;
    const int tiles_x = (l.x.out + t.width - 1) / t.width;
    const int tiles_y = (l.y.out + t.height - 1) / t.height;
    const int groups = (l.channels + t.unit - 1) / t.unit;
    const int64_t blocks = l.batch * groups * int64_t(tiles_x) * tiles_y;
    if (blocks == 0) return 0;
    if (blocks > 0x7fffffff) return int(cudaErrorInvalidConfiguration);
    const auto kernel = l.separable ? tile_kernel<true, D, C> : tile_kernel<false, D, C>;
    kernel<<<unsigned(blocks), kThreads, t.bytes, static_cast<cudaStream_t>(l.stream)>>>(
        static_cast<const D*>(x), static_cast<const C*>(f), static_cast<D*>(y), l, t, tiles_x,
        tiles_y, groups);
    return int(cudaGetLastError());
  });
}

int upfirdn2d_direct_launch(const UpfirdnLaunch& l, const void* x, const void* f, void* y) {
  return dispatch_dtype(l.dtype, [&](auto type) {
    using D = typename DeviceType<decltype(type)>::type;
    using C = compute_t<decltype(type)>;
    if constexpr (sizeof(D) == 2) {
      if (l.wide_x) return launch_direct<C, D, C>(l, x, f, y);
      if (l.wide_y) return launch_direct<D, C, C>(l, x, f, y);
    }
    return launch_direct<D, D, C>(l, x, f, y);
  });
}

}  // namespace ganops
