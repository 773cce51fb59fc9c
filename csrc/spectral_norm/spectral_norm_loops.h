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
    if (rows == kRows) return rows_loop<kRows>(w, v, s, t, n);                              \
    for (int64_t r = 0; r < rows; ++r) rows_loop<1>(w + r * n, v, s + r, t, n);             \
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

GANOPS_SPECTRAL_STREAMS(float)
GANOPS_SPECTRAL_STREAMS(double)
GANOPS_SPECTRAL_STREAMS(BFloat16)
GANOPS_SPECTRAL_STREAMS(Half)

}  // namespace
}  // namespace ganops
