// What the kernels ask of a stable-ABI tensor: layout, dtype, scratch.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "numeric.h"

namespace ganops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Does the memory of dims [first, rank) form one gapless block, in any order of the dims?
inline bool is_dense(const Tensor& t, int64_t first = 0) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // (stride, size)
  for (int64_t d = first; d < t.dim(); ++d) {
    if (t.size(d) == 0) return true;
    if (t.size(d) > 1) dims.emplace_back(t.stride(d), t.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// Is every sample (dim 0) one gapless block, samples one after the other?
inline bool has_dense_rows(const Tensor& t) {
  const int64_t row = t.numel() / std::max<int64_t>(t.size(0), 1);
  return is_dense(t, 1) && (t.size(0) <= 1 || t.stride(0) == row);
}

inline Tensor dense(const Tensor& t) { return is_dense(t) ? t : torch::stable::contiguous(t); }

inline bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// t with the memory order of `like` (same shape): itself where it has it, else a copy.
inline Tensor in_layout_of(const Tensor& t, const Tensor& like) {
  if (same_strides(t, like)) return t;
  Tensor copy = torch::stable::empty_like(like);
  return torch::stable::copy_(copy, t);
}

inline void check_same(const Tensor& a, const Tensor& b, const char* name_a, const char* name_b) {
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type() && a.dim() == b.dim(), name_b,
                  " must have the dtype and rank of ", name_a);
  for (int64_t d = 0; d < a.dim(); ++d) {
    STD_TORCH_CHECK(a.size(d) == b.size(d), name_b, " must have the shape of ", name_a,
                    ", differs in dim ", d, ": expected ", a.size(d), ", got ", b.size(d));
  }
}

// Half types are computed in float; what is reduced from them is returned in float.
inline ScalarType reduced_dtype(ScalarType t) {
  return t == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Calls f(T{}) with the C++ type of a floating dtype.
template <class F>
void dispatch_floating(ScalarType dtype, const char* op, const F& f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(BFloat16{});
    case ScalarType::Half:
      return f(Half{});
    default:
      STD_TORCH_CHECK(false, op, ": expected float64, float32, bfloat16 or float16");
  }
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Runs f(begin, end) over units of about `cost` elements each, on torch's own threads.
template <class F>
void parallel_units(int64_t units, int64_t cost, const F& f) {
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(cost, 1));
  if (units > 0) torch::stable::parallel_for(0, units, grain, f);
}

}  // namespace ganops
