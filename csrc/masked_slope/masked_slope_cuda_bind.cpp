// Tensors in, launches out: masked_slope for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "masked_slope_cuda.h"
#include "masked_slope_layout.h"

namespace ganops {
namespace {

std::tuple<Tensor, Tensor> value_cuda(Tensor x, int64_t act, double a, double b) {
  check_piece(act);
  const OnDeviceOf device(x);
  x = dense(x);
  Tensor y = torch::stable::empty_like(x), mask = mask_like(x);
  const MaskedLaunch l{dtype_code(x), x.numel(), device.stream()};
  check_launch(masked_slope_value_launch(l, Piece(act), a, b, raw(x), y.mutable_data_ptr(),
                                         mask.mutable_data_ptr()),
               "masked_slope_value");
  return {y, mask};
}

Tensor masked_slope_cuda(Tensor g, Tensor mask, double outside) {
  check_mask(g, mask);
  const OnDeviceOf device(g);
  mask = dense(mask);
  g = in_order_of(g, mask);
  Tensor out = torch::stable::empty_like(g);
  const MaskedLaunch l{dtype_code(g), g.numel(), device.stream()};
  check_launch(masked_slope_launch(l, outside, raw(g), raw(mask), out.mutable_data_ptr()),
               "masked_slope");
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("masked_slope", TORCH_BOX(&masked_slope_cuda));
  m.impl("masked_slope.kernel", TORCH_BOX(&masked_slope_cuda));
  m.impl("masked_slope_value", TORCH_BOX(&value_cuda));
  m.impl("masked_slope_value.kernel", TORCH_BOX(&value_cuda));
}
