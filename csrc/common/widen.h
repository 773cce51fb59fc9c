// Half types to float and back, a block at a time.
#pragma once

#include <cstdint>

#include "numeric.h"
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define GANOPS_F16C 1
#include <immintrin.h>
#endif

namespace ganops {
namespace {

GANOPS_CLONES
inline void widen_block(const BFloat16* GANOPS_RESTRICT from, float* GANOPS_RESTRICT to,
                        int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_compute(from[i]);
}
GANOPS_CLONES
inline void narrow_block(const float* GANOPS_RESTRICT from, BFloat16* GANOPS_RESTRICT to,
                         int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from_compute<BFloat16>(from[i]);
}

// float16 has instructions of its own (in every CPU with AVX2), which compilers do not find in the
// arithmetic of numeric.h: a fifth of its time.
#if defined(GANOPS_F16C)
#define GANOPS_TARGET_F16C __attribute__((target("avx2,f16c")))
GANOPS_TARGET_F16C inline int64_t widen_f16c(const Half* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(bits));
  }
  return i;
}
GANOPS_TARGET_F16C inline int64_t narrow_f16c(const float* from, Half* to, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), bits);
  }
  return i;
}
inline bool has_f16c() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  return has;
}
#else
inline int64_t widen_f16c(const Half*, float*, int64_t) { return 0; }
inline int64_t narrow_f16c(const float*, Half*, int64_t) { return 0; }
inline bool has_f16c() { return false; }
#endif

inline void widen_block(const Half* from, float* to, int64_t n) {
  for (int64_t i = has_f16c() ? widen_f16c(from, to, n) : 0; i < n; ++i)
    to[i] = to_compute(from[i]);
}
inline void narrow_block(const float* from, Half* to, int64_t n) {
  for (int64_t i = has_f16c() ? narrow_f16c(from, to, n) : 0; i < n; ++i) {
    to[i] = from_compute<Half>(from[i]);
  }
}

}  // namespace
}  // namespace ganops
