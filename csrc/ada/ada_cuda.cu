// ada on CUDA. Forward: a block makes a tile of lattice points in shared memory, each by 7 x 7 taps
// straight from the image, and filters it down. Adjoint: the gradient on the lattice, then each
// pixel gathers from the points that read it, in a fixed order: no atomics, the same bits each run.
//
// Simple and arithmetic-bound: some 230 multiply-adds for the points and 144 for the filter, a
// result and channel.
#include <algorithm>

#include "../common/cuda_kernels.cuh"
#include "ada_cuda.h"
#include "ada_draw.cuh"

namespace ganops {
namespace {

constexpr int kSide = 16, kPoints = 2 * kSide + kAdaHalo;

// sym6 for indices known at run time, from index -2.
__constant__ double kSym6[16] = {0,
                                 0,
                                 0.010892350163280001,
                                 0.0024683061859200003,
                                 -0.08343160770584002,
                                 -0.03416156079324,
                                 0.34722898647835004,
                                 0.55694639196396,
                                 0.23895218566605003,
                                 -0.05136248493090002,
                                 -0.014891875649220001,
                                 0.031625281329940004,
                                 0.0012499610463900003,
                                 -0.005515933754690001,
                                 0,
                                 0};

__device__ __forceinline__ AdaMap load_map(const int64_t* maps, int64_t n) {
  const int64_t* m = maps + n * kAdaMap;
  return {m[0], m[1], m[2], m[3], m[4], m[5], m[6]};
}

// C v + b of the results at one place; v has the channels c0 ... of a sample.
template <int N, class C>
__device__ __forceinline__ void apply_color(const C* color, C (&v)[N]) {
  C out[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    out[i] = color[i * (N + 1) + N];
#pragma unroll
    for (int j = 0; j < N; ++j) out[i] += color[i * (N + 1) + j] * v[j];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = out[i];
}

template <int N, class D, class C>
__global__ void __launch_bounds__(kThreads, sizeof(C) == 8 ? 2 : (N == 1 ? 4 : 3))
    forward_kernel(AdaLaunch l, int64_t tiles_x, int64_t tiles_y, const D* __restrict__ x,
                   D* __restrict__ y) {
  __shared__ C points[N][kPoints][kPoints];
  int64_t block = blockIdx.x;
  const int64_t tx = block % tiles_x;
  block /= tiles_x;
  const int64_t ty = block % tiles_y;
  block /= tiles_y;
  const int64_t groups = l.channels / N, n = block / groups, c0 = block % groups * N;
  const AdaMap m = load_map(l.maps, n);
  const D* image = x + n * l.in.n + c0 * l.in.c;
  const int64_t ox = tx * kSide + threadIdx.x % kSide, oy = ty * kSide + threadIdx.x / kSide;
  const bool inside = ox < l.width && oy < l.height;
  C v[N] = {};
  if (m.resample) {
    const int64_t mx0 = 2 * tx * kSide - kAdaBefore, my0 = 2 * ty * kSide - kAdaBefore;
    for (int i = threadIdx.x; i < kPoints * kPoints; i += kThreads) {
      const int64_t mx = mx0 + i % kPoints, my = my0 + i / kPoints;
      const int64_t sx = m.a * mx + m.b * my + 2 * m.e, sy = m.c * mx + m.d * my + 2 * m.f;
      C sum[N] = {}, across[7];
      int at[7];
#pragma unroll
      for (int k = 0; k < 7; ++k) {
        across[k] = ada_tap<C>(sx, k);
        at[k] = int(ada_reflect(ada_first(sx) + k, l.width));
      }
#pragma unroll 1
      for (int j = 0; j < 7; ++j) {
        const bool odd = (sy >> 32) & 1;
        const C far = ada_fraction<C>(sy);
        const int k = 13 - odd - 2 * j;
        const C down = C(2) * ((C(1) - far) * C(kSym6[k]) + far * C(kSym6[k + 1]));
        const D* row = image + ada_reflect(ada_first(sy) + j, l.height) * l.in.y;
#pragma unroll
        for (int c = 0; c < N; ++c) {
          C line = C(0);
#pragma unroll
          for (int t = 0; t < 7; ++t)
            line += across[t] * widen<C>(row[c * l.in.c + at[t] * l.in.x]);
          sum[c] += down * line;
        }
      }
#pragma unroll
      for (int c = 0; c < N; ++c) points[c][i / kPoints][i % kPoints] = sum[c];
    }
    __syncthreads();  // every thread of the block is here: m is the same for all
    const int px = 2 * (threadIdx.x % kSide), py = 2 * (threadIdx.x / kSide);
    for (int j = 0; j < 12; ++j) {
#pragma unroll
      for (int c = 0; c < N; ++c) {
        C line = C(0);
#pragma unroll
        for (int k = 0; k < 12; ++k) line += sym6<C>(k) * points[c][py + j][px + k];
        v[c] += C(kSym6[j + 2]) * line;
      }
    }
  } else if (inside) {
    const int64_t sx = ada_reflect((m.a * ox + m.b * oy + m.e) >> 32, l.width);
    const int64_t sy = ada_reflect((m.c * ox + m.d * oy + m.f) >> 32, l.height);
#pragma unroll
    for (int c = 0; c < N; ++c) v[c] = widen<C>(image[c * l.in.c + sy * l.in.y + sx * l.in.x]);
  }
  if (!inside) return;
  if (l.color != nullptr) {
    apply_color<N>(static_cast<const C*>(l.color) + n * l.channels * (l.channels + 1), v);
  }
#pragma unroll
  for (int c = 0; c < N; ++c) {
    y[n * l.out.n + (c0 + c) * l.out.c + oy * l.out.y + ox * l.out.x] = narrow<D>(v[c]);
  }
}

// C' dy at one place.
template <class D, class C>
__device__ __forceinline__ C colored(const AdaLaunch& l, const D* dy, int64_t n, int64_t c,
                                     int64_t y, int64_t x) {
  const D* at = dy + n * l.in.n + y * l.in.y + x * l.in.x;
  if (l.color == nullptr) return widen<C>(at[c * l.in.c]);
  const C* matrix = static_cast<const C*>(l.color) + n * l.channels * (l.channels + 1);
  C sum = C(0);
  for (int64_t i = 0; i < l.channels; ++i) {
    sum += matrix[i * (l.channels + 1) + c] * widen<C>(at[i * l.in.c]);
  }
  return sum;
}

// The gradient on the lattice, D' C' dy; of blitted samples C' dy itself, in the same memory.
template <class D, class C>
__global__ void __launch_bounds__(kThreads, sizeof(C) == 8 ? 2 : 4)
    lattice_kernel(AdaLaunch l, const D* __restrict__ dy, C* __restrict__ lattice) {
  const int64_t w = 2 * l.width + kAdaHalo, h = 2 * l.height + kAdaHalo;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= l.samples * l.channels * h * w) return;
  const int64_t x = i % w, y = i / w % h, c = i / (w * h) % l.channels;
  const int64_t n = i / (w * h * l.channels);
  if (!l.maps[n * kAdaMap + 6]) {
    if (x < l.width && y < l.height) lattice[i] = colored<D, C>(l, dy, n, c, y, x);
    return;
  }
  C sum = C(0);
  for (int64_t j = y & 1; j < 12; j += 2) {
    const int64_t oy = (y - j) / 2;
    if (y < j || oy >= l.height) continue;
    C line = C(0);
    for (int64_t k = x & 1; k < 12; k += 2) {
      const int64_t ox = (x - k) / 2;
      if (x < k || ox >= l.width) continue;
      line += C(kSym6[k + 2]) * colored<D, C>(l, dy, n, c, oy, ox);
    }
    sum += C(kSym6[j + 2]) * line;
  }
  lattice[i] = sum;
}

// Weight with which a point at s reads index r of the continued image.
template <class C>
__device__ __forceinline__ C weight_of(int64_t s, int r) {
  const int t = r - int(ada_first(s));
  if (t < 0 || t > 6) return C(0);
  const C far = ada_fraction<C>(s);
  const int k = 13 - int((s >> 32) & 1) - 2 * t;
  return C(2) * ((C(1) - far) * C(kSym6[k]) + far * C(kSym6[k + 1]));
}

struct Span {
  int low, high;
};

// The first index from low on of the continued image that is j + period z.
__device__ __forceinline__ int first_copy(int j, int period, int low) {
  const int gap = (low - j) % period;
  return low + (gap > 0 ? period - gap : -gap);
}

// Indices of the continued image that any point reads: coordinates are e + a x + b y.
__device__ __forceinline__ Span read_span(int64_t a, int64_t b, int64_t e, int x0, int x1, int y1,
                                          bool fine) {
  const int low = int((e + min(a * x0, a * x1) + min(b * x0, b * y1)) >> 32);
  const int high = int((e + max(a * x0, a * x1) + max(b * x0, b * y1)) >> 32);
  return fine ? Span{(low >> 1) - 3, (high >> 1) + 4} : Span{low, high};
}

// The integers within reach of center, of low ... high. fmax and fmin pass over NaN: a map that
// cannot be inverted searches everything.
__device__ __forceinline__ Span clip(float center, float reach, int low, int high) {
  return {int(fmaxf(ceilf(center - reach), float(low))),
          int(fminf(floorf(center + reach), float(high)))};
}

template <class D, class C>
// 64 registers, twice that in double.
__global__ void __launch_bounds__(kThreads, sizeof(C) == 8 ? 2 : 4)
    gather_kernel(AdaLaunch l, int blocks, const C* __restrict__ lattice, D* __restrict__ dx) {
  const int width = int(l.width), height = int(l.height);
  const int plane_index = blockIdx.x / blocks;  // one to a block: its map is the same for all
  const int i = int(blockIdx.x % blocks) * kThreads + threadIdx.x;
  if (i >= height * width) return;
  const int x = i % width, y = i / width;
  const AdaMap m = load_map(l.maps, plane_index / l.channels);
  const bool fine = m.resample != 0;
  const int w = 2 * width + kAdaHalo, step = fine ? 2 : 1;
  // Points (or results): from before both axes' first pixel to x1, y1.
  const int x0 = fine ? -kAdaBefore : 0, x1 = fine ? w - 1 + x0 : width - 1;
  const int y1 = fine ? 2 * height + kAdaHalo - 1 + x0 : height - 1;
  const C* plane = lattice + int64_t(plane_index) * w * (2 * height + kAdaHalo) - x0 * w - x0;
  const int64_t ex = step * m.e, ey = step * m.f;
  const Span along = read_span(m.a, m.b, ex, x0, x1, y1, fine);
  const Span down = read_span(m.c, m.d, ey, x0, x1, y1, fine);
  // The inverse map says which points can read a place, with room for its rounding.
  const float unit = 1.0f / 4294967296.0f;
  const float a = m.a * unit, b = m.b * unit, c = m.c * unit, d = m.d * unit;
  const float scale = 1.0f / (a * d - b * c), half = (fine ? 6.5f : 0.0f) + 0.25f;
  const float reach_x = half * (fabsf(d * scale) + fabsf(b * scale));
  const float reach_y = half * (fabsf(c * scale) + fabsf(a * scale));
  const int period_x = width > 1 ? 2 * (width - 1) : 1,
            period_y = height > 1 ? 2 * (height - 1) : 1;
  C sum = C(0);
  // A pixel inside stands mirrored, too: j + period z and -j + period z.
  for (int fy = 0; fy <= int(y > 0 && y < height - 1); ++fy) {
    for (int ry = first_copy(fy ? -y : y, period_y, down.low); ry <= down.high; ry += period_y) {
      for (int fx = 0; fx <= int(x > 0 && x < width - 1); ++fx) {
        for (int rx = first_copy(fx ? -x : x, period_x, along.low); rx <= along.high;
             rx += period_x) {
          const float u = step * rx + (fine ? 0.5f : 0.0f) - ex * unit;
          const float v = step * ry + (fine ? 0.5f : 0.0f) - ey * unit;
          const Span px = clip((d * u - b * v) * scale, reach_x, x0, x1);
          const Span py = clip((a * v - c * u) * scale, reach_y, x0, y1);
          for (int my = py.low; my <= py.high; ++my) {
            for (int mx = px.low; mx <= px.high; ++mx) {
              const int64_t sx = m.a * mx + m.b * my + ex, sy = m.c * mx + m.d * my + ey;
              const C weight = fine ? weight_of<C>(sy, ry) * weight_of<C>(sx, rx)
                                    : C((sx >> 32) == rx && (sy >> 32) == ry);
              if (weight != C(0)) sum += weight * plane[int64_t(my) * w + mx];
            }
          }
        }
      }
    }
  }
  dx[plane_index / l.channels * l.out.n + plane_index % l.channels * l.out.c + y * l.out.y +
     x * l.out.x] = narrow<D>(sum);
}

}  // namespace

int ada_launch(const AdaLaunch& l, const void* x, void* y) {
  return dispatch_dtype(l.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    const int64_t tiles_x = (l.width + kSide - 1) / kSide, tiles_y = (l.height + kSide - 1) / kSide;
    const bool three = l.channels % 3 == 0 && (l.color == nullptr || l.channels == 3);
    const int64_t groups = three ? l.channels / 3 : l.channels;
    const unsigned blocks = unsigned(l.samples * groups * tiles_x * tiles_y);
    const auto stream = static_cast<cudaStream_t>(l.stream);
    const auto* from = static_cast<const D*>(x);
    auto* to = static_cast<D*>(y);
    if (three) {
      forward_kernel<3, D, C><<<blocks, kThreads, 0, stream>>>(l, tiles_x, tiles_y, from, to);
    } else {
      forward_kernel<1, D, C><<<blocks, kThreads, 0, stream>>>(l, tiles_x, tiles_y, from, to);
    }
    return int(cudaGetLastError());
  });
}

int ada_grad_launch(const AdaLaunch& l, const void* dy, void* lattice, void* dx) {
  return dispatch_dtype(l.dtype, [&](auto t) {
    using D = typename DeviceType<decltype(t)>::type;
    using C = compute_t<decltype(t)>;
    const auto stream = static_cast<cudaStream_t>(l.stream);
    const auto blocks = [](int64_t n) { return unsigned((n + kThreads - 1) / kThreads); };
    const int64_t planes = l.samples * l.channels;
    const int64_t points = planes * (2 * l.height + kAdaHalo) * (2 * l.width + kAdaHalo);
    lattice_kernel<D, C><<<blocks(points), kThreads, 0, stream>>>(l, static_cast<const D*>(dy),
                                                                  static_cast<C*>(lattice));
    const unsigned each = blocks(l.height * l.width);
    gather_kernel<D, C><<<unsigned(planes * each), kThreads, 0, stream>>>(
        l, int(each), static_cast<const C*>(lattice), static_cast<D*>(dx));
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
