// Half types to float and back, a block at a time.
#pragma once

#include <cstdint>

#include "numeric.h"

namespace ganops {

#define GANOPS_WIDEN(T)                                                                           \
  GANOPS_CLONES                                                                                   \
  inline void widen_block(const T* GANOPS_RESTRICT from, float* GANOPS_RESTRICT to, int64_t n) {  \
    for (int64_t i = 0; i < n; ++i) to[i] = to_compute(from[i]);                                  \
  }                                                                                               \
  GANOPS_CLONES                                                                                   \
  inline void narrow_block(const float* GANOPS_RESTRICT from, T* GANOPS_RESTRICT to, int64_t n) { \
    for (int64_t i = 0; i < n; ++i) to[i] = from_compute<T>(from[i]);                             \
  }
namespace {
GANOPS_WIDEN(BFloat16)
GANOPS_WIDEN(Half)
}  // namespace
#undef GANOPS_WIDEN

}  // namespace ganops
