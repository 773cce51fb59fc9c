// What augment's CPU passes share: the work in bands of rows, image means, colours, noise.
#pragma once

#include "../common/tensors.h"
#include "augment_rows.h"

namespace ganops {
namespace {

constexpr int64_t kBandElements = 16384;

struct Task {
  AugmentShape shape;
  int flags;
  bool pair, linear, stream;
  uint64_t seed, offset;

  bool reflect() const { return flags & kReflect; }
  // Rows: `planes` of them make a row of pixels, each of width * group elements.
  int64_t group() const { return shape.channels_last ? shape.channels : 1; }
  int64_t planes() const { return shape.channels_last ? 1 : shape.channels; }
  int64_t row() const { return shape.width * group(); }
  int64_t plane() const { return shape.height * row(); }
};

// Calls f(sample, first row, last row) for bands of rows, on all threads.
template <class F>
void for_bands(const Task& t, const F& f) {
  const int64_t width = t.row() * t.planes();
  if (width == 0) return;
  const int64_t rows = std::max<int64_t>(1, kBandElements / width);
  const int64_t bands = ceil_div(t.shape.height, rows);
  parallel_units(t.shape.batch * bands, rows * width, [&](int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) {
      const int64_t h = u % bands * rows;
      f(u / bands, h, std::min(h + rows, t.shape.height));
    }
    if (t.stream) stream_fence();
  });
}

template <class C>
std::vector<AugmentSample<C>> samples(const Task& t, const float* params) {
  std::vector<AugmentSample<C>> s;
  s.reserve(t.shape.batch);
  for (int64_t b = 0; b < t.shape.batch; ++b) {
    s.push_back(augment_sample<C>(params + b * kAugmentColumns, t.shape.height, t.shape.width,
                                  t.flags, t.linear));
  }
  return s;
}

template <class T, class C>
C image_mean(const T* x, int64_t n, C* buffer, const C* ones) {
  if constexpr (std::is_same_v<T, uint8_t>) {
    return C(double(sum_of(x, n)) / (127.5 * double(n)) - 1);
  } else {
    double sum = 0;
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t count = std::min(kBlock, n - i);
      widen_block(x + i, buffer, count);
      sum += dot_block(buffer, ones, count);
    }
    return C(sum / double(n));
  }
}

// Adds what mean_image contributes to every pixel: mean(b) is its mean for sample b.
template <class C, class F>
void add_means(const Task& t, std::vector<AugmentSample<C>>& s, const F& mean) {
  if (!(t.flags & kContrast)) return;
  parallel_units(t.shape.batch, t.shape.image(), [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      if (s[b].whole != C(0)) s[b].add += s[b].whole * mean(b);
    }
  });
}

template <class C>
bool colours(const AugmentSample<C>& s) {
  return s.scale != C(1) || s.mix != C(0) || s.add != C(0);
}

// Calls f(first plane, last plane): all planes where channels mix in a pixel, else one at a time,
// whose rows are then read and written in the order of memory (half the time, at 25 MB).
template <class C, class F>
void for_planes(const Task& t, const AugmentSample<C>& s, const F& f) {
  const bool apart = s.mix == C(0) && s.sigma == C(0);
  for (int64_t p = 0, step = apart ? 1 : t.planes(); p < t.planes(); p += step) f(p, p + step);
}

template <class C>
void add_noise(const Task& t, const AugmentSample<C>& s, int64_t sample, int64_t h, C* f) {
  const int64_t width = t.shape.width;
  float normals[kBlock];
  for (int64_t c = 0; c < t.shape.channels; ++c) {
    const int64_t first = (c * t.shape.height + h) * width, end = first + width;
    C* const out = f + (t.group() > 1 ? c : c * width);
    for (int64_t e = first; e < end;) {
      const int64_t count = std::min(ceil_div(end, 4) - e / 4, kBlock / 4);
      const int64_t stop = std::min((e / 4 + count) * 4, end);
      normal_blocks(t.seed, t.offset + uint64_t(sample), e / 4, count, normals);
      for (int64_t k = e; k < stop; ++k) {
        out[(k - first) * t.group()] += s.sigma * C(normals[k - e / 4 * 4]);
      }
      e = stop;
    }
  }
}

template <class C>
void zero_pixels(const Task& t, int64_t planes, C* f, int64_t begin, int64_t end) {
  for (int64_t p = 0; p < planes && begin < end; ++p) {
    std::fill_n(f + p * t.row() + begin * t.group(), (end - begin) * t.group(), C(0));
  }
}

}  // namespace
}  // namespace ganops
