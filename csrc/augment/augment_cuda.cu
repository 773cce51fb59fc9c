// augment on CUDA: one thread per pixel, all its channels; the original is written by the thread
// that reads it. Contrast takes a pass for the image means first, in a fixed order of summation.
#include <algorithm>

#include "../common/cuda_kernels.cuh"
#include "augment_cuda.h"

namespace ganops {
namespace {

using ganops::widen;  // else the next hides it, and numbers become bytes
template <class C>
__device__ __forceinline__ C widen(uint8_t v) {
  return C(unit_from_byte(v));
}

struct Task {
  AugmentShape shape;
  const float* params;
  double* sums;
  uint64_t seed, offset;
  int flags;
  bool pair, linear;
  int64_t pixel_stride, channel_stride;
  double per_channel, per_image;  // 1 / their number: a division is a call, which spills

  __device__ bool reflect() const { return flags & kReflect; }
  __device__ int pixels() const { return int(shape.height * shape.width); }
};

__global__ void params_kernel(AugmentPlan plan, int64_t n, uint64_t seed, uint64_t offset,
                              float* __restrict__ params) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) augment_draw(seed, offset + uint64_t(i), plan, params + i * kAugmentColumns);
}

// Sums over each image, in kAugmentSlots parts: of x, or (adjoint) of what dy sends inside it. A
// grid has fewer blocks than a large batch of small images has parts.
template <bool kAdjoint, class D, class C>
__global__ void __launch_bounds__(kThreads, sizeof(C) == 8 ? 4 : 0)  // without, doubles spill
    sum_kernel(Task t, const D* __restrict__ x) {
  for (int64_t part = blockIdx.x; part < t.shape.batch * kAugmentSlots; part += gridDim.x) {
    const int64_t b = part / kAugmentSlots;
    const int slot = int(part % kAugmentSlots);
    const D* const image = x + b * t.shape.image();
    const AugmentSample<C> s = augment_sample<C>(t.params + b * kAugmentColumns, t.shape.height,
                                                 t.shape.width, t.flags, true);
    double sum = 0;
    const int width = int(t.shape.width), step = kAugmentSlots * kThreads;
    for (int i = slot * kThreads + int(threadIdx.x); i < t.pixels() && i >= 0; i += step) {
      C weight(1);
      if constexpr (kAdjoint) {
        const int64_t h = i / width, w = i % width;
        weight = inside_weight(h, s.iy, s.fy, t.shape.height, t.reflect()) *
                 inside_weight(w, s.ix, s.fx, t.shape.width, t.reflect());
        if (h >= s.top && h < s.bottom && w >= s.left && w < s.right) weight = C(0);
        if (weight == C(0)) continue;
      }
      for (int64_t c = 0; c < t.shape.channels; ++c) {
        sum += double(weight * widen<C>(image[i * t.pixel_stride + c * t.channel_stride]));
      }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) t.sums[part] = sum;
  }
}
unsigned sum_blocks(const AugmentShape& s) {
  return unsigned(std::min<int64_t>(s.batch * kAugmentSlots, int64_t(1) << 20));
}

template <class C>
__device__ __forceinline__ AugmentSample<C> sample_of(const Task& t, int64_t b) {
  AugmentSample<C> s = augment_sample<C>(t.params + b * kAugmentColumns, t.shape.height,
                                         t.shape.width, t.flags, t.linear);
  if ((t.flags & kContrast) && s.whole != C(0)) {
    double sum = 0;
    for (int slot = 0; slot < kAugmentSlots; ++slot) sum += t.sums[b * kAugmentSlots + slot];
    s.add += s.whole * C(sum * t.per_image);
  }
  return s;
}

// A block works on one image, in 32 bits: 64-bit divisions are calls, which spill.
struct Place {
  int image, pixel, row, column;
};
__device__ __forceinline__ int blocks_per_image(const Task& t) {
  return (t.pixels() + kThreads - 1) / kThreads;
}
__device__ __forceinline__ Place place_of(const Task& t) {
  const int blocks = blocks_per_image(t), width = int(t.shape.width);
  const int image = int(blockIdx.x) / blocks;
  const int pixel = (int(blockIdx.x) - image * blocks) * kThreads + int(threadIdx.x);
  return {image, pixel, pixel / width, pixel % width};
}

