// The gradient penalty's reduction on the CPU. Each order reads its operands once per sum it
// needs and writes each result once; sums run over fixed pieces of a row, so they do not depend
// on the number of threads.
#include <cmath>

#include "../common/results.h"
#include "../common/stream_store.h"
#include "gradient_penalty_layout.h"

namespace ganops {
namespace {

constexpr int64_t kPiece = 8 * kBlock;  // elements summed by one thread at a time

#define GANOPS_PENALTY_BLOCKS(T)                                                               \
  /* <a, b> over n elements: float lanes within a block, double across blocks */               \
  GANOPS_CLONES                                                                                \
  double penalty_dot_block(const T* GANOPS_RESTRICT a, const T* b, int64_t n) {                \
    double sum = 0;                                                                            \
    for (int64_t start = 0; start < n; start += kBlock) {                                      \
      const int64_t stop = std::min(start + kBlock, n);                                        \
      compute_t<T> lanes[64] = {};                                                             \
      int64_t i = start;                                                                       \
      for (; i + 64 <= stop; i += 64) {                                                        \
        for (int j = 0; j < 64; ++j) lanes[j] += to_compute(a[i + j]) * to_compute(b[i + j]);  \
      }                                                                                        \
      for (int j = 0; j < 64; ++j) sum += lanes[j];                                            \
      for (; i < stop; ++i) sum += double(to_compute(a[i])) * double(to_compute(b[i]));        \
    }                                                                                          \
    return sum;                                                                                \
  }                                                                                            \
  /* <p a, q b>, for small numbers: all in double, which holds the scaled products */          \
  GANOPS_CLONES                                                                                \
  double penalty_scaled_dot(const T* a, const T* b, int64_t n, double p, double q) {           \
    double lanes[8] = {}, sum = 0;                                                             \
    int64_t i = 0;                                                                             \
    for (; i + 8 <= n; i += 8) {                                                               \
      for (int j = 0; j < 8; ++j) {                                                            \
        lanes[j] += p * double(to_compute(a[i + j])) * (q * double(to_compute(b[i + j])));     \
      }                                                                                        \
    }                                                                                          \
    for (; i < n; ++i) sum += p * double(to_compute(a[i])) * (q * double(to_compute(b[i])));   \
    for (int j = 0; j < 8; ++j) sum += lanes[j];                                               \
    return sum;                                                                                \
  }                                                                                            \
  /* out = s (kv v + kg s g) */                                                                \
  GANOPS_CLONES                                                                                \
  void penalty_combine_block(const T* v, const T* g, T* out, int64_t n, compute_t<T> kv,       \
                             compute_t<T> kg, compute_t<T> s, bool stream) {                   \
    store_results(out, n, stream,                                                              \
                  [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {        \
                    for (int64_t i = 0; i < count; ++i) {                                      \
                      const auto scaled = s * to_compute(g[at + i]);                           \
                      to[i] = from_compute<T>(s * (kv * to_compute(v[at + i]) + kg * scaled)); \
                    }                                                                          \
                  });                                                                          \
  }                                                                                            \
  /* out = k s g */                                                                            \
  GANOPS_CLONES                                                                                \
  void penalty_scale_block(const T* g, T* out, int64_t n, compute_t<T> k, compute_t<T> s,      \
                           bool stream) {                                                      \
    store_results(out, n, stream,                                                              \
                  [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {        \
                    for (int64_t i = 0; i < count; ++i)                                        \
                      to[i] = from_compute<T>(k * (s * to_compute(g[at + i])));                \
                  });                                                                          \
  }

GANOPS_PENALTY_BLOCKS(float)
GANOPS_PENALTY_BLOCKS(double)
GANOPS_PENALTY_BLOCKS(BFloat16)
GANOPS_PENALTY_BLOCKS(Half)

// <a, s b> of piece u of the tensor; pieces are numbered row by row.
template <class T>
double piece_dot(Rows r, int64_t u, const T* a, const T* b, double s = 1) {
  const int64_t pieces = ceil_div(r.row, kPiece);
  const int64_t in_row = u % pieces * kPiece, start = u / pieces * r.row + in_row;
  const int64_t n = std::min(kPiece, r.row - in_row);
  if (s != 1) return penalty_scaled_dot(a + start, b + start, n, 1, s);
  return penalty_dot_block(a + start, b + start, n);
}

// Row-wise dot products <a, s b>, accumulated in double; s(row) is the scale of a row of b.
template <class T, class S>
std::vector<double> row_dots(Rows r, const T* a, const T* b, const S& s) {
  const int64_t pieces = ceil_div(r.row, kPiece);
  std::vector<double> partial(r.samples * pieces);
  parallel_units(r.samples * pieces, std::min(r.row, kPiece), [&](int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) partial[u] = piece_dot(r, u, a, b, s(u / pieces));
  });
  std::vector<double> dots(r.samples, 0.0);
  for (int64_t u = 0; u < r.samples * pieces; ++u) dots[u / pieces] += partial[u];
  return dots;
}

// The norm of row g from the sum of its squares; a small one is summed anew, scaled.
template <class T>
compute_t<T> row_norm(Rows r, const T* g, double squares) {
  using Small = SmallNorm<compute_t<T>>;
  double n = std::sqrt(squares);
  if (n < Small::below) {
    n = std::sqrt(penalty_scaled_dot(g, g, r.row, Small::scale, Small::scale)) / Small::scale;
  }
  return compute_t<T>(n);
}

// Calls f(row, offset, n, stream) for pieces that tile the tensor; f writes them.
template <class T, class F>
void for_pieces(Rows r, const F& f) {
  const bool stream = r.samples * r.row * int64_t(sizeof(T)) >= kStreamBytes;
  const int64_t pieces = ceil_div(r.row, kPiece);
  parallel_units(r.samples * pieces, std::min(r.row, kPiece), [&](int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) {
      const int64_t b = u / pieces, in_row = u % pieces * kPiece;
      f(b, b * r.row + in_row, std::min(kPiece, r.row - in_row), stream);
    }
    if (stream) stream_fence();
  });
}

std::tuple<Tensor, Tensor> gradient_penalty_cpu(Tensor grad, double center, bool one_sided) {
  grad = dense_rows(grad);
  const Rows r = rows_of(grad);
  const auto out_dtype = std::make_optional(reduced_dtype(grad.scalar_type()));
  Tensor value = torch::stable::new_empty(grad, {}, out_dtype);
  Tensor norms = torch::stable::new_empty(grad, {r.samples}, out_dtype);
  dispatch_floating(grad.scalar_type(), "gradient_penalty", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const T* g = data<T>(grad);
    const std::vector<double> squares = row_dots<T>(r, g, g, [](int64_t) { return 1.0; });
    C* n = mutable_data<C>(norms);
    double sum = 0;
    for (int64_t b = 0; b < r.samples; ++b) {
      n[b] = row_norm(r, g + b * r.row, squares[b]);
      sum += penalty_value<double>(n[b], center, one_sided);
    }
    *mutable_data<C>(value) = C(sum / double(r.samples));
  });
  return {value, norms};
}

Tensor gradient_penalty_grad_cpu(Tensor go, Tensor grad, Tensor norms, double center,
                                 bool one_sided) {
  grad = dense_rows(grad);
  check_scalar(go, grad);
  check_norms(norms, grad);
  const Rows r = rows_of(grad);
  Tensor out = result_like(grad);
  dispatch_floating(grad.scalar_type(), "gradient_penalty", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const T* g = data<T>(grad);
    const C* n = data<C>(norms);
    const double scale = double(*data<C>(go)) / double(r.samples);
    T* result = mutable_data<T>(out);
    for_pieces<T>(r, [&](int64_t b, int64_t i, int64_t count, bool stream) {
      const C s = penalty_scale<C>(n[b], center);
      const double k = scale * penalty_k1<double>(n[b], s * n[b], center, one_sided);
      penalty_scale_block(g + i, result + i, count, C(k), s, stream);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> gradient_penalty_fused_cpu(Tensor grad, double center, bool one_sided,
                                                      double scale) {
  grad = dense_rows(grad);
  const Rows r = rows_of(grad);
  Tensor value =
      torch::stable::new_empty(grad, {}, std::make_optional(reduced_dtype(grad.scalar_type())));
  Tensor dgrad = result_like(grad);
  dispatch_floating(grad.scalar_type(), "gradient_penalty", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const T* g = data<T>(grad);
    T* out = mutable_data<T>(dgrad);
    const bool stream = r.samples * r.row * int64_t(sizeof(T)) >= kStreamBytes;
    const int64_t pieces = ceil_div(r.row, kPiece);
    std::vector<double> values(r.samples);
    // A thread takes whole samples: the second read of one finds it in cache.
    parallel_units(r.samples, r.row, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        double squares = 0;
        for (int64_t k = 0; k < pieces; ++k) squares += piece_dot(r, b * pieces + k, g, g);
        const C n = row_norm(r, g + b * r.row, squares);  // rounded as gradient_penalty rounds it
        const C s = penalty_scale<C>(n, center);
        values[b] = penalty_value<double>(n, center, one_sided);
        const double k1 = penalty_k1<double>(n, s * n, center, one_sided);
        penalty_scale_block(g + b * r.row, out + b * r.row, r.row,
                            C(scale / double(r.samples) * k1), s, stream);
      }
      if (stream) stream_fence();
    });
    double sum = 0;
    for (const double v : values) sum += v;
    *mutable_data<C>(value) = C(sum / double(r.samples));
  });
  return {value, dgrad};
}

std::tuple<Tensor, Tensor> gradient_penalty_grad2_cpu(Tensor v, Tensor go, Tensor grad,
                                                      Tensor norms, double center, bool one_sided) {
  check_same(grad, v, "grad", "v");
  grad = dense_rows(grad);
  v = in_layout_of(v, grad);
  check_scalar(go, grad);
  check_norms(norms, grad);
  const Rows r = rows_of(grad);
  Tensor d_go = torch::stable::empty_like(go);
  Tensor d_grad = result_like(grad);
  dispatch_floating(grad.scalar_type(), "gradient_penalty", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const T *g = data<T>(grad), *pv = data<T>(v);
    const C* n = data<C>(norms);
    const auto scale_of = [&](int64_t b) { return penalty_scale<C>(n[b], center); };
    const std::vector<double> dots = row_dots<T>(r, pv, g, scale_of);
    const double scale = double(*data<C>(go)) / double(r.samples);
    double sum = 0;
    for (int64_t b = 0; b < r.samples; ++b) {
      sum += penalty_k1<double>(n[b], scale_of(b) * n[b], center, one_sided) * dots[b];
    }
    *mutable_data<C>(d_go) = C(sum / double(r.samples));
    T* result = mutable_data<T>(d_grad);
    for_pieces<T>(r, [&](int64_t b, int64_t i, int64_t count, bool stream) {
      const C s = scale_of(b);
      const double k1 = penalty_k1<double>(n[b], s * n[b], center, one_sided);
      const double k2 = penalty_k2<double>(n[b], s * n[b], dots[b], center, one_sided);
      penalty_combine_block(pv + i, g + i, result + i, count, C(scale * k1), C(scale * k2), s,
                            stream);
    });
  });
  return {d_go, d_grad};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("gradient_penalty", TORCH_BOX(&gradient_penalty_cpu));
  m.impl("gradient_penalty.kernel", TORCH_BOX(&gradient_penalty_cpu));
  m.impl("gradient_penalty_grad", TORCH_BOX(&gradient_penalty_grad_cpu));
  m.impl("gradient_penalty_grad.kernel", TORCH_BOX(&gradient_penalty_grad_cpu));
  m.impl("gradient_penalty_fused", TORCH_BOX(&gradient_penalty_fused_cpu));
  m.impl("gradient_penalty_fused.kernel", TORCH_BOX(&gradient_penalty_fused_cpu));
  m.impl("gradient_penalty_grad2", TORCH_BOX(&gradient_penalty_grad2_cpu));
  m.impl("gradient_penalty_grad2.kernel", TORCH_BOX(&gradient_penalty_grad2_cpu));
}
