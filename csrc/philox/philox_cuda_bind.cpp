// Tensors in, launches out: Philox streams on a CUDA device.
#include "../common/cuda_tensors.h"
#include "philox_cuda.h"

namespace ganops {
namespace {

Tensor philox_cuda(Tensor like, int64_t n, int64_t seed, int64_t offset, int64_t stream,
                   int64_t kind) {
  STD_TORCH_CHECK(n >= 0 && offset >= 0 && kind >= 0 && kind <= 2, "philox: bad arguments");
  const OnDeviceOf device(like);
  Tensor out = torch::stable::new_empty(
      like, {n}, std::make_optional(kind == 0 ? ScalarType::Long : ScalarType::Float));
  const int error = philox_launch(n, uint64_t(seed), uint64_t(stream), offset, int(kind),
                                  out.mutable_data_ptr(), device.stream());
  check_launch(error, "philox");
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  m.impl("philox", TORCH_BOX(&ganops::philox_cuda));
  m.impl("philox.kernel", TORCH_BOX(&ganops::philox_cuda));
}
