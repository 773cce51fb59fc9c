// Loops of resize_cpu.cpp, compiled once per instruction set.
#pragma once

#include "../common/stream_store.h"
#include "../common/widen.h"
#include "resize_math.h"

namespace ganops {
namespace {

struct ResizeRange {
  float shift, divisor;
};

GANOPS_CLONES
inline void floats_of(const uint8_t* GANOPS_RESTRICT from, float* GANOPS_RESTRICT to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = float(from[i]);
}

GANOPS_CLONES
inline void lerp_columns(const float* GANOPS_RESTRICT s, const int32_t* GANOPS_RESTRICT low,
                         const int32_t* GANOPS_RESTRICT high, const float* GANOPS_RESTRICT d,
                         float* GANOPS_RESTRICT to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = resize_lerp(s[low[i]], s[high[i]], d[i]);
}

// w: (taps, n); tap k of number i is s[low[i] + k step].
GANOPS_CLONES
inline void sum_columns(const float* GANOPS_RESTRICT s, const int32_t* GANOPS_RESTRICT low,
                        int64_t step, const double* GANOPS_RESTRICT w, int64_t taps,
                        float* GANOPS_RESTRICT to, int64_t n) {
  double sum[kBurst];
  for (int64_t at = 0; at < n; at += kBurst) {
    const int64_t count = n - at < kBurst ? n - at : kBurst;
    for (int64_t i = 0; i < count; ++i) sum[i] = 0.0;
    for (int64_t k = 0; k < taps; ++k) {
      const float* const row = s + k * step;
      for (int64_t i = 0; i < count; ++i) {
        sum[i] = resize_tap(sum[i], w[k * n + at + i], row[low[at + i]]);
      }
    }
    for (int64_t i = 0; i < count; ++i) to[at + i] = float(sum[i]);
  }
}

GANOPS_CLONES
inline void lerp_rows(const float* GANOPS_RESTRICT a, const float* GANOPS_RESTRICT b, float d,
                      ResizeRange r, float* GANOPS_RESTRICT out, int64_t n, bool stream) {
  store_results(
      out, n, stream, [&](int64_t at, float* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
        for (int64_t i = 0; i < count; ++i) {
          to[i] = resize_normalise(resize_lerp(a[at + i], b[at + i], d), r.shift, r.divisor);
        }
      });
}

GANOPS_CLONES
inline void sum_rows(const float* const* rows, const double* w, int64_t taps, ResizeRange r,
                     float* GANOPS_RESTRICT out, int64_t n, bool stream) {
  for (int64_t from = 0; from < n; from += kBlock) {
    const int64_t length = n - from < kBlock ? n - from : kBlock;
    store_results(out + from, length, stream,
                  [&](int64_t i0, float* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                    double sum[kBlock];
                    for (int64_t i = 0; i < count; ++i) sum[i] = 0.0;
                    for (int64_t k = 0; k < taps; ++k) {
                      const float* const row = rows[k] + from + i0;
                      for (int64_t i = 0; i < count; ++i) sum[i] = resize_tap(sum[i], w[k], row[i]);
                    }
                    for (int64_t i = 0; i < count; ++i) {
                      to[i] = resize_normalise(resize_clip(float(sum[i])), r.shift, r.divisor);
                    }
                  });
  }
}

// A finished row to memory: floats are written by the loops above, halves by way of `row`.
template <class Out, class F>
void write_row(Out* out, float* row, int64_t n, bool stream, const F& compute) {
  if constexpr (std::is_same_v<Out, float>) {
    compute(out, stream);
  } else {
    compute(row, false);
    store_results(out, n, stream, [&](int64_t at, Out* to, int64_t count) GANOPS_LAMBDA {
      narrow_block(row + at, to, count);
    });
  }
}

}  // namespace
}  // namespace ganops
