// spectral_norm on the CPU: a step of the iteration reads W once, W / sigma reads it again, and the
// backward reads G and Y, and G again. Layers that one thread can keep in its cache are taken
// whole, so those second reads are of its own cache; larger ones are cut into fixed pieces of rows,
// so that results do not depend on the number of threads.
#include <cmath>

#include "../common/results.h"
#include "../common/widen.h"
#include "spectral_norm_layout.h"
#include "spectral_norm_loops.h"

namespace ganops {
namespace {

constexpr int64_t kPiece = int64_t(1) << 17;  // elements: half of a core's second cache in float
constexpr int64_t kLeastRows = 16;            // a piece's sum for W^T u is as long as a row

// Rows cut into equal pieces, by the matrix alone.
struct Pieces {
  int64_t count, rows;
  explicit Pieces(const Matrix& m) {
    const int64_t least = std::max(kLeastRows, kPiece / std::max<int64_t>(m.columns(), 1));
    count = std::max<int64_t>(m.rows / least, 1);
    rows = std::max<int64_t>(ceil_div(ceil_div(m.rows, count), kRows), 1) * kRows;
    count = std::max<int64_t>(ceil_div(m.rows, rows), 1);
  }
};

template <class T>
struct Layer {
  using C = compute_t<T>;
  Matrix m;
  const T* w;
  C *u, *v;  // read, and overwritten

  // s = W v, and with it the sums s_i w_i of every piece.
  void products(std::vector<C>& s, std::vector<C>& parts) const {
    const Pieces pieces(m);
    const int64_t n = m.columns();
    parallel_units(pieces.count, pieces.rows * n, [&](int64_t first, int64_t last) {
      std::vector<C> buffer(m.outer > 1 ? pieces.rows * m.inner : sizeof(T) == 2 ? kRows * n : 0);
      for (int64_t p = first; p < last; ++p) {
        C* t = parts.empty() ? nullptr : parts.data() + p * n;
        const int64_t start = p * pieces.rows, rows = std::min(pieces.rows, m.rows - start);
        if (m.outer > 1) {
          spectral_scattered(w + start * m.inner, v, s.data() + start, t, buffer.data(), m.outer,
                             m.rows * m.inner, rows, m.inner);
        } else {
          together(w + start * n, s.data() + start, t, rows, buffer);
        }
      }
    });
  }

  // Rows that lie one after another; half types are widened, a few at a time.
  void together(const T* from, C* s, C* t, int64_t rows, std::vector<C>& buffer) const {
    const int64_t n = m.columns();
    if constexpr (sizeof(T) == sizeof(C)) {
      spectral_rows(from, v, s, t, rows, n);
    } else {
      for (int64_t r = 0; r < rows; r += kRows) {
        const int64_t count = std::min<int64_t>(kRows, rows - r);
        widen_block(from + r * n, buffer.data(), count * n);
        spectral_rows(buffer.data(), v, s + r, t, count, n);
      }
    }
  }

  double iterated(int64_t steps, double eps) const {
    const int64_t count = Pieces(m).count, n = m.columns();
    std::vector<C> s(m.rows), parts;
    double sigma = 0;
    for (int64_t k = 0; k < steps; ++k) {
      parts.assign(count * n, C(0));
      products(s, parts);
      const double unit = spectral_unit(std::sqrt(spectral_square(s.data(), m.rows)), eps);
      spectral_times(s.data(), u, m.rows, C(unit));
      spectral_collect(parts.data(), count, n, C(unit));
      const double square = spectral_square(parts.data(), n);
      const double other = spectral_unit(std::sqrt(square), eps);
      spectral_times(parts.data(), v, n, C(other));
      sigma = square * other;
    }
    if (steps > 0) return sigma;
    products(s, parts);
    for (int64_t r = 0; r < m.rows; ++r) sigma += double(u[r]) * double(s[r]);
    return sigma;
  }
};

// Calls f(i) for every layer: small ones shared among the threads, large ones one after another.
template <class F>
void for_layers(const std::vector<Matrix>& layers, const F& f) {
  std::vector<int64_t> small;
  int64_t numbers = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (Pieces(layers[i]).count == 1) {
      small.push_back(int64_t(i));
      numbers += layers[i].numel();
    } else {
      f(int64_t(i));
    }
  }
  const int64_t count = int64_t(small.size());
  parallel_units(count, numbers / std::max<int64_t>(count, 1), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) f(small[i]);
  });
}

Tensor copy_of(const Tensor& t) { return torch::stable::clone(t); }

