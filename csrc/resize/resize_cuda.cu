// resize on CUDA: a thread per output pixel, both axes at once. The source, much smaller than the
// result, is read again by every thread that needs it, from the cache.
#include "../common/cuda_kernels.cuh"
#include "resize_cuda.h"
#include "resize_math.h"

namespace ganops {
namespace {

// The number at (row r of) `image`, resized along x as the CPU does: rounded to float.
__device__ __forceinline__ float across(const ResizeLaunch& l, const uint8_t* row, int first,
                                        int column) {
  if (l.lerp) {
    const int next = first + 1 < l.width ? first + 1 : l.width - 1;
    return resize_lerp(float(row[first * l.x_w]), float(row[next * l.x_w]),
                       static_cast<const float*>(l.weight_x)[column]);
  }
  const double* const w = static_cast<const double*>(l.weight_x) + int64_t(column) * l.taps_x;
  const int count = l.taps_x < l.width - first ? l.taps_x : l.width - first;
  double sum = 0.0;
  for (int k = 0; k < count; ++k) sum = resize_tap(sum, w[k], float(row[(first + k) * l.x_w]));
  return float(sum);
}

template <class Out>
__global__ void __launch_bounds__(kThreads, 4)  // left alone, ptxas spills to fit one block more
    resize_kernel(ResizeLaunch l, Out* __restrict__ y) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t pixels = int64_t(l.out_h) * l.out_w;
  if (i >= l.batch * pixels) return;
  const int64_t image = i / pixels;
  const int at = int(i % pixels), h = at / l.out_w, w = at % l.out_w;
  const int top = l.first_y[h], left = l.first_x[w];
  float v = 0.0f;
  for (int c = 0; c < 3; ++c) {
    if (c < l.channels) {
      const uint8_t* const plane = l.x + image * l.x_n + c * l.x_c;
      if (l.lerp) {
        const int next = top + 1 < l.height ? top + 1 : l.height - 1;
        v = resize_lerp(across(l, plane + top * l.x_h, left, w),
                        across(l, plane + next * l.x_h, left, w),
                        static_cast<const float*>(l.weight_y)[h]);
      } else {
        const double* const weight = static_cast<const double*>(l.weight_y) + int64_t(h) * l.taps_y;
        const int count = l.taps_y < l.height - top ? l.taps_y : l.height - top;
        double sum = 0.0;
        for (int k = 0; k < count; ++k) {
          sum = resize_tap(sum, weight[k], across(l, plane + (top + k) * l.x_h, left, w));
        }
        v = resize_clip(float(sum));
      }
    }
    y[image * l.y_n + c * l.y_c + h * l.y_h + w * l.y_w] =
        narrow<Out>(resize_normalise(v, l.shift, l.divisor));
  }
}

}  // namespace

int resize_launch(const ResizeLaunch& l, void* y) {
  const int64_t threads = l.batch * l.out_h * l.out_w;
  if (threads == 0) return 0;
  const unsigned grid = unsigned((threads + kThreads - 1) / kThreads);
  return dispatch_dtype(l.dtype, [&](auto out) {
    using Out = typename DeviceType<decltype(out)>::type;
    if constexpr (!std::is_same_v<Out, double>) {
      resize_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(l.stream)>>>(
          l, static_cast<Out*>(y));
    }
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
