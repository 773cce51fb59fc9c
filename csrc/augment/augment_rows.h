// What augment's CPU kernels do along a row. A row is W pixels of `group` elements each: one where
// channels are planes, all channels where they lie innermost.
#pragma once

#include <cstring>

#include "augment_store.h"

namespace ganops {
namespace {

// Output pixels [begin, end) read input pixels first, first + 1, ... or first, first - 1, ...
struct Run {
  int64_t begin, end, first;
  bool forward;
};
struct Runs {
  Run run[3];
  int64_t low, high;  // pixels outside [low, high) are beyond the border
};

inline Runs row_runs(int64_t shift, int64_t width, bool reflect, bool flip) {
  const int64_t low = std::clamp<int64_t>(-shift, 0, width);
  const int64_t high = std::max(low, std::clamp<int64_t>(width - shift, 0, width));
  Runs r{{{low, high, low + shift, true}, {}, {}}, reflect ? 0 : low, reflect ? width : high};
  if (reflect) {
    r.run[1] = {0, low, -shift, false};
    r.run[2] = {high, width, 2 * (width - 1) - high - shift, false};
  }
  for (Run& run : r.run) {
    if (flip) run.first = width - 1 - run.first, run.forward = !run.forward;
  }
  return r;
}

// Loops compiled once per instruction set, for the types they meet.
#define GANOPS_REVERSE(T)                                                                    \
  GANOPS_CLONES                                                                              \
  inline void reverse_run(const T* GANOPS_RESTRICT last, T* GANOPS_RESTRICT to, int64_t n) { \
    for (int64_t i = 0; i < n; ++i) to[i] = last[-i];                                        \
  }
GANOPS_REVERSE(uint8_t)
GANOPS_REVERSE(float)
GANOPS_REVERSE(double)
GANOPS_REVERSE(Half)
GANOPS_REVERSE(BFloat16)

// Pixels of `bytes` each, the one at `last` first, then those before it.
#if defined(GANOPS_F16C)
// For pixels of 1 to 16 bytes: where each byte of a register of turned pixels comes from.
struct TurnedOrders {
  alignas(16) char of[17][16] = {};
  TurnedOrders() {
    for (int bytes = 1; bytes <= 16; ++bytes) {
      const int used = 16 / bytes * bytes;
      for (int i = 0; i < used; ++i) {
        of[bytes][i] = char(16 - bytes - i / bytes * bytes + i % bytes);
      }
    }
  }
};
__attribute__((target("ssse3"))) inline int64_t reverse_pixels_ssse3(const char* last, char* to,
                                                                     int64_t n, int bytes) {
  static const TurnedOrders orders;
  const __m128i turned = _mm_load_si128(reinterpret_cast<const __m128i*>(orders.of[bytes]));
  const int pixels = 16 / bytes;
  int64_t k = 0;
  // What is read or stored beyond whole pixels is of pixels to come: the next store mends it.
  for (; k < n && n * bytes >= 16; k += pixels) {
    if ((n - k) * bytes < 16) {
      if (pixels * bytes < 16) break;
      k = n - pixels;  // some of them again
    }
    const char* const from = last - (k - 1) * bytes - 16;
    const __m128i group = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + k * bytes), _mm_shuffle_epi8(group, turned));
  }
  return k;
}
#endif
template <class T>
void reverse_pixels(const T* from, T* out, int64_t n, int64_t group) {
  const int bytes = int(sizeof(T) * group);
  const char* const last = reinterpret_cast<const char*>(from);
  char* const to = reinterpret_cast<char*>(out);
  int64_t k = 0;
#if defined(GANOPS_F16C)
  static const bool has = __builtin_cpu_supports("ssse3");
  if (has && bytes <= 16) k = reverse_pixels_ssse3(last, to, n, bytes);
#endif
  for (; k < n; ++k) std::memcpy(to + k * bytes, last - k * bytes, bytes);
}

