// How weights are seen: contiguous (outer, rows, inner), where `dim` counts rows and a column is a
// pair of outer and inner. Lists of tensors are checked here, for both devices.
#pragma once

#include <string>

#include "../common/tensors.h"

namespace ganops {

struct Matrix {
  int64_t outer, rows, inner;
  int64_t columns() const { return outer * inner; }
  int64_t numel() const { return outer * rows * inner; }
};

inline Matrix matrix_of(const Tensor& w, int64_t dim) {
  const int64_t at = dim < 0 ? dim + w.dim() : dim;
  STD_TORCH_CHECK(at >= 0 && at < w.dim(), "spectral_norm: no dimension ", dim, " in a weight of ",
                  w.dim());
  Matrix m{1, w.size(at), 1};
  for (int64_t d = 0; d < at; ++d) m.outer *= w.size(d);
  for (int64_t d = at + 1; d < w.dim(); ++d) m.inner *= w.size(d);
  if (m.rows == 0) m.inner = 0;  // no row has any columns
  return m;
}

using Tensors = std::vector<Tensor>;

// The vectors of a weight: as long as its rows and columns, in the type that is computed in.
inline Tensor vector_of(const Tensor& t, int64_t size, const Tensor& w, const char* name) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == size, "spectral_norm: ", name, " must have ", size,
                  " elements");
  STD_TORCH_CHECK(t.scalar_type() == reduced_dtype(w.scalar_type()), "spectral_norm: ", name,
                  " must be float64 for float64 weights, else float32");
  return torch::stable::contiguous(t);
}

inline void check_lists(const Tensors& ws, const Tensors& us, const Tensors& vs) {
  STD_TORCH_CHECK(!ws.empty() && ws.size() == us.size() && ws.size() == vs.size(),
                  "spectral_norm: expected lists of one length of at least 1, got ", ws.size(),
                  ", ", us.size(), " and ", vs.size());
  for (const Tensor& w : ws) {
    STD_TORCH_CHECK(w.scalar_type() == ws[0].scalar_type() && w.device() == ws[0].device(),
                    "spectral_norm: weights of one call must share dtype and device");
  }
}

inline void check_grads(const Tensors& gs, const Tensors& ys, const Tensor& sigmas) {
  STD_TORCH_CHECK(gs.size() == ys.size() && sigmas.numel() == int64_t(ys.size()) &&
                      sigmas.scalar_type() == reduced_dtype(ys[0].scalar_type()),
                  "spectral_norm: expected a gradient and a wide sigma for each of ", ys.size(),
                  " weights");
  for (size_t i = 0; i < gs.size(); ++i) check_same(ys[i], gs[i], "y", "g");
}

// A tensor to write in rows, and what to return for it: in the strides of `like`.
class Result {
 public:
  explicit Result(Tensor like)
      : result_(like), rows_(like.is_contiguous() ? like : torch::stable::contiguous(like)) {}
  void* rows() const { return rows_.mutable_data_ptr(); }
  Tensor finished() {
    return result_.is_contiguous() ? result_ : torch::stable::copy_(result_, rows_);
  }

 private:
  Tensor result_, rows_;
};

}  // namespace ganops