// One tap of the forward pass: weight and input pixel, or no weight.
template <class C>
struct Tap {
  C weight;
  int64_t at;
};
template <class C>
__device__ __forceinline__ Tap<C> forward_tap(const Task& t, const AugmentSample<C>& s, int64_t h,
                                              int64_t w, int k) {
  const C weight = (k / 2 ? s.fy : C(1) - s.fy) * (k % 2 ? s.fx : C(1) - s.fx);
  const int64_t r = augment_source(h, s.iy + k / 2, t.shape.height, t.reflect());
  const int64_t c = augment_source(w, s.ix + k % 2, t.shape.width, t.reflect());
  if (weight == C(0) || r < 0 || c < 0) return {C(0), 0};
  return {weight, r * t.shape.width + (s.flip ? t.shape.width - 1 - c : c)};
}

// 0 leaves the choice to ptxas, which spills doubles for the sake of more blocks.
template <class In, class Out, class C>
__global__ void __launch_bounds__(kThreads, sizeof(C) == 8 ? 2 : 0)
    forward_kernel(Task t, const In* __restrict__ x, Out* __restrict__ y) {
  const Place here = place_of(t);
  if (here.pixel >= t.pixels()) return;
  const int64_t b = here.image, base = b * t.shape.image(), channels = t.shape.channels;
  const int64_t pixel = here.pixel, h = here.row, w = here.column;
  const AugmentSample<C> s = sample_of<C>(t, b);
  const bool cut = inside_cutout(s, here.row, here.column);
  const auto at = [&](int64_t p, int64_t c) {
    return base + p * t.pixel_stride + c * t.channel_stride;
  };
  for (int64_t c = 0; t.pair && c < channels; ++c) {
    y[at(pixel, c)] = narrow<Out>(widen<C>(x[at(pixel, c)]));
  }
  Out* const changed = y + (t.pair ? t.shape.batch * t.shape.image() : 0);
  const int taps = t.flags & kSubpixel ? 4 : 1;
  C rest(0);  // what all channels share
  for (int k = 0; k < taps; ++k) {
    const Tap<C> tap = forward_tap(t, s, h, w, k);
    C mean(0);
    if (tap.weight != C(0) && s.mix != C(0)) {
      for (int64_t c = 0; c < channels; ++c) mean += widen<C>(x[at(tap.at, c)]);
      mean *= C(t.per_channel);
    }
    if (tap.weight != C(0)) rest += tap.weight * (s.mix * mean + s.add);
  }
  for (int64_t c = 0; c < channels; ++c) {
    C sum = rest;
    for (int k = 0; k < taps; ++k) {
      const Tap<C> tap = forward_tap(t, s, h, w, k);
      if (tap.weight != C(0)) sum += tap.weight * s.scale * widen<C>(x[at(tap.at, c)]);
    }
    if (s.sigma != C(0)) {
      const int64_t e = c * t.pixels() + pixel;
      float normals[4];
      normals_from_block(
          augment_words(t.seed, t.offset + uint64_t(b), kParameterBlocks + uint64_t(e / 4)),
          normals);
      const int j = int(e % 4);
      sum += s.sigma * C(j == 0   ? normals[0]
                         : j == 1 ? normals[1]
                         : j == 2 ? normals[2]
                                  : normals[3]);
    }
    changed[at(pixel, c)] = narrow<Out>(cut ? C(0) : sum);
  }
}

// What dy sends to input pixel (r, q) of channel c: every output pixel that reads it.
template <class D, class C>
__device__ __forceinline__ C gathered(const Task& t, const AugmentSample<C>& s,
                                      const D* __restrict__ dy, int64_t r, int64_t q, int64_t c) {
  const int taps = t.flags & kSubpixel ? 2 : 1, readers = t.reflect() ? 3 : 1;
  C sum(0);
  for (int i = 0; i < taps * readers; ++i) {
    const C wy = i / readers ? s.fy : C(1) - s.fy;
    const int64_t h =
        augment_reader(r, s.iy + i / readers, t.shape.height, t.reflect(), i % readers);
    if (h < 0 || wy == C(0)) continue;
    for (int j = 0; j < taps * readers; ++j) {
      const C weight = wy * (j / readers ? s.fx : C(1) - s.fx);
      const int64_t w =
          augment_reader(q, s.ix + j / readers, t.shape.width, t.reflect(), j % readers);
      if (w < 0 || weight == C(0)) continue;
      if (inside_cutout(s, int(h), int(w))) continue;
      sum += weight * widen<C>(dy[(h * t.shape.width + w) * t.pixel_stride + c * t.channel_stride]);
    }
  }
  return sum;
}

