// The consistency loss on the CPU: one pass over memory for the sums and one for the slope. Sums
// run over fixed pieces of a row, so they do not depend on the number of threads.
#include "../common/results.h"
#include "../common/stream_store.h"
#include "consistency_layout.h"

namespace ganops {
namespace {

constexpr int64_t kPiece = 8 * kBlock;  // pairs summed by one thread at a time

// <a - b, c - d> over n pairs: lanes within a block, double across blocks.
template <bool Square, class T>
GANOPS_INLINE double sum_loop(const T* a, const T* b, const T* c, const T* d, int64_t n) {
  const auto term = [=](int64_t i) GANOPS_LAMBDA {
    const auto p = to_compute(a[i]), q = to_compute(b[i]);
    if constexpr (Square) return consistency_term(p, q, p, q);
    return consistency_term(p, q, to_compute(c[i]), to_compute(d[i]));
  };
  double sum = 0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t stop = std::min(start + kBlock, n);
    compute_t<T> lanes[64] = {};
    int64_t i = start;
    for (; i + 64 <= stop; i += 64) {
      for (int j = 0; j < 64; ++j) lanes[j] += term(i + j);
    }
    for (int j = 0; j < 64; ++j) sum += lanes[j];
    for (; i < stop; ++i) sum += term(i);
  }
  return sum;
}

// Compiled once per instruction set.
#define GANOPS_CONSISTENCY_BLOCKS(T)                                                          \
  GANOPS_CLONES                                                                               \
  double consistency_square(const T* a, const T* b, int64_t n) {                              \
    return sum_loop<true>(a, b, a, b, n);                                                     \
  }                                                                                           \
  GANOPS_CLONES                                                                               \
  double consistency_dot(const T* a, const T* b, const T* c, const T* d, int64_t n) {         \
    return sum_loop<false>(a, b, c, d, n);                                                    \
  }                                                                                           \
  GANOPS_CLONES                                                                               \
  void consistency_slopes(const T* mine, const T* other, T* out, int64_t n, compute_t<T> k,   \
                          bool stream) {                                                      \
    store_results(                                                                            \
        out, n, stream, [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA { \
          for (int64_t i = 0; i < count; ++i) {                                               \
            to[i] = from_compute<T>(                                                          \
                consistency_slope(k, to_compute(mine[at + i]), to_compute(other[at + i])));   \
          }                                                                                   \
        });                                                                                   \
  }

GANOPS_CONSISTENCY_BLOCKS(float)
GANOPS_CONSISTENCY_BLOCKS(double)
GANOPS_CONSISTENCY_BLOCKS(BFloat16)
GANOPS_CONSISTENCY_BLOCKS(Half)

// Calls f(unit, sample, offset, n) for pieces that tile a half, row by row.
template <class F>
void for_pieces(Halves h, const F& f) {
  const int64_t pieces = ceil_div(h.row, kPiece);
  parallel_units(h.samples * pieces, 2 * std::min(h.row, kPiece), [&](int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) {
      const int64_t sample = u / pieces, in_row = u % pieces * kPiece;
      f(u, sample, sample * h.row + in_row, std::min(kPiece, h.row - in_row));
    }
    stream_fence();
  });
}

Tensor consistency_cpu(Tensor x, std::optional<Tensor> y, double scale, bool per_sample) {
  if (y.has_value()) check_same(x, *y, "x", "y");
  x = paired(x);
  if (y.has_value()) y = in_layout_of(*y, x);
  const Halves h = halves_of(x, per_sample);
  Tensor out = torch::stable::new_empty(x, sums_shape(h, per_sample),
                                        std::make_optional(reduced_dtype(x.scalar_type())));
  dispatch_floating(x.scalar_type(), "consistency", [&](auto t) {
    using T = decltype(t);
    const T *a = data<T>(x), *b = a + h.size(), *c = y.has_value() ? data<T>(*y) : nullptr;
    const int64_t pieces = ceil_div(h.row, kPiece);
    std::vector<double> partial(h.samples * pieces);
    for_pieces(h, [&](int64_t u, int64_t, int64_t i, int64_t n) {
      partial[u] = c == nullptr ? consistency_square(a + i, b + i, n)
                                : consistency_dot(a + i, b + i, c + i, c + h.size() + i, n);
    });
    auto* sums = mutable_data<compute_t<T>>(out);
    for (int64_t s = 0; s < h.samples; ++s) {
      double sum = 0;
      for (int64_t p = 0; p < pieces; ++p) sum += partial[s * pieces + p];
      sums[s] = compute_t<T>(scale * sum);
    }
  });
  return out;
}

Tensor consistency_grad_cpu(Tensor s, Tensor x, double scale) {
  x = paired(x);
  s = factors(s, x);
  const Halves h = halves_of(x, s.dim() == 1);
  Tensor out = result_like(x);
  dispatch_floating(x.scalar_type(), "consistency", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const T *a = data<T>(x), *b = a + h.size();
    const C* factor = data<C>(s);
    T *da = mutable_data<T>(out), *db = da + h.size();
    const bool stream = 2 * h.size() * int64_t(sizeof(T)) >= kStreamBytes;
    for_pieces(h, [&](int64_t, int64_t sample, int64_t i, int64_t n) {
      const C k = C(scale * double(factor[sample]));
      // The second pass over a block finds it in L1.
      for (int64_t end = i + n; i < end; i += kBlock) {
        const int64_t count = std::min(kBlock, end - i);
        consistency_slopes(a + i, b + i, da + i, count, k, stream);
        consistency_slopes(b + i, a + i, db + i, count, k, stream);
      }
    });
  });
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("consistency", TORCH_BOX(&consistency_cpu));
  m.impl("consistency.kernel", TORCH_BOX(&consistency_cpu));
  m.impl("consistency_grad", TORCH_BOX(&consistency_grad_cpu));
  m.impl("consistency_grad.kernel", TORCH_BOX(&consistency_grad_cpu));
}
