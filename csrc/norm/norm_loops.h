// The CPU's inner loops, for one type at a time, compiled once per instruction set.
#pragma once

#include "../common/results.h"
#include "../common/stream_store.h"
#include "norm_layout.h"

namespace ganops {
namespace {

constexpr int64_t kLanes = 16;
constexpr int kRowSums = 7;

// Consecutive numbers of one row (or of one cell of it), and what they share.
template <class T>
struct NormSpan {
  const T *v, *dy, *x;
  T *d_dy, *d_x;
  int64_t n;
  compute_t<T> mean, rstd;
  const compute_t<T>*w, *a, *c;  // kind rows only; a and c: both or none
  bool stream;
};

// Adds to out: the sums of NormSums, or with kRows those of NormMeans. Lanes are of the computing
// type within a block, double across blocks.
template <bool kRows, bool kAffine, class T>
GANOPS_INLINE void sum_loop(const NormSpan<T>& k, double* out) {
  using C = compute_t<T>;
  constexpr int kSums = kAffine ? kRowSums : kNormSums;
  const T *GANOPS_RESTRICT v = k.v, *GANOPS_RESTRICT dy = k.dy, *GANOPS_RESTRICT x = k.x;
  const C mean = k.mean, rstd = k.rstd;
  for (int64_t start = 0; start < k.n; start += kBlock) {
    const int64_t stop = std::min(start + kBlock, k.n);
    C lanes[kSums][kLanes] = {};
    const auto add = [&](int64_t i, int64_t j) GANOPS_LAMBDA {
      const C d = to_compute(dy[i]), u = to_compute(v[i]);
      const C h = (to_compute(x[i]) - mean) * rstd, g = kRows ? k.w[i] * d : d;
      lanes[0][j] += g;
      lanes[1][j] += u;
      lanes[2][j] += g * h;
      lanes[3][j] += u * h;
      lanes[4][j] += u * g;
      if constexpr (kAffine) {
        const C ad = k.a[i] * d;
        lanes[5][j] += ad;
        lanes[6][j] += ad * h;
      }
    };
    int64_t i = start;
    for (; i + kLanes <= stop; i += kLanes) {
      for (int64_t j = 0; j < kLanes; ++j) add(i + j, j);
    }
    for (int64_t j = 0; i + j < stop; ++j) add(i + j, j);
    for (int s = 0; s < kSums; ++s) {
      for (int64_t j = 0; j < kLanes; ++j) out[s] += lanes[s][j];
    }
  }
}

template <class T>
GANOPS_INLINE void cell_loop(const NormSpan<T>& k, const NormCell<compute_t<T>>& e) {
  using C = compute_t<T>;
  const C mean = k.mean, rstd = k.rstd;
  const auto store = [&](T* out, C by_dy, C by_v, C by_x, C one, auto use_dy) GANOPS_LAMBDA {
    store_results(out, k.n, k.stream,
                  [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                    for (int64_t i = 0; i < count; ++i) {
                      const C h = (to_compute(k.x[at + i]) - mean) * rstd;
                      C y = by_v * to_compute(k.v[at + i]) + by_x * h + one;
                      if constexpr (use_dy.value) y += by_dy * to_compute(k.dy[at + i]);
                      to[i] = from_compute<T>(y);
                    }
                  });
  };
  // A block at a time: the second result finds its operands in L1.
  store(k.d_dy, C(0), e.ev, e.ex, e.e1, std::false_type{});
  store(k.d_x, e.fd, e.fv, e.fx, e.f1, std::true_type{});
}

// dw: += dy T(v), number by number.
template <bool kAffine, bool kWeightGrad, class T>
GANOPS_INLINE void row_loop(const NormSpan<T>& k, const NormRow<compute_t<T>>& e,
                            compute_t<T>* dw) {
  using C = compute_t<T>;
  const C mean = k.mean, rstd = k.rstd;
  store_results(k.d_dy, k.n, k.stream,
                [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                  const C *w = k.w + at, *a = kAffine ? k.a + at : w, *c = kAffine ? k.c + at : w;
                  C* GANOPS_RESTRICT sums = dw + (kWeightGrad ? at : 0);
                  const T *v = k.v + at, *dy = k.dy + at, *x = k.x + at;
                  const C tv = e.tv, tx = e.tx, t1 = e.t1;
                  for (int64_t i = 0; i < count; ++i) {
                    const C h = (to_compute(x[i]) - mean) * rstd;
                    const C t = tv * to_compute(v[i]) + tx * h + t1;
                    if constexpr (kWeightGrad) sums[i] += to_compute(dy[i]) * t;
                    C y = w[i] * t;
                    if constexpr (kAffine) y += a[i] * h + c[i];
                    to[i] = from_compute<T>(y);
                  }
                });
  store_results(
      k.d_x, k.n, k.stream, [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
        const C *w = k.w + at, *a = kAffine ? k.a + at : w;
        const T *v = k.v + at, *dy = k.dy + at, *x = k.x + at;
        const C r = e.r, kg = e.kg, kv = e.kv, kx = e.kx, k1 = e.k1;
        for (int64_t i = 0; i < count; ++i) {
          const C h = (to_compute(x[i]) - mean) * rstd;
          C by_dy = kg * w[i];
          if constexpr (kAffine) by_dy += r * a[i];
          to[i] = from_compute<T>(by_dy * to_compute(dy[i]) + kv * to_compute(v[i]) + kx * h + k1);
        }
      });
}

// The same for a line across columns: number i is in column i, whose statistics are at mean[i].
template <class C>
struct ColumnStats {
  const C *mean, *rstd;
};

template <class T>
GANOPS_INLINE void column_sum_loop(const NormSpan<T>& k, ColumnStats<compute_t<T>> s,
                                   compute_t<T>* GANOPS_RESTRICT sums, int64_t stride) {
  using C = compute_t<T>;
  for (int64_t i = 0; i < k.n; ++i) {
    const C d = to_compute(k.dy[i]), u = to_compute(k.v[i]);
    const C h = (to_compute(k.x[i]) - s.mean[i]) * s.rstd[i];
    sums[i] += d;
    sums[stride + i] += u;
    sums[2 * stride + i] += d * h;
    sums[3 * stride + i] += u * h;
    sums[4 * stride + i] += u * d;
  }
}

// e: kNormCell lists of coefficients, `stride` apart.
template <class T>
GANOPS_INLINE void column_loop(const NormSpan<T>& k, ColumnStats<compute_t<T>> s,
                               const compute_t<T>* GANOPS_RESTRICT e, int64_t stride) {
  using C = compute_t<T>;
  store_results(
      k.d_dy, k.n, k.stream, [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t p = at + i;
          const C h = (to_compute(k.x[p]) - s.mean[p]) * s.rstd[p];
          to[i] =
              from_compute<T>(e[p] * to_compute(k.v[p]) + e[stride + p] * h + e[2 * stride + p]);
        }
      });
  store_results(k.d_x, k.n, k.stream,
                [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                  for (int64_t i = 0; i < count; ++i) {
                    const int64_t p = at + i;
                    const C h = (to_compute(k.x[p]) - s.mean[p]) * s.rstd[p];
                    to[i] = from_compute<T>(e[3 * stride + p] * to_compute(k.dy[p]) +
                                            e[4 * stride + p] * to_compute(k.v[p]) +
                                            e[5 * stride + p] * h + e[6 * stride + p]);
                  }
                });
}

#define GANOPS_NORM_LOOPS(T)                                                                   \
  GANOPS_CLONES                                                                                \
  void cell_sums(const NormSpan<T>& k, double* out) { sum_loop<false, false>(k, out); }        \
  GANOPS_CLONES                                                                                \
  void row_sums(const NormSpan<T>& k, double* out) {                                           \
    if (k.a != nullptr) {                                                                      \
      sum_loop<true, true>(k, out);                                                            \
    } else {                                                                                   \
      sum_loop<true, false>(k, out);                                                           \
    }                                                                                          \
  }                                                                                            \
  GANOPS_CLONES                                                                                \
  void write_cell(const NormSpan<T>& k, const NormCell<compute_t<T>>& e) { cell_loop(k, e); }  \
  GANOPS_CLONES                                                                                \
  void write_row(const NormSpan<T>& k, const NormRow<compute_t<T>>& e, compute_t<T>* dw) {     \
    if (k.a != nullptr && dw != nullptr) {                                                     \
      row_loop<true, true>(k, e, dw);                                                          \
    } else if (k.a != nullptr) {                                                               \
      row_loop<true, false>(k, e, dw);                                                         \
    } else if (dw != nullptr) {                                                                \
      row_loop<false, true>(k, e, dw);                                                         \
    } else {                                                                                   \
      row_loop<false, false>(k, e, dw);                                                        \
    }                                                                                          \
  }                                                                                            \
  GANOPS_CLONES                                                                                \
  void column_sums(const NormSpan<T>& k, ColumnStats<compute_t<T>> s, compute_t<T>* sums,      \
                   int64_t stride) {                                                           \
    column_sum_loop(k, s, sums, stride);                                                       \
  }                                                                                            \
  GANOPS_CLONES                                                                                \
  void write_columns(const NormSpan<T>& k, ColumnStats<compute_t<T>> s, const compute_t<T>* e, \
                     int64_t stride) {                                                         \
    column_loop(k, s, e, stride);                                                              \
  }

GANOPS_NORM_LOOPS(float)
GANOPS_NORM_LOOPS(double)
GANOPS_NORM_LOOPS(BFloat16)
GANOPS_NORM_LOOPS(Half)
#undef GANOPS_NORM_LOOPS

}  // namespace
}  // namespace ganops
