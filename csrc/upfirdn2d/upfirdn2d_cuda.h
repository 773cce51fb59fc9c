// Launchers of upfirdn2d_cuda.cu, and how much of an image a block takes.
#pragma once

#include <algorithm>

#include "../common/cuda_launch.h"
#include "upfirdn2d_math.h"

namespace ganops {

struct UpfirdnAxis {
  int in, out, up, down, pad, taps;
};

// Strides of samples, channels, rows and pixels.
struct UpfirdnPlaces {
  int64_t n, c, h, w;
};

struct UpfirdnLaunch {
  DType dtype;          // of x and y
  bool wide_x, wide_y;  // or the computing type instead; direct kernel only
  UpfirdnAxis x, y;
  int64_t batch;
  int channels;
  bool channels_last, separable, flip;
  double gain;
  UpfirdnPlaces from, to;
  CudaStream stream;
};

// What one block computes: `height` rows of `width` pixels of `unit` channels side by side, from
// `rows` rows of `columns` pixels in shared memory. height is 0 if no tile fits there.
struct UpfirdnTile {
  int height, width, unit, rows, columns, bytes;
};

constexpr int kSharedBytes = 48 << 10;  // what every kernel may have without asking

inline int upfirdn_reach(const UpfirdnAxis& a, int results) {
  return (int64_t(results - 1) * a.down + a.taps - 1) / a.up + 2;
}

inline UpfirdnTile upfirdn_tile(const UpfirdnLaunch& l) {
  const int64_t size = l.dtype == DType::f64 ? 8 : 4;
  const int64_t weights = l.separable ? int64_t(l.x.taps) + l.y.taps : int64_t(l.x.taps) * l.y.taps;
  UpfirdnTile t{};
  t.unit = l.channels_last ? std::min(l.channels, 32) : 1;
  t.height = std::min(16, l.y.out);
  t.width = std::min(std::max(64 / t.unit, 4), l.x.out);
  for (;;) {
    const int64_t rows = upfirdn_reach(l.y, t.height), columns = upfirdn_reach(l.x, t.width);
    const int64_t numbers = (rows + (l.separable ? t.height : 0)) * columns * t.unit + weights;
    if (numbers * size <= kSharedBytes) {
      t.rows = int(rows);
      t.columns = int(columns);
      t.bytes = int(numbers * size);
      return t;
    }
    if (t.height * t.width * t.unit < 64) return {};
    (t.height > 4 || t.width == 1 ? t.height : t.width) /= 2;
    if (t.height == 0) return {};
  }
}

// y from x through shared memory: one launch.
int upfirdn2d_tile_launch(const UpfirdnLaunch& l, const UpfirdnTile& t, const void* x,
                          const void* f, void* y);
// y from x, each result by itself: for filters of two dims that fit nowhere, and for one axis at a
// time of those that are separable.
int upfirdn2d_direct_launch(const UpfirdnLaunch& l, const void* x, const void* f, void* y);

}  // namespace ganops
