// What host code and CUDA files share: dtype codes and the stream, as plain types.
#pragma once

#include <cstdint>

#include "numeric.h"

namespace ganops {

enum class DType : int { f32, f64, bf16, f16 };

// A cudaStream_t without its header. Launchers return a cudaError_t as int.
using CudaStream = void*;

constexpr int kThreads = 256;

inline bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

// Calls f(T{}) with the C++ type of a dtype code.
template <class F>
int dispatch_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(BFloat16{});
    default:
      return f(Half{});
  }
}

}  // namespace ganops
