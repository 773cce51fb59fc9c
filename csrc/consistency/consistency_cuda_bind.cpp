// Tensors in, launches out: the consistency loss for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "consistency_cuda.h"
#include "consistency_layout.h"

namespace ganops {
namespace {

ConsistencyLaunch launch_args(const Tensor& x, const Halves& h, double scale,
                              const OnDeviceOf& device) {
  // A block per piece of 2^13 pairs or per sample: a grid has 2^31 - 1.
  STD_TORCH_CHECK(h.samples < (int64_t(1) << 30) && h.size() < (int64_t(1) << 43),
                  "consistency: a batch of ", x.numel(), " numbers is too large for CUDA");
  return {dtype_code(x), h.samples, h.row, scale, device.stream()};
}

Tensor consistency_cuda(Tensor x, std::optional<Tensor> y, double scale, bool per_sample) {
  if (y.has_value()) check_same(x, *y, "x", "y");
  const OnDeviceOf device(x);
  x = paired(x);
  if (y.has_value()) y = in_layout_of(*y, x);
  const Halves h = halves_of(x, per_sample);
  const auto l = launch_args(x, h, scale, device);
  Tensor out = torch::stable::new_empty(x, sums_shape(h, per_sample),
                                        std::make_optional(reduced_dtype(x.scalar_type())));
  Tensor partial = torch::stable::new_empty(x, {consistency_partials(l)},
                                            std::make_optional(ScalarType::Double));
  const int error = consistency_sum_launch(l, raw(x), y.has_value() ? raw(*y) : raw(x),
                                           mutable_data<double>(partial), out.mutable_data_ptr());
  check_launch(error, "consistency");
  return out;
}

Tensor consistency_grad_cuda(Tensor s, Tensor x, double scale) {
  const OnDeviceOf device(x);
  x = paired(x);
  s = factors(s, x);
  const auto l = launch_args(x, halves_of(x, s.dim() == 1), scale, device);
  Tensor out = torch::stable::empty_like(x);
  check_launch(consistency_grad_launch(l, raw(s), raw(x), out.mutable_data_ptr()),
               "consistency_grad");
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("consistency", TORCH_BOX(&consistency_cuda));
  m.impl("consistency.kernel", TORCH_BOX(&consistency_cuda));
  m.impl("consistency_grad", TORCH_BOX(&consistency_grad_cuda));
  m.impl("consistency_grad.kernel", TORCH_BOX(&consistency_grad_cuda));
}
