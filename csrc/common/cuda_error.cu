// The text of a CUDA error, for host code that includes no CUDA header.
#include <cuda_runtime.h>

namespace ganops {
const char* cuda_error_string(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
}  // namespace ganops
