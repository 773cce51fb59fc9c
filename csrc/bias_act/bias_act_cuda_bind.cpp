// Tensors in, launches out: bias_act for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "bias_act_cuda.h"
#include "bias_act_layout.h"

namespace ganops {
namespace {

BiasActLaunch launch_args(const Tensor& x, const std::optional<Tensor>& b, int64_t dim, int64_t act,
                          double alpha, double gain, double clamp, const OnDeviceOf& device) {
  const BiasActArgs args = bias_act_args(act, alpha, gain, clamp);
  const BiasLayout layout = bias_layout(x, b, dim);
  return {dtype_code(x), args.act,        args.alpha,   args.gain,      args.clamp,
          layout.numel,  layout.channels, layout.inner, device.stream()};
}

Tensor bias_act_cuda(Tensor x, std::optional<Tensor> b, int64_t dim, int64_t act, double alpha,
                     double gain, double clamp) {
  const OnDeviceOf device(x);
  x = dense(x);
  Tensor y = torch::stable::empty_like(x);
  const auto a = launch_args(x, b, dim, act, alpha, gain, clamp, device);
  check_launch(bias_act_value_launch(a, raw(x), raw(b), y.mutable_data_ptr()), "bias_act");
  return y;
}

std::tuple<Tensor, Tensor> bias_act_grad_cuda(Tensor dy, Tensor ref, std::optional<Tensor> b,
                                              int64_t dim, int64_t act, double alpha, double gain,
                                              double clamp, bool from_output, bool want_db) {
  check_same(dy, ref, "dy", "ref");
  check_from_output(bias_act_args(act, alpha, gain, clamp), from_output);
  const OnDeviceOf device(ref);
  ref = dense(ref);
  dy = in_layout_of(dy, ref);
  Tensor dx = torch::stable::empty_like(ref);
  Tensor db = bias_like(b, ref, want_db);
  const auto a = launch_args(ref, b, dim, act, alpha, gain, clamp, device);
  const bool sums = db.numel() > 0;
  Tensor partial = torch::stable::new_empty(ref, {sums ? bias_act_partials(a) : 0},
                                            std::make_optional(reduced_dtype(ref.scalar_type())));
  const int error = bias_act_grad_launch(
      a, 1, from_output, raw(dy), raw(dy), raw(ref), raw(b), dx.mutable_data_ptr(),
      sums ? partial.mutable_data_ptr() : nullptr, sums ? db.mutable_data_ptr() : nullptr);
  check_launch(error, "bias_act_grad");
  return {dx, db};
}

Tensor bias_act_grad2_cuda(Tensor v, Tensor dy, Tensor ref, std::optional<Tensor> b, int64_t dim,
                           int64_t act, double alpha, double gain, double clamp, bool from_output) {
  check_same(dy, ref, "dy", "ref");
  check_same(dy, v, "dy", "v");
  check_from_output(bias_act_args(act, alpha, gain, clamp), from_output);
  const OnDeviceOf device(ref);
  ref = dense(ref);
  dy = in_layout_of(dy, ref);
  v = in_layout_of(v, ref);
  Tensor out = torch::stable::empty_like(ref);
  const auto a = launch_args(ref, b, dim, act, alpha, gain, clamp, device);
  const int error = bias_act_grad_launch(a, 2, from_output, raw(v), raw(dy), raw(ref), raw(b),
                                         out.mutable_data_ptr(), nullptr, nullptr);
  check_launch(error, "bias_act_grad2");
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("bias_act", TORCH_BOX(&bias_act_cuda));
  m.impl("bias_act.kernel", TORCH_BOX(&bias_act_cuda));
  m.impl("bias_act_grad", TORCH_BOX(&bias_act_grad_cuda));
  m.impl("bias_act_grad.kernel", TORCH_BOX(&bias_act_grad_cuda));
  m.impl("bias_act_grad2", TORCH_BOX(&bias_act_grad2_cuda));
  m.impl("bias_act_grad2.kernel", TORCH_BOX(&bias_act_grad2_cuda));
}
