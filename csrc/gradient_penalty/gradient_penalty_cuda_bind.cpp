// Tensors in, launches out: the penalty's reduction for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "gradient_penalty_cuda.h"
#include "gradient_penalty_layout.h"

namespace ganops {
namespace {

PenaltyLaunch launch_args(const Tensor& grad, double center, bool one_sided,
                          const OnDeviceOf& device) {
  const Rows r = rows_of(grad);
  STD_TORCH_CHECK(r.row < (int64_t(1) << 29), "gradient_penalty: a sample of ", r.row,
                  " elements is too large for the CUDA kernel");
  return {dtype_code(grad), r.samples, r.row, center, one_sided, device.stream()};
}

Tensor partials(const Tensor& grad, const PenaltyLaunch& a) {
  return torch::stable::new_empty(grad, {penalty_partials(a)},
                                  std::make_optional(ScalarType::Double));
}

std::tuple<Tensor, Tensor> gradient_penalty_cuda(Tensor grad, double center, bool one_sided) {
  const OnDeviceOf device(grad);
  grad = dense_rows(grad);
  const auto a = launch_args(grad, center, one_sided, device);
  const auto out_dtype = std::make_optional(reduced_dtype(grad.scalar_type()));
  Tensor value = torch::stable::new_empty(grad, {}, out_dtype);
  Tensor norms = torch::stable::new_empty(grad, {a.samples}, out_dtype);
  Tensor partial = partials(grad, a);
  const int error = penalty_value_launch(a, raw(grad), mutable_data<double>(partial),
                                         value.mutable_data_ptr(), norms.mutable_data_ptr());
  check_launch(error, "gradient_penalty");
  return {value, norms};
}

Tensor gradient_penalty_grad_cuda(Tensor go, Tensor grad, Tensor norms, double center,
                                  bool one_sided) {
  const OnDeviceOf device(grad);
  grad = dense_rows(grad);
  check_scalar(go, grad);
  check_norms(norms, grad);
  const auto a = launch_args(grad, center, one_sided, device);
  Tensor out = torch::stable::empty_like(grad);
  const int error = penalty_grad_launch(a, raw(go), raw(grad), raw(norms), out.mutable_data_ptr());
  check_launch(error, "gradient_penalty_grad");
  return out;
}

// A sample rarely fits one SM's cache, so the second read is left to L2: order 0, then order 1.
std::tuple<Tensor, Tensor> gradient_penalty_fused_cuda(Tensor grad, double center, bool one_sided,
                                                       double scale) {
  grad = dense_rows(grad);
  auto [value, norms] = gradient_penalty_cuda(grad, center, one_sided);
  Tensor go = torch::stable::empty_like(value);
  torch::stable::fill_(go, scale);
  return {value, gradient_penalty_grad_cuda(go, grad, norms, center, one_sided)};
}

std::tuple<Tensor, Tensor> gradient_penalty_grad2_cuda(Tensor v, Tensor go, Tensor grad,
                                                       Tensor norms, double center,
                                                       bool one_sided) {
  check_same(grad, v, "grad", "v");
  const OnDeviceOf device(grad);
  grad = dense_rows(grad);
  v = in_layout_of(v, grad);
  check_scalar(go, grad);
  check_norms(norms, grad);
  const auto a = launch_args(grad, center, one_sided, device);
  Tensor d_go = torch::stable::empty_like(go);
  Tensor d_grad = torch::stable::empty_like(grad);
  Tensor partial = partials(grad, a);
  const int error =
      penalty_grad2_launch(a, raw(v), raw(go), raw(grad), raw(norms), mutable_data<double>(partial),
                           d_go.mutable_data_ptr(), d_grad.mutable_data_ptr());
  check_launch(error, "gradient_penalty_grad2");
  return {d_go, d_grad};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("gradient_penalty", TORCH_BOX(&gradient_penalty_cuda));
  m.impl("gradient_penalty.kernel", TORCH_BOX(&gradient_penalty_cuda));
  m.impl("gradient_penalty_grad", TORCH_BOX(&gradient_penalty_grad_cuda));
  m.impl("gradient_penalty_grad.kernel", TORCH_BOX(&gradient_penalty_grad_cuda));
  m.impl("gradient_penalty_fused", TORCH_BOX(&gradient_penalty_fused_cuda));
  m.impl("gradient_penalty_fused.kernel", TORCH_BOX(&gradient_penalty_fused_cuda));
  m.impl("gradient_penalty_grad2", TORCH_BOX(&gradient_penalty_grad2_cuda));
  m.impl("gradient_penalty_grad2.kernel", TORCH_BOX(&gradient_penalty_grad2_cuda));
}