std::tuple<Tensors, Tensors, Tensors, Tensor> spectral_norm_cpu(Tensors ws, Tensors us, Tensors vs,
                                                                int64_t steps, double eps,
                                                                int64_t dim) {
  check_lists(ws, us, vs);
  const int64_t count = int64_t(ws.size());
  const ScalarType dtype = ws[0].scalar_type();
  Tensor sigmas =
      torch::stable::new_empty(ws[0], {count}, std::make_optional(reduced_dtype(dtype)));
  Tensors ys;
  std::vector<Matrix> layers;
  std::vector<Result> results;
  for (int64_t i = 0; i < count; ++i) {
    const Matrix m = matrix_of(ws[i], dim);
    layers.push_back(m);
    results.emplace_back(result_like(ws[i]));
    ws[i] = torch::stable::contiguous(ws[i]);
    us[i] = copy_of(vector_of(us[i], m.rows, ws[i], "u"));
    vs[i] = copy_of(vector_of(vs[i], m.columns(), ws[i], "v"));
  }
  dispatch_floating(dtype, "spectral_norm", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    C* all = mutable_data<C>(sigmas);
    for_layers(layers, [&](int64_t i) {
      const Matrix m = layers[i];
      const Layer<T> layer{m, data<T>(ws[i]), mutable_data<C>(us[i]), mutable_data<C>(vs[i])};
      all[i] = C(layer.iterated(steps, eps));
      const C inverse = C(1) / all[i];
      T* y = static_cast<T*>(results[i].rows());
      const bool stream = m.numel() * int64_t(sizeof(T)) >= kStreamBytes;
      parallel_units(ceil_div(m.numel(), kPiece), kPiece, [&](int64_t first, int64_t last) {
        const int64_t start = first * kPiece, stop = std::min(last * kPiece, m.numel());
        spectral_scale(layer.w + start, y + start, stop - start, inverse, stream);
        if (stream) stream_fence();
      });
    });
  });
  for (Result& r : results) ys.push_back(r.finished());
  return {ys, us, vs, sigmas};
}

template <class T, class C = compute_t<T>>
void layer_grad(const Matrix& m, const T* g, const T* y, const C* u, const C* v, C sigma, T* out) {
  const int64_t n = m.numel(), pieces = ceil_div(n, kPiece);
  std::vector<double> partial(pieces);
  parallel_units(pieces, kPiece, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t start = p * kPiece;
      partial[p] = spectral_dot(g + start, y + start, std::min(kPiece, n - start));
    }
  });
  double dot = 0;
  for (const double part : partial) dot += part;
  const C inverse = C(1) / sigma, along = C(dot / double(sigma));
  const bool stream = m.numel() * int64_t(sizeof(T)) >= kStreamBytes;
  parallel_units(m.outer * m.rows, m.inner, [&](int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      spectral_segment(g + s * m.inner, v + s / m.rows * m.inner, out + s * m.inner, m.inner,
                       inverse, along * u[s % m.rows], stream);
    }
    if (stream) stream_fence();
  });
}

Tensors spectral_norm_grad_cpu(Tensors gs, Tensors ys, Tensors us, Tensors vs, Tensor sigmas,
                               int64_t dim) {
  check_lists(ys, us, vs);
  check_grads(gs, ys, sigmas);
  std::vector<Matrix> layers;
  std::vector<Result> results;
  for (size_t i = 0; i < ys.size(); ++i) {
    const Matrix m = matrix_of(ys[i], dim);
    layers.push_back(m);
    results.emplace_back(result_like(ys[i]));
    gs[i] = torch::stable::contiguous(gs[i]);
    ys[i] = torch::stable::contiguous(ys[i]);
    us[i] = vector_of(us[i], m.rows, ys[i], "u");
    vs[i] = vector_of(vs[i], m.columns(), ys[i], "v");
  }
  sigmas = torch::stable::contiguous(sigmas);
  dispatch_floating(ys[0].scalar_type(), "spectral_norm", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    for_layers(layers, [&](int64_t i) {
      layer_grad<T>(layers[i], data<T>(gs[i]), data<T>(ys[i]), data<C>(us[i]), data<C>(vs[i]),
                    data<C>(sigmas)[i], static_cast<T*>(results[i].rows()));
    });
  });
  Tensors out;
  for (Result& r : results) out.push_back(r.finished());
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("spectral_norm", TORCH_BOX(&spectral_norm_cpu));
  m.impl("spectral_norm.kernel", TORCH_BOX(&spectral_norm_cpu));
  m.impl("spectral_norm_grad", TORCH_BOX(&spectral_norm_grad_cpu));
  m.impl("spectral_norm_grad.kernel", TORCH_BOX(&spectral_norm_grad_cpu));
}