// Below this many the loop's rest, one by one, is most of it.
constexpr int64_t kLongRun = 64;

template <class T>
void gather_row(const T* row, T* to, const Runs& runs, int64_t group) {
  for (const Run& r : runs.run) {
    const int64_t n = r.end - r.begin;
    T* const out = to + r.begin * group;
    if (n <= 0) continue;
    if (r.forward) {
      std::memcpy(out, row + r.first * group, sizeof(T) * n * group);
    } else if (group == 1 && n >= kLongRun) {
      reverse_run(row + r.first, out, n);
    } else {
      reverse_pixels(row + r.first * group, out, n, group);
    }
  }
}

// y[i] += weight * x[i], forwards or (last given) backwards.
#define GANOPS_AXPY(C)                                                                    \
  GANOPS_CLONES                                                                           \
  inline void axpy(const C* GANOPS_RESTRICT x, C* GANOPS_RESTRICT y, C weight, int64_t n, \
                   bool forward) {                                                        \
    if (forward) {                                                                        \
      for (int64_t i = 0; i < n; ++i) y[i] += weight * x[i];                              \
    } else {                                                                              \
      for (int64_t i = 0; i < n; ++i) y[i] += weight * x[-i];                             \
    }                                                                                     \
  }
GANOPS_AXPY(float)
GANOPS_AXPY(double)

// to += weight * (row read through the runs): a tap of the forward pass. `turned` holds a row.
template <class C>
void add_gathered(const C* row, C* to, const Runs& runs, int64_t group, C weight, C* turned) {
  for (const Run& r : runs.run) {
    const int64_t n = r.end - r.begin;
    if (n <= 0) continue;
    const C* x = row + r.first * group;
    if (!r.forward && group > 1) reverse_pixels(x, turned, n, group), x = turned;
    axpy(x, to + r.begin * group, weight, n * group, r.forward || group > 1);
  }
}

// The transpose of that: row += weight * what the runs of `from` read.
template <class C>
void add_scattered(const C* from, C* row, const Runs& runs, int64_t group, C weight, C* turned) {
  for (const Run& r : runs.run) {
    const int64_t n = r.end - r.begin;
    if (n <= 0) continue;
    const int64_t first = r.forward ? r.first : r.first - (n - 1);
    const C* x = from + (r.forward ? r.begin : r.end - 1) * group;
    if (!r.forward && group > 1) reverse_pixels(x, turned, n, group), x = turned;
    axpy(x, row + first * group, weight, n * group, r.forward || group > 1);
  }
}

// f = scale f + mix (mean over channels of f) + add, in place: f[plane * n + i], n = width * group.
template <int kGroup, class C>
GANOPS_INLINE void colour_pixels(C* f, int64_t pixels, C scale, C mix, C add) {
  for (int64_t i = 0; i < pixels; ++i) {
    C sum(0);
    for (int c = 0; c < kGroup; ++c) sum += f[i * kGroup + c];
    const C rest = mix * (sum * C(1.0 / kGroup)) + add;
    for (int c = 0; c < kGroup; ++c) f[i * kGroup + c] = scale * f[i * kGroup + c] + rest;
  }
}
template <class C>
GANOPS_INLINE void colour_planes(C* GANOPS_RESTRICT f, C* GANOPS_RESTRICT sums, int64_t planes,
                                 int64_t n, C scale, C mix, C add) {
  if (planes == 3) {  // the usual number, in one pass
    C *GANOPS_RESTRICT g = f + n, *GANOPS_RESTRICT b = f + 2 * n;
    for (int64_t i = 0; i < n; ++i) {
      const C rest = mix * ((f[i] + g[i] + b[i]) * C(1.0 / 3)) + add;
      f[i] = scale * f[i] + rest;
      g[i] = scale * g[i] + rest;
      b[i] = scale * b[i] + rest;
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) sums[i] = f[i];
  for (int64_t p = 1; p < planes; ++p) {
    for (int64_t i = 0; i < n; ++i) sums[i] += f[p * n + i];
  }
  for (int64_t i = 0; i < n; ++i) sums[i] = mix * (sums[i] * (C(1) / C(planes))) + add;
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t i = 0; i < n; ++i) f[p * n + i] = scale * f[p * n + i] + sums[i];
  }
}
#define GANOPS_COLOUR_CASE(G) \
  case G:                     \
    return colour_pixels<G>(f, n / G, scale, mix, add);
