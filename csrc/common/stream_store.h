// Stores that bypass the cache, for outputs too large to be found there by their next reader:
// they save reading each line before overwriting it, a third of a large kernel's traffic.
#pragma once

#include <cstdint>

#include "macros.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ganops {

// Elements handed to a kernel at a time: a few L1-sized operands.
constexpr int64_t kBlock = 1024;

// Above this a result is unlikely to stay in a core's share of the last-level cache.
constexpr int64_t kStreamBytes = int64_t(8) << 20;

// Bytes computed between two bursts of streaming stores. Short bursts measured fastest (256 bytes
// 1.5x faster than 8 KiB at 50 MB): reads and writes then overlap.
constexpr int64_t kBurst = 256;

// Streamed lines must be visible before another thread is told that they are there.
inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Runs f(i, target, count), which computes elements i ... i + count - 1 into target, so that the
// results end in out[0 ... n), by streaming stores if asked and there are any. f is instantiated
// once.
template <class T, class F>
GANOPS_INLINE void store_results(T* out, int64_t n, bool stream, const F& f) {
#if defined(__SSE2__)
  constexpr int64_t burst = kBurst / int64_t(sizeof(T));
  alignas(64) T buffer[burst];
  // The first piece ends where out is aligned.
  int64_t count =
      stream ? int64_t((64 - (reinterpret_cast<uintptr_t>(out) & 63)) & 63) / int64_t(sizeof(T))
             : n;
  for (int64_t i = 0; i < n; i += count, count = burst) {
    count = count < n - i ? count : n - i;
    if (count == 0) continue;
    const bool whole = stream && count == burst;
    f(i, whole ? buffer : out + i, count);
    for (int64_t j = 0; whole && j < burst; j += 16 / int64_t(sizeof(T))) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i + j),
                       _mm_load_si128(reinterpret_cast<const __m128i*>(buffer + j)));
    }
  }
#else
  (void)stream;  // a burst would only be copied once more
  if (n > 0) f(0, out, n);
#endif
}

}  // namespace ganops