template <class D, class Out, class C>
__global__ void __launch_bounds__(kThreads, sizeof(C) == 8 ? 2 : 3)
    adjoint_kernel(Task t, const D* __restrict__ dy, Out* __restrict__ dx) {
  const Place here = place_of(t);
  if (here.pixel >= t.pixels()) return;
  const int64_t b = here.image, base = b * t.shape.image(), channels = t.shape.channels;
  const AugmentSample<C> s = sample_of<C>(t, b);
  const int64_t pixel = here.pixel, r = here.row;
  const int64_t q = s.flip ? t.shape.width - 1 - here.column : here.column;
  const D* const changed = dy + base + (t.pair ? t.shape.batch * t.shape.image() : 0);
  C rest = s.add;
  // Twice through the channels where they mix: gathered() is long, and inlined here alone.
  for (int64_t k = s.mix == C(0) ? channels : 0; k < 2 * channels; ++k) {
    const int64_t c = k < channels ? k : k - channels;
    const C sent = gathered<D, C>(t, s, changed, r, q, c);
    if (k < channels) {
      rest += s.mix * C(t.per_channel) * sent;
      continue;
    }
    const int64_t at = base + pixel * t.pixel_stride + c * t.channel_stride;
    const C sum = s.scale * sent + rest;
    dx[at] = narrow<Out>(t.pair ? sum + widen<C>(dy[at]) : sum);
  }
}

Task task_of(const AugmentLaunch& l) {
  const AugmentShape& s = l.shape;
  return {s,
          l.params,
          l.sums,
          l.seed,
          l.offset,
          l.flags,
          l.pair,
          l.linear,
          s.channels_last ? s.channels : 1,
          s.channels_last ? 1 : s.height * s.width,
          1.0 / double(s.channels),
          1.0 / double(s.image())};
}

unsigned blocks_for(const AugmentShape& s) {
  return unsigned(s.batch * ((s.height * s.width + kThreads - 1) / kThreads));
}

// Calls f(In, Out, compute type) for the pairs of types that there are.
template <class F>
int dispatch_types(DType in, bool in_bytes, DType out, const F& f) {
  if (out == DType::f64) return f(double{}, double{}, double{});
  const auto with_in = [&](auto o) {
    if (in_bytes) return f(uint8_t{}, o, float{});
    if (in == DType::f32) return f(float{}, o, float{});
    if (in == DType::bf16) return f(__nv_bfloat16{}, o, float{});
    return f(__half{}, o, float{});
  };
  if (out == DType::f32) return with_in(float{});
  if (out == DType::bf16) return with_in(__nv_bfloat16{});
  return with_in(__half{});
}

}  // namespace

int augment_params_launch(const AugmentPlan& plan, int64_t n, uint64_t seed, uint64_t offset,
                          float* params, CudaStream stream) {
  if (n == 0) return 0;
  params_kernel<<<unsigned((n + kThreads - 1) / kThreads), kThreads, 0,
                  static_cast<cudaStream_t>(stream)>>>(plan, n, seed, offset, params);
  return int(cudaGetLastError());
}

int augment_launch(const AugmentLaunch& l, DType in, bool in_bytes, DType out, const void* x_,
                   void* y_) {
  if (l.shape.batch * l.shape.image() == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(l.stream);
  return dispatch_types(in, in_bytes, out, [&](auto i, auto o, auto c) {
    using In = decltype(i);
    using Out = decltype(o);
    using C = decltype(c);
    const Task t = task_of(l);
    const In* const x = static_cast<const In*>(x_);
    if (l.flags & kContrast) {
      sum_kernel<false, In, C><<<sum_blocks(l.shape), kThreads, 0, stream>>>(t, x);
    }
    forward_kernel<In, Out, C>
        <<<blocks_for(l.shape), kThreads, 0, stream>>>(t, x, static_cast<Out*>(y_));
    return int(cudaGetLastError());
  });
}

int augment_grad_launch(const AugmentLaunch& l, DType in, DType out, const void* dy_, void* dx_) {
  if (l.shape.batch * l.shape.image() == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(l.stream);
  return dispatch_types(in, false, out, [&](auto i, auto o, auto c) {
    using D = decltype(i);
    using Out = decltype(o);
    using C = decltype(c);
    if constexpr (!std::is_same_v<D, uint8_t>) {
      const Task t = task_of(l);
      const D* const dy = static_cast<const D*>(dy_);
      if (l.flags & kContrast) {
        const D* const changed = dy + (l.pair ? l.shape.batch * l.shape.image() : 0);
        sum_kernel<true, D, C><<<sum_blocks(l.shape), kThreads, 0, stream>>>(t, changed);
      }
      adjoint_kernel<D, Out, C>
          <<<blocks_for(l.shape), kThreads, 0, stream>>>(t, dy, static_cast<Out*>(dx_));
    }
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
