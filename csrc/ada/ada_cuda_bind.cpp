// Tensors in, launches out: ada for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "ada_cuda.h"
#include "ada_layout.h"

namespace ganops {
namespace {

AdaStrides strides_of(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

Tensor ada_run(Tensor x, Tensor maps, std::optional<Tensor> color, bool adjoint) {
  check_ada(x, maps, color);
  const OnDeviceOf device(x);
  maps = torch::stable::contiguous(maps);
  if (color.has_value()) color = torch::stable::contiguous(*color);
  Tensor y = is_dense(x) ? torch::stable::empty_like(x) : new_contiguous(x);
  if (x.numel() == 0) return y;
  const AdaLaunch l{dtype_code(x),       x.size(0),  x.size(1),     x.size(2),     x.size(3),
                    data<int64_t>(maps), raw(color), strides_of(x), strides_of(y), device.stream()};
  if (!adjoint) {
    check_launch(ada_launch(l, raw(x), y.mutable_data_ptr()), "ada");
    return y;
  }
  Tensor lattice = torch::stable::new_empty(
      x, {x.size(0), x.size(1), 2 * x.size(2) + kAdaHalo, 2 * x.size(3) + kAdaHalo},
      std::make_optional(reduced_dtype(x.scalar_type())));
  check_launch(ada_grad_launch(l, raw(x), lattice.mutable_data_ptr(), y.mutable_data_ptr()),
               "ada_grad");
  return y;
}

Tensor ada_cuda(Tensor x, Tensor maps, std::optional<Tensor> color) {
  return ada_run(x, maps, color, false);
}
Tensor ada_grad_cuda(Tensor dy, Tensor maps, std::optional<Tensor> color) {
  return ada_run(dy, maps, color, true);
}

std::tuple<Tensor, Tensor> ada_params_cuda(Tensor p, Tensor plan, int64_t n, int64_t seed,
                                           int64_t offset, int64_t height, int64_t width) {
  const AdaPlan k = ada_plan(p, plan);
  const OnDeviceOf device(p);
  const AdaDrawn drawn = new_drawn(p, n);
  check_launch(ada_params_launch(k, data<double>(p), n, uint64_t(seed), uint64_t(offset), height,
                                 width, mutable_data<double>(drawn.table),
                                 mutable_data<int64_t>(drawn.maps), device.stream()),
               "ada_params");
  return {drawn.maps, drawn.table};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("ada", TORCH_BOX(&ada_cuda));
  m.impl("ada.kernel", TORCH_BOX(&ada_cuda));
  m.impl("ada_params", TORCH_BOX(&ada_params_cuda));
  m.impl("ada_params.kernel", TORCH_BOX(&ada_params_cuda));
  m.impl("ada_grad", TORCH_BOX(&ada_grad_cuda));
  m.impl("ada_grad.kernel", TORCH_BOX(&ada_grad_cuda));
}
