// augment's colours, straight from bytes: with t = u - 127.5, which is exact,
//
//   y = a t + (m sum over channels of t + b)     a = A / 127.5, m = M / (127.5 channels)
//
// The same operations in the same order for every pixel, wherever it lies.
#pragma once

#include "augment_math.h"

namespace ganops {
namespace {

struct ByteColour {
  float a, m, b;
};
inline ByteColour byte_colour(const AugmentSample<float>& s, int64_t channels) {
  return {float(double(s.scale) / 127.5), float(double(s.mix) / (127.5 * double(channels))), s.add};
}

GANOPS_INLINE float centred(uint8_t u) { return float(int32_t(u)) - 127.5f; }

// rows[p][i] to f[p * n + i].
GANOPS_CLONES
inline void colour_bytes(const uint8_t* const* rows, int64_t planes, int64_t n, ByteColour k,
                         float* GANOPS_RESTRICT f) {
  if (k.m != 0.0f && planes == 3) {  // the usual case, in one pass
    const uint8_t *const r = rows[0], *const g = rows[1], *const b = rows[2];
    float *const fr = f, *const fg = f + n, *const fb = f + 2 * n;
    for (int64_t i = 0; i < n; ++i) {
      const float x = centred(r[i]), y = centred(g[i]), z = centred(b[i]);
      const float rest = k.m * (x + y + z) + k.b;
      fr[i] = k.a * x + rest;
      fg[i] = k.a * y + rest;
      fb[i] = k.a * z + rest;
    }
    return;
  }
  for (int64_t p = 0; p < planes; ++p) {
    const uint8_t* const x = rows[p];
    float* const to = f + p * n;
    if (k.m == 0.0f) {
      for (int64_t i = 0; i < n; ++i) to[i] = k.a * centred(x[i]) + k.b;
    } else if (p == 0) {
      for (int64_t i = 0; i < n; ++i) to[i] = centred(x[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) f[i] += centred(x[i]);
    }
  }
  // Plane 0 held the sums; it is written last.
  for (int64_t p = planes - 1; k.m != 0.0f && p >= 0; --p) {
    const uint8_t* const x = rows[p];
    float* const to = f + p * n;
    for (int64_t i = 0; i < n; ++i) to[i] = k.a * centred(x[i]) + (k.m * f[i] + k.b);
  }
}

// The same for pixels of kGroup bytes each.
template <int kGroup>
GANOPS_INLINE void colour_byte_pixels(const uint8_t* GANOPS_RESTRICT x, int64_t pixels,
                                      ByteColour k, float* GANOPS_RESTRICT f) {
  for (int64_t i = 0; i < pixels; ++i) {
    float sum = 0.0f;
    for (int c = 0; c < kGroup; ++c) sum += centred(x[i * kGroup + c]);
    const float rest = k.m * sum + k.b;
    for (int c = 0; c < kGroup; ++c) {
      f[i * kGroup + c] = k.a * centred(x[i * kGroup + c]) + rest;
    }
  }
}
#define GANOPS_BYTE_COLOUR_CASE(G) \
  case G:                          \
    return colour_byte_pixels<G>(x, pixels, k, f);
GANOPS_CLONES
inline void colour_byte_pixels(const uint8_t* x, int64_t pixels, int64_t group, ByteColour k,
                               float* f) {
  switch (group) {
    GANOPS_BYTE_COLOUR_CASE(2)
    GANOPS_BYTE_COLOUR_CASE(3)
    GANOPS_BYTE_COLOUR_CASE(4)
    GANOPS_BYTE_COLOUR_CASE(5)
    GANOPS_BYTE_COLOUR_CASE(6)
    GANOPS_BYTE_COLOUR_CASE(7)
    GANOPS_BYTE_COLOUR_CASE(8)
    default:
      return;
  }
}

}  // namespace
}  // namespace ganops
