// Tensors in, launches out: smooth for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "smooth_cuda.h"

namespace ganops {
namespace {

std::tuple<Tensor, Tensor> smooth_grad2_cuda(Tensor v, Tensor dy, Tensor ref, int64_t act, double a,
                                             double b) {
  STD_TORCH_CHECK(act >= 0 && act < int64_t(Smooth::count), "smooth: no activation ", act);
  check_same(dy, ref, "dy", "ref");
  check_same(dy, v, "dy", "v");
  const OnDeviceOf device(ref);
  ref = dense(ref);
  dy = in_layout_of(dy, ref);
  v = in_layout_of(v, ref);
  Tensor d_dy = torch::stable::empty_like(ref), d_ref = torch::stable::empty_like(ref);
  const SmoothLaunch l{dtype_code(ref), Smooth(act), a, b, ref.numel(), device.stream()};
  check_launch(smooth_grad2_launch(l, raw(v), raw(dy), raw(ref), d_dy.mutable_data_ptr(),
                                   d_ref.mutable_data_ptr()),
               "smooth_grad2");
  return {d_dy, d_ref};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("smooth_grad2", TORCH_BOX(&smooth_grad2_cuda));
  m.impl("smooth_grad2.kernel", TORCH_BOX(&smooth_grad2_cuda));
}
