// How the second derivative of a norm sees its tensors: contiguous (a, b, c), and statistics that
// belong to rows made of cells (norm_math.h).
//
//   rows      (.., .., n): a row is contiguous, weights differ from number to number:
//             number i of row p has weight (p n + i) % weights
//   segments  (B, C, n): a cell is contiguous; a row is the next so many cells (group norm)
//   batch     (B, C, n): likewise, a row is one channel of all samples (batch norm)
//   columns   (O, n, C): a cell is a column; a row is the next so many columns
//
// The weight of cell i is i % weights.
#pragma once

#include "../common/tensors.h"
#include "norm_math.h"

namespace ganops {

enum class NormKind : int { rows, segments, batch, columns, count };

struct NormLayout {
  NormKind kind;
  bool centered;
  int64_t outer, inner;   // columns: O and C
  int64_t cells, n;       // n: numbers in a cell
  int64_t rows, members;  // members: cells in a row
  int64_t weights;        // 0 without any
  int64_t numel() const { return cells * n; }
  int64_t cell(int64_t row, int64_t j) const {
    return kind == NormKind::batch ? row + j * rows : row * members + j;
  }
};

inline void check_vector(const std::optional<Tensor>& t, int64_t n, ScalarType dtype,
                         const char* name) {
  STD_TORCH_CHECK(
      !t.has_value() || (t->numel() == n && t->is_contiguous() && t->scalar_type() == dtype),
      "norm: expected ", name, " as ", n, " contiguous numbers of the computing dtype");
}

inline NormLayout norm_layout(const Tensor& x, const std::optional<Tensor>& mean,
                              const Tensor& rstd, const std::optional<Tensor>& w,
                              const std::optional<Tensor>& v_w, const std::optional<Tensor>& v_b,
                              int64_t weights, int64_t kind) {
  STD_TORCH_CHECK(kind >= 0 && kind < int64_t(NormKind::count), "norm: no layout ", kind);
  STD_TORCH_CHECK(x.dim() == 3, "norm: expected three dims, got ", x.dim());
  NormLayout k{};
  k.kind = NormKind(kind);
  k.centered = mean.has_value();
  k.outer = x.size(0);
  const bool columns = k.kind == NormKind::columns;
  k.inner = columns ? x.size(2) : x.size(1);
  k.n = columns ? x.size(1) : x.size(2);
  k.cells = k.outer * k.inner;
  k.rows = rstd.numel();
  k.weights = weights;
  if (x.numel() == 0) return k;
  STD_TORCH_CHECK(k.rows > 0 && k.cells % k.rows == 0, "norm: ", k.rows,
                  " statistics do not divide ", k.cells, " cells");
  k.members = k.cells / k.rows;
  STD_TORCH_CHECK(k.kind != NormKind::rows || k.members == 1, "norm: expected one rstd per row");
  STD_TORCH_CHECK(k.kind != NormKind::batch || k.rows == k.inner,
                  "norm: expected one rstd per channel");
  const ScalarType dtype = reduced_dtype(x.scalar_type());
  check_vector(mean, k.rows, dtype, "mean");
  check_vector(rstd, k.rows, dtype, "rstd");
  check_vector(w, weights, dtype, "w");
  check_vector(v_w, weights, dtype, "v_w");
  check_vector(v_b, weights, dtype, "v_b");
  const int64_t period = k.kind == NormKind::rows ? k.numel() : k.cells;
  STD_TORCH_CHECK(weights == 0 || period % weights == 0, "norm: ", weights,
                  " weights do not divide the layout");
  STD_TORCH_CHECK(weights == 0 || k.kind != NormKind::rows || weights % k.n == 0,
                  "norm: expected whole rows of weights");
  return k;
}

inline Tensor contiguous3(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

}  // namespace ganops
