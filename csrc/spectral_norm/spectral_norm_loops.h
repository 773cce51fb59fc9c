// The loops of spectral_norm_cpu.cpp, compiled once per instruction set.
#pragma once

#include <algorithm>

#include "../common/stream_store.h"
#include "spectral_norm_math.h"

namespace ganops {
namespace {

constexpr int kRows = 4;  // taken together: v and W^T u are then loaded less

#define GANOPS_SPECTRAL_BLOCKS(C)                                                           \
  /* s = R rows of w times v, then (if there is a t) t += s w */                            \
  template <int R>                                                                          \
  GANOPS_INLINE void rows_loop(const C* GANOPS_RESTRICT w, const C* GANOPS_RESTRICT v,      \
                               C* GANOPS_RESTRICT s, C* GANOPS_RESTRICT t, int64_t n) {     \
    constexpr int lanes = (R == 1 ? 256 : 64) / int(sizeof(C)); /* enough sums in flight */ \
    C sums[R][lanes] = {};                                                                  \
    int64_t i = 0;                                                                          \
    for (; i + lanes <= n; i += lanes) {                                                    \
      for (int r = 0; r < R; ++r) {                                                         \
        for (int j = 0; j < lanes; ++j) sums[r][j] += w[r * n + i + j] * v[i + j];          \
      }                                                                                     \
    }                                                                                       \
    for (int r = 0; r < R; ++r) {                                                           \
      double sum = 0;                                                                       \
      for (int j = 0; j < lanes; ++j) sum += double(sums[r][j]);                            \
      for (int64_t k = i; k < n; ++k) sum += double(w[r * n + k]) * double(v[k]);           \
      s[r] = C(sum);                                                                        \
    }                                                                                       \
    if (t == nullptr) return;                                                               \
    C k[R];                                                                                 \
    for (int r = 0; r < R; ++r) k[r] = s[r];                                                \
    for (int64_t j = 0; j < n; ++j) {                                                       \
      C sum = k[0] * w[j];                                                                  \
      for (int r = 1; r < R; ++r) sum += k[r] * w[r * n + j];                               \
      t[j] += sum;                                                                          \
    }                                                                                       \
  }                                                                                         \
  GANOPS_CLONES                                                                             \
  void spectral_rows(const C* w, const C* v, C* s, C* t, int64_t rows, int64_t n) {         \
    int64_t r = 0;                                                                          \
    for (; r + kRows <= rows; r += kRows) rows_loop<kRows>(w + r * n, v, s + r, t, n);      \
    for (; r < rows; ++r) rows_loop<1>(w + r * n, v, s + r, t, n);                          \
  }                                                                                         \
  GANOPS_CLONES                                                                             \
  double spectral_square(const C* a, int64_t n) {                                           \
    double lanes[8] = {}, sum = 0;                                                          \
    int64_t i = 0;                                                                          \
    for (; i + 8 <= n; i += 8) {                                                            \
      for (int j = 0; j < 8; ++j) lanes[j] += double(a[i + j]) * double(a[i + j]);          \
    }                                                                                       \
    for (; i < n; ++i) sum += double(a[i]) * double(a[i]);                                  \
    for (int j = 0; j < 8; ++j) sum += lanes[j];                                            \
    return sum;                                                                             \
  }                                                                                         \
  GANOPS_CLONES                                                                             \
  void spectral_times(const C* GANOPS_RESTRICT a, C* GANOPS_RESTRICT b, int64_t n, C k) {   \
    for (int64_t j = 0; j < n; ++j) b[j] = k * a[j];                                        \
  }                                                                                         \
  /* the first of `pieces` vectors becomes k times their sum */                             \
  GANOPS_CLONES                                                                             \
  void spectral_collect(C* parts, int64_t pieces, int64_t n, C k) {                         \
    for (int64_t p = 1; p < pieces; ++p) {                                                  \
      const C* GANOPS_RESTRICT more = parts + p * n;                                        \
      for (int64_t j = 0; j < n; ++j) parts[j] += more[j];                                  \
    }                                                                                       \
    for (int64_t j = 0; j < n; ++j) parts[j] *= k;                                          \
  }

GANOPS_SPECTRAL_BLOCKS(float)
GANOPS_SPECTRAL_BLOCKS(double)

#define GANOPS_SPECTRAL_STREAMS(T)                                                                \
  GANOPS_CLONES                                                                                   \
  void spectral_scale(const T* w, T* y, int64_t n, compute_t<T> k, bool stream) {                 \
    store_results(y, n, stream,                                                                   \
                  [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {           \
                    for (int64_t i = 0; i < count; ++i)                                           \
                      to[i] = from_compute<T>(k * to_compute(w[at + i]));                         \
                  });                                                                             \
  }                                                                                               \
  GANOPS_CLONES                                                                                   \
  double spectral_dot(const T* GANOPS_RESTRICT a, const T* GANOPS_RESTRICT b, int64_t n) {        \
    double sum = 0;                                                                               \
    for (int64_t start = 0; start < n; start += kBlock) {                                         \
      const int64_t stop = std::min(start + kBlock, n);                                           \
      compute_t<T> lanes[64] = {};                                                                \
      int64_t i = start;                                                                          \
      for (; i + 64 <= stop; i += 64) {                                                           \
        for (int j = 0; j < 64; ++j) lanes[j] += to_compute(a[i + j]) * to_compute(b[i + j]);     \
      }                                                                                           \
      for (int j = 0; j < 64; ++j) sum += double(lanes[j]);                                       \
      for (; i < stop; ++i) sum += double(to_compute(a[i])) * double(to_compute(b[i]));           \
    }                                                                                             \
    return sum;                                                                                   \
  }                                                                                               \
  GANOPS_CLONES                                                                                   \
  void spectral_segment(const T* g, const compute_t<T>* v, T* out, int64_t n,                     \
                        compute_t<T> inverse, compute_t<T> along, bool stream) {                  \
    store_results(                                                                                \
        out, n, stream, [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {     \
          for (int64_t i = 0; i < count; ++i)                                                     \
            to[i] =                                                                               \
                from_compute<T>(spectral_grad(to_compute(g[at + i]), inverse, along, v[at + i])); \
        });                                                                                       \
  }

// The same products where a row is scattered: `outer` segments of K = inner numbers, those of the
// next row beside them. W is walked as it lies; sums (rows, inner) is scratch.
template <int K, class T, class C>
GANOPS_INLINE void scattered_loop(const T* GANOPS_RESTRICT w, const C* GANOPS_RESTRICT v,
                                  C* GANOPS_RESTRICT s, C* GANOPS_RESTRICT t,
                                  C* GANOPS_RESTRICT sums, int64_t outer, int64_t step,
                                  int64_t rows, int64_t inner) {
  const int64_t n = K > 0 ? K : inner;
  for (int64_t i = 0; i < rows * n; ++i) sums[i] = C(0);
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < n; ++j) {
        sums[r * n + j] += to_compute(w[o * step + r * n + j]) * v[o * n + j];
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += double(sums[r * n + j]);
    s[r] = C(sum);
  }
  for (int64_t o = 0; t != nullptr && o < outer; ++o) {
    const T* at = w + o * step;
    C local[K > 0 ? K : 1] = {};
    C* sum = K > 0 ? local : t + o * n;  // in registers where its length is known
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4, at += 4 * n) {
      for (int64_t j = 0; j < n; ++j) {
        sum[j] += (s[r] * to_compute(at[j]) + s[r + 1] * to_compute(at[n + j])) +
                  (s[r + 2] * to_compute(at[2 * n + j]) + s[r + 3] * to_compute(at[3 * n + j]));
      }
    }
    for (; r < rows; ++r, at += n) {
      for (int64_t j = 0; j < n; ++j) sum[j] += s[r] * to_compute(at[j]);
    }
    for (int64_t j = 0; K > 0 && j < n; ++j) t[o * n + j] += local[j];
  }
}
#define GANOPS_SPECTRAL_SCATTERED(T)                                                           \
  GANOPS_CLONES                                                                                \
  void spectral_scattered(const T* w, const compute_t<T>* v, compute_t<T>* s, compute_t<T>* t, \
                          compute_t<T>* sums, int64_t outer, int64_t step, int64_t rows,       \
                          int64_t inner) {                                                     \
    if (inner == 16) return scattered_loop<16>(w, v, s, t, sums, outer, step, rows, inner);    \
    if (inner == 9) return scattered_loop<9>(w, v, s, t, sums, outer, step, rows, inner);      \
    if (inner == 4) return scattered_loop<4>(w, v, s, t, sums, outer, step, rows, inner);      \
    scattered_loop<0>(w, v, s, t, sums, outer, step, rows, inner);                             \
  }
GANOPS_SPECTRAL_SCATTERED(float)
GANOPS_SPECTRAL_SCATTERED(double)
GANOPS_SPECTRAL_SCATTERED(BFloat16)
GANOPS_SPECTRAL_SCATTERED(Half)

GANOPS_SPECTRAL_STREAMS(float)
GANOPS_SPECTRAL_STREAMS(double)
GANOPS_SPECTRAL_STREAMS(BFloat16)
GANOPS_SPECTRAL_STREAMS(Half)

}  // namespace
}  // namespace ganops
