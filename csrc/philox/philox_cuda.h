// Launcher of philox_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

// Elements offset ... offset + n - 1; kind 0: int64 words, 1: uniforms, 2: normals (float).
int philox_launch(int64_t n, uint64_t seed, uint64_t stream, int64_t offset, int kind, void* out,
                  CudaStream cuda_stream);

}  // namespace ganops
