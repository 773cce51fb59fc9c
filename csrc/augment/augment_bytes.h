// augment's colours, straight from bytes: with t = u - 127.5, which is exact,
//
//   y = a t + (m sum over channels of t + b)     a = A / 127.5, m = M / (127.5 channels)
//
// The same operations in the same order for every pixel, wherever it lies.
#pragma once

#include "augment_store.h"

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
inline void colour_byte_planes(const uint8_t* const* rows, int64_t planes, int64_t n, ByteColour k,
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
inline void colour_byte_groups(const uint8_t* x, int64_t pixels, int64_t group, ByteColour k,
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

// Rows of bytes, coloured, to f: plane after plane, or pixels of `group` channels.
inline void colour_bytes(const uint8_t* const* rows, int64_t planes, int64_t n, int64_t group,
                         ByteColour k, float* f) {
  if (k.m == 0.0f || group == 1) return colour_byte_planes(rows, planes, n, k, f);
  colour_byte_groups(rows[0], n / group, group, k, f);
}

// Which of elements at ... at + 15 lie in [begin, end), one bit each.
inline uint16_t bits_in(int64_t at, int64_t begin, int64_t end) {
  const auto below = [&](int64_t limit) {
    return (1u << std::clamp<int64_t>(limit - at, 0, 16)) - 1u;
  };
  return uint16_t(below(end) & ~below(begin));
}

// The same colours and the store in one, sixteen at a time: zeros where `keep` has no bit.
#if defined(GANOPS_F16C)
GANOPS_AVX512 inline void store_sixteen(Half* to, __m512 v, bool stream) {
  __m256i* const at = reinterpret_cast<__m256i*>(to);
  stream ? _mm256_stream_si256(at, to_halves(v)) : _mm256_storeu_si256(at, to_halves(v));
}
GANOPS_AVX512 inline void store_sixteen(float* to, __m512 v, bool stream) {
  store_line(to, _mm512_castps_si512(v), stream);
}
GANOPS_AVX512 inline __m512 centred_bytes(const uint8_t* from) {
  return _mm512_sub_ps(load_bytes(from, true), _mm512_set1_ps(127.5f));
}
GANOPS_AVX512 inline __m512 scaled(uint16_t keep, __m512 x, float a, __m512 rest) {
  return _mm512_maskz_add_ps(keep, _mm512_mul_ps(_mm512_set1_ps(a), x), rest);
}
GANOPS_AVX512 inline __m512 rest_of(__m512 sum, ByteColour k) {
  return _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(k.m), sum), _mm512_set1_ps(k.b));
}

template <class Out>
GANOPS_AVX512 void store_scaled(const uint8_t* row, int64_t n, ByteColour k, const uint16_t* keep,
                                Out* out, bool stream) {
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 y = scaled(keep[i / 16], centred_bytes(row + i), k.a, _mm512_set1_ps(k.b));
    store_sixteen(out + i, y, stream);
  }
}
template <class Out>
GANOPS_AVX512 void store_three_planes(const uint8_t* const* rows, int64_t n, ByteColour k,
                                      const uint16_t* keep, Out* out, int64_t plane, bool stream) {
  for (int64_t i = 0; i < n; i += 32) {
    __m512 y[2][3];
    for (int j = 0; j < 2; ++j) {
      const int64_t at = i + 16 * j;
      for (int p = 0; p < 3; ++p) y[j][p] = centred_bytes(rows[p] + at);
      const __m512 rest = rest_of(_mm512_add_ps(_mm512_add_ps(y[j][0], y[j][1]), y[j][2]), k);
      for (int p = 0; p < 3; ++p) y[j][p] = scaled(keep[at / 16], y[j][p], k.a, rest);
    }
    for (int p = 0; p < 3; ++p) store_line(out + p * plane + i, y[0][p], y[1][p], stream);
  }
}
// Sixteen pixels of three bytes: n is a multiple of 48.
template <class Out>
GANOPS_AVX512 void store_pixels_of_three(const uint8_t* row, int64_t n, ByteColour k,
                                         const uint16_t* keep, Out* out, bool stream) {
  // Four pixels to a quarter of the register, then each to four bytes, the last of them zero.
  const __m512i quarters = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  const __m512i four =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
  __m512i pixel[3];  // of each element
  for (int j = 0; j < 3; ++j) {
    alignas(64) int of[16];
    for (int i = 0; i < 16; ++i) of[i] = (16 * j + i) / 3;
    pixel[j] = _mm512_load_si512(of);
  }
  for (int64_t i = 0; i < n; i += 48) {
    const __m512i bytes = _mm512_maskz_loadu_epi32(0x0fff, row + i);
    const __m512i apart = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarters, bytes), four);
    const __m512i pairs = _mm512_maddubs_epi16(apart, _mm512_set1_epi8(1));
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    const __m512 rest = rest_of(_mm512_sub_ps(sum, _mm512_set1_ps(382.5f)), k);
    for (int j = 0; j < 3; ++j) {
      const int64_t at = i + 16 * j;
      const __m512 mine = _mm512_permutexvar_ps(pixel[j], rest);
      store_sixteen(out + at, scaled(keep[at / 16], centred_bytes(row + at), k.a, mine), stream);
    }
  }
}
#endif

// Is there such a pass for these rows?
template <class Out>
bool has_coloured_store(int64_t planes, int64_t n, int64_t group, ByteColour k) {
#if defined(GANOPS_F16C)
  if constexpr (kHasLines<Out>) {
    if (!has_avx512()) return false;
    if (k.m == 0.0f) return planes == 1 && n % 16 == 0;
    return group == 1 ? planes == 3 && n % 32 == 0 : group == 3 && n % 48 == 0;
  }
#endif
  return false;
}

// Rows of bytes, coloured, to rows of results `plane` apart.
template <class Out>
void store_coloured(const uint8_t* const* rows, int64_t n, int64_t group, ByteColour k,
                    const uint16_t* keep, Out* out, int64_t plane, bool stream) {
#if defined(GANOPS_F16C)
  if constexpr (kHasLines<Out>) {
    stream = stream && before_line(out) == 0;
    if (k.m == 0.0f) return store_scaled(rows[0], n, k, keep, out, stream);
    if (group == 1) return store_three_planes(rows, n, k, keep, out, plane, stream);
    return store_pixels_of_three(rows[0], n, k, keep, out, stream);
  }
#endif
}

}  // namespace
}  // namespace ganops
