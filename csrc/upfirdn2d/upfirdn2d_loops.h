// Loops of upfirdn2d_cpu.cpp, compiled once per instruction set.
//
// Both passes of a separable filter, and a filter that is not, are one primitive: a weighted sum of
// rows. A tap along the row is a row too, the same one further on.
#pragma once

#include <utility>

#include "../common/numeric.h"

namespace ganops {
namespace {

constexpr int64_t kTerms = 12;  // added at a time; more are added on

// Rows and their weights.
template <class C>
struct Terms {
  const C* const* rows;
  const C* weights;
  int64_t count;
};

template <class F>
GANOPS_INLINE void with_terms(int64_t count, const F& f) {
#define GANOPS_TERMS(N)                          \
  case N:                                        \
    f(std::make_integer_sequence<int64_t, N>{}); \
    break;
  switch (count) {
    GANOPS_TERMS(1)
    GANOPS_TERMS(2)
    GANOPS_TERMS(3)
    GANOPS_TERMS(4)
    GANOPS_TERMS(5)
    GANOPS_TERMS(6)
    GANOPS_TERMS(7)
    GANOPS_TERMS(8)
    GANOPS_TERMS(9)
    GANOPS_TERMS(10)
    GANOPS_TERMS(11)
    GANOPS_TERMS(12)
    default:
      break;
  }
#undef GANOPS_TERMS
}

template <bool kMore, class C, int64_t... J>
GANOPS_INLINE void sum_of(std::integer_sequence<int64_t, J...>, Terms<C> k, C* GANOPS_RESTRICT to,
                          int64_t n) {
  const C* const rows[] = {k.rows[J]...};
  const C weights[] = {k.weights[J]...};
  for (int64_t i = 0; i < n; ++i) {
    const C sum = (... + (weights[J] * rows[J][i]));
    to[i] = kMore ? to[i] + sum : sum;
  }
}

template <class C>
GANOPS_INLINE void weighted_sum(Terms<C> k, C* to, int64_t n) {
  with_terms(k.count < kTerms ? k.count : kTerms,
             [&](auto j) GANOPS_LAMBDA { sum_of<false>(j, k, to, n); });
  for (int64_t done = kTerms; done < k.count; done += kTerms) {
    const Terms<C> rest{k.rows + done, k.weights + done, k.count - done};
    with_terms(rest.count < kTerms ? rest.count : kTerms,
               [&](auto j) GANOPS_LAMBDA { sum_of<true>(j, rest, to, n); });
  }
}

// Two phases with as many terms each, interleaved as they are computed: the first n numbers of
// even[0], odd[0], even[1], ...
template <class C, int64_t... J>
GANOPS_INLINE void pairs_of(std::integer_sequence<int64_t, J...>, Terms<C> even, Terms<C> odd,
                            C* GANOPS_RESTRICT to, int64_t n) {
  const C* const a[] = {even.rows[J]...};
  const C* const b[] = {odd.rows[J]...};
  const C v[] = {even.weights[J]...};
  const C w[] = {odd.weights[J]...};
  for (int64_t i = 0; i < n / 2; ++i) {
    to[2 * i] = (... + (v[J] * a[J][i]));
    to[2 * i + 1] = (... + (w[J] * b[J][i]));
  }
  if (n % 2 == 1) to[n - 1] = (... + (v[J] * a[J][n / 2]));
}

// The three steps of a row. `split`: pixel m step + q of `from` becomes pixel m of row q. `join`
// is the reverse for phases.
#define GANOPS_UPFIRDN_LOOPS(C)                                                                  \
  GANOPS_CLONES                                                                                  \
  void sum_rows(Terms<C> k, C* to, int64_t n) { weighted_sum(k, to, n); }                        \
  GANOPS_CLONES                                                                                  \
  void sum_pairs(Terms<C> even, Terms<C> odd, C* to, int64_t n) {                                \
    with_terms(even.count, [&](auto j) GANOPS_LAMBDA { pairs_of(j, even, odd, to, n); });        \
  }                                                                                              \
  GANOPS_CLONES                                                                                  \
  void split(const C* GANOPS_RESTRICT from, C* GANOPS_RESTRICT to, int64_t pixels, int64_t step, \
             int64_t unit) {                                                                     \
    if (step == 2 && unit == 1) {                                                                \
      C* GANOPS_RESTRICT odd = to + pixels;                                                      \
      for (int64_t m = 0; m < pixels; ++m) {                                                     \
        to[m] = from[2 * m];                                                                     \
        odd[m] = from[2 * m + 1];                                                                \
      }                                                                                          \
      return;                                                                                    \
    }                                                                                            \
    for (int64_t q = 0; q < step; ++q) {                                                         \
      for (int64_t m = 0; m < pixels; ++m) {                                                     \
        for (int64_t c = 0; c < unit; ++c) {                                                     \
          to[(q * pixels + m) * unit + c] = from[(m * step + q) * unit + c];                     \
        }                                                                                        \
      }                                                                                          \
    }                                                                                            \
  }                                                                                              \
  GANOPS_CLONES                                                                                  \
  void join(const C* GANOPS_RESTRICT from, C* GANOPS_RESTRICT to, int64_t pixels, int64_t count, \
            int64_t phases, int64_t unit) {                                                      \
    for (int64_t p = 0; p < phases; ++p) {                                                       \
      for (int64_t m = 0; m * phases + p < count; ++m) {                                         \
        for (int64_t c = 0; c < unit; ++c) {                                                     \
          to[(m * phases + p) * unit + c] = from[(p * pixels + m) * unit + c];                   \
        }                                                                                        \
      }                                                                                          \
    }                                                                                            \
  }

GANOPS_UPFIRDN_LOOPS(float)
GANOPS_UPFIRDN_LOOPS(double)

}  // namespace
}  // namespace ganops
