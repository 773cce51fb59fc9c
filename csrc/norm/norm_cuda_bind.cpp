// Tensors in, launches out: the second derivative of norms for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "norm_cuda.h"
#include "norm_layout.h"

namespace ganops {
namespace {

std::tuple<Tensor, Tensor, Tensor> norm_grad2_cuda(Tensor v, Tensor dy, Tensor x,
                                                   std::optional<Tensor> mean, Tensor rstd,
                                                   std::optional<Tensor> w,
                                                   std::optional<Tensor> v_w,
                                                   std::optional<Tensor> v_b, int64_t weights,
                                                   int64_t kind, bool want_w) {
  check_same(x, v, "x", "v");
  check_same(x, dy, "x", "dy");
  const OnDeviceOf device(x);
  x = contiguous3(x), v = contiguous3(v), dy = contiguous3(dy);
  const NormLayout k = norm_layout(x, mean, rstd, w, v_w, v_b, weights, kind);
  const auto dtype = std::make_optional(reduced_dtype(x.scalar_type()));
  Tensor d_dy = torch::stable::empty_like(x), d_x = torch::stable::empty_like(x);
  Tensor none = torch::stable::new_empty(x, {want_w ? weights : 0}, dtype);
  if (x.numel() == 0) {
    torch::stable::fill_(none, 0);
    return {d_dy, d_x, none};
  }
  NormLaunch a{dtype_code(x),
               int(kind),
               k.outer,
               k.inner,
               k.cells,
               k.n,
               k.rows,
               k.members,
               weights,
               raw(v),
               raw(dy),
               raw(x),
               raw(mean),
               raw(rstd),
               raw(w),
               raw(v_w),
               raw(v_b),
               d_dy.mutable_data_ptr(),
               d_x.mutable_data_ptr(),
               nullptr,
               nullptr,
               nullptr,
               device.stream()};
  STD_TORCH_CHECK(k.cells < (int64_t(1) << 31) && k.outer < 65536, "norm: ", k.cells,
                  " cells are too many for the CUDA kernel");
  Tensor partial = torch::stable::new_empty(x, {norm_partials(a)}, dtype);
  Tensor numbers = torch::stable::new_empty(x, {norm_numbers(a)}, dtype);
  a.partial = partial.mutable_data_ptr();
  a.numbers = numbers.mutable_data_ptr();
  const bool wanted = want_w && weights > 0;
  const int64_t parts = !wanted                    ? 0
                        : k.kind == NormKind::rows ? norm_weight_chunks(a)
                                                   : k.cells / weights;
  Tensor d_w = torch::stable::new_empty(x, {parts, weights}, dtype);
  if (wanted) a.d_w = d_w.mutable_data_ptr();
  check_launch(norm_grad2_launch(a), "norm_grad2");
  return {d_dy, d_x, wanted ? torch::stable::sum(d_w, {0}) : none};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("norm_grad2", TORCH_BOX(&norm_grad2_cuda));
  m.impl("norm_grad2.kernel", TORCH_BOX(&norm_grad2_cuda));
}