#define GANOPS_COLOUR(C)                                                                           \
  GANOPS_CLONES                                                                                    \
  inline void colour_rows(C* f, C* sums, int64_t planes, int64_t n, int64_t group, C scale, C mix, \
                          C add) {                                                                 \
    if (mix == C(0)) {                                                                             \
      for (int64_t i = 0; i < planes * n; ++i) f[i] = scale * f[i] + add;                          \
      return;                                                                                      \
    }                                                                                              \
    if (group == 1) return colour_planes(f, sums, planes, n, scale, mix, add);                     \
    switch (group) {                                                                               \
      GANOPS_COLOUR_CASE(2)                                                                        \
      GANOPS_COLOUR_CASE(3)                                                                        \
      GANOPS_COLOUR_CASE(4)                                                                        \
      GANOPS_COLOUR_CASE(5)                                                                        \
      GANOPS_COLOUR_CASE(6)                                                                        \
      GANOPS_COLOUR_CASE(7)                                                                        \
      GANOPS_COLOUR_CASE(8)                                                                        \
      default:                                                                                     \
        return;                                                                                    \
    }                                                                                              \
  }
GANOPS_COLOUR(float)
GANOPS_COLOUR(double)

// Sums in lanes, in a fixed order; each block of up to kBlock is then added in double.
#if defined(GANOPS_F16C)
GANOPS_AVX512 inline int64_t sum_avx512(const uint8_t* x, int64_t n, int64_t& sum) {
  __m512i sums = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const __m512i bytes = _mm512_loadu_si512(x + i);
    sums = _mm512_add_epi64(sums, _mm512_sad_epu8(bytes, _mm512_setzero_si512()));
  }
  sum = _mm512_reduce_add_epi64(sums);
  return i;
}
#endif
GANOPS_CLONES
inline int64_t sum_bytes(const uint8_t* x, int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n;) {
    int32_t part = 0;
    for (const int64_t end = std::min(n, i + kBlock); i < end; ++i) part += x[i];
    sum += part;
  }
  return sum;
}
inline int64_t sum_of(const uint8_t* x, int64_t n) {
  int64_t sum = 0, done = 0;
#if defined(GANOPS_F16C)
  if (has_avx512()) done = sum_avx512(x, n, sum);
#endif
  return sum + sum_bytes(x + done, n - done);
}
#define GANOPS_DOT(C)                                               \
  GANOPS_CLONES                                                     \
  inline double dot_block(const C* x, const C* w, int64_t n) {      \
    C lanes[32] = {};                                               \
    int64_t i = 0;                                                  \
    for (; i + 32 <= n; i += 32) {                                  \
      for (int j = 0; j < 32; ++j) lanes[j] += x[i + j] * w[i + j]; \
    }                                                               \
    double sum = 0;                                                 \
    for (; i < n; ++i) sum += double(x[i]) * double(w[i]);          \
    for (int j = 0; j < 32; ++j) sum += lanes[j];                   \
    return sum;                                                     \
  }
GANOPS_DOT(float)
GANOPS_DOT(double)

// out[i] += sigma * (normal of element first + i of the sample).
GANOPS_CLONES
inline void normal_blocks(uint64_t seed, uint64_t sample, int64_t block, int64_t count,
                          float* out) {
  for (int64_t i = 0; i < count; ++i) {
    normals_from_block(augment_words(seed, sample, kParameterBlocks + uint64_t(block + i)),
                       out + 4 * i);
  }
}

}  // namespace
}  // namespace ganops
