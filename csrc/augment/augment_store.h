// augment's way from bytes and floats to results in memory, past the cache if asked.
#pragma once

#include <cstring>

#include "../common/stream_store.h"
#include "../common/widen.h"
#include "augment_math.h"

namespace ganops {
namespace {

GANOPS_CLONES
inline void widen_block(const uint8_t* GANOPS_RESTRICT from, float* GANOPS_RESTRICT to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = unit_from_byte(from[i]);
}
GANOPS_CLONES
inline void widen_back(const uint8_t* GANOPS_RESTRICT last, float* GANOPS_RESTRICT to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = unit_from_byte(last[-i]);
}
template <class C>
void widen_block(const C* from, C* to, int64_t n) {
  std::memcpy(to, from, sizeof(C) * n);
}

// Whole lines of results from registers, where they make lines: no stop in memory, and stores past
// the cache of 64 bytes each. All return how many elements they stored.
#if defined(GANOPS_F16C)
#define GANOPS_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")))

inline bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
  return has;
}

GANOPS_AVX512 inline void store_line(void* to, __m512i line, bool stream) {
  stream ? _mm512_stream_si512(static_cast<__m512i*>(to), line) : _mm512_storeu_si512(to, line);
}
GANOPS_AVX512 inline __m256i to_halves(__m512 v) {
  return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}
GANOPS_AVX512 inline void store_line(Half* to, __m512 first, __m512 second, bool stream) {
  const __m512i line = _mm512_castsi256_si512(to_halves(first));
  store_line(to, _mm512_inserti64x4(line, to_halves(second), 1), stream);
}
GANOPS_AVX512 inline void store_line(float* to, __m512 first, __m512 second, bool stream) {
  store_line(to, _mm512_castps_si512(first), stream);
  store_line(to + 16, _mm512_castps_si512(second), stream);
}

// Sixteen bytes as floats: the next ones, or the ones before in turned order.
GANOPS_AVX512 inline __m512 load_bytes(const uint8_t* from, bool forward) {
  const auto at = [](const uint8_t* p) { return reinterpret_cast<const __m128i*>(p); };
  __m128i bytes;
  if (forward) {
    bytes = _mm_loadu_si128(at(from));
  } else {
    const __m128i turned = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    bytes = _mm_shuffle_epi8(_mm_loadu_si128(at(from - 15)), turned);
  }
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}
// unit_from_byte; its first product is exact, so that fused it has the same bits.
GANOPS_AVX512 inline __m512 units(__m512 u, const float*) {
  const __m512 low = _mm512_mul_ps(u, _mm512_set1_ps(-0x1.fdfdfep-24f));
  return _mm512_sub_ps(_mm512_fmadd_ps(u, _mm512_set1_ps(0x1.0102p-7f), low), _mm512_set1_ps(1.0f));
}
// For a float16 the nearest float to 1 / 127.5 will do: the same 256 results (a test has them all).
GANOPS_AVX512 inline __m512 units(__m512 u, const Half*) {
  return _mm512_fmsub_ps(u, _mm512_set1_ps(1.0f / 127.5f), _mm512_set1_ps(1.0f));
}

template <bool kForward, class Out>
GANOPS_AVX512 int64_t store_bytes_avx512(const uint8_t* from, Out* out, int64_t n, bool stream) {
  constexpr int64_t sign = kForward ? 1 : -1;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512 first = units(load_bytes(from + sign * i, kForward), out);
    const __m512 second = units(load_bytes(from + sign * (i + 16), kForward), out);
    store_line(out + i, first, second, stream);
  }
  return i;
}
template <class Out>
GANOPS_AVX512 int64_t store_floats_avx512(const float* from, Out* out, int64_t n, bool stream) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    store_line(out + i, _mm512_loadu_ps(from + i), _mm512_loadu_ps(from + i + 16), stream);
  }
  return i;
}
#endif

// Elements before the next line of memory begins.
template <class Out>
int64_t before_line(const Out* out) {
  return int64_t((64 - (reinterpret_cast<uintptr_t>(out) & 63)) & 63) / int64_t(sizeof(Out));
}
template <class Out>
constexpr bool kHasLines = std::is_same_v<Out, Half> || std::is_same_v<Out, float>;

// float results to memory.
template <class Out, class C>
void store_row(const C* from, Out* out, int64_t n, bool stream) {
  const auto store = [&](int64_t begin, int64_t end, bool past) {
    store_results(out + begin, end - begin, past,
                  [&](int64_t at, Out* to, int64_t count) GANOPS_LAMBDA {
                    if constexpr (std::is_same_v<Out, C>) {
                      std::memcpy(to, from + begin + at, sizeof(C) * count);
                    } else {
                      narrow_block(from + begin + at, to, count);
                    }
                  });
  };
#if defined(GANOPS_F16C)
  if constexpr (kHasLines<Out> && std::is_same_v<C, float>) {
    if (stream && has_avx512()) {
      const int64_t first = std::min(n, before_line(out));
      store(0, first, false);
      const int64_t done = store_floats_avx512(from + first, out + first, n - first, true);
      return store(first + done, n, false);
    }
  }
#endif
  store(0, n, stream);
}

// Bytes to results: n of them from `from` on, or (not forward) from there back.
template <class Out, class C>
void convert_bytes(const uint8_t* from, Out* out, int64_t n, bool forward, bool stream, C* buffer) {
  const int64_t sign = forward ? 1 : -1;
  const auto through_buffer = [&](int64_t begin, int64_t end, bool past) {
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t count = std::min(kBlock, end - i);
      forward ? widen_block(from + i, buffer, count) : widen_back(from - i, buffer, count);
      store_row(buffer, out + i, count, past);
    }
  };
#if defined(GANOPS_F16C)
  if constexpr (kHasLines<Out>) {
    if (has_avx512()) {
      const int64_t first = stream ? std::min(n, before_line(out)) : 0;
      through_buffer(0, first, false);
      const auto lines = forward ? store_bytes_avx512<true, Out> : store_bytes_avx512<false, Out>;
      const int64_t done = first + lines(from + sign * first, out + first, n - first, stream);
      return through_buffer(done, n, false);
    }
  }
#endif
  through_buffer(0, n, stream);
}

// In to Out by way of C, which `buffer` (of kBlock) holds where it must.
template <class In, class Out, class C>
void convert_run(const In* from, Out* out, int64_t n, bool stream, C* buffer) {
  if constexpr (std::is_same_v<In, uint8_t>) {
    convert_bytes(from, out, n, true, stream, buffer);
  } else if constexpr (std::is_same_v<In, C>) {
    store_row(from, out, n, stream);
  } else if constexpr (std::is_same_v<In, Out>) {
    std::memcpy(out, from, sizeof(In) * n);  // NaN keeps its bits
  } else {
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t count = std::min(kBlock, n - i);
      widen_block(from + i, buffer, count);
      store_row(buffer, out + i, count, stream);
    }
  }
}

}  // namespace
}  // namespace ganops
