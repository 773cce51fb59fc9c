// Tensors in, launches out: augment for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "augment_cuda.h"
#include "augment_layout.h"

namespace ganops {
namespace {

Tensor augment_params_cuda(Tensor like, int64_t n, int64_t seed, int64_t offset, int64_t height,
                           int64_t width, int64_t flip, int64_t gate, int64_t shift_y,
                           int64_t shift_x, int64_t cut_y, int64_t cut_x, double sub_y,
                           double sub_x, double brightness, double saturation, double contrast,
                           double noise) {
  const AugmentPlan plan = augment_plan(height, width, flip, gate, shift_y, shift_x, cut_y, cut_x,
                                        sub_y, sub_x, brightness, saturation, contrast, noise);
  const OnDeviceOf device(like);
  Tensor params =
      torch::stable::new_empty(like, {n, kAugmentColumns}, std::make_optional(ScalarType::Float));
  check_launch(augment_params_launch(plan, n, uint64_t(seed), uint64_t(offset),
                                     mutable_data<float>(params), device.stream()),
               "augment_params");
  return params;
}

AugmentLaunch launch_of(const AugmentShape& shape, const Tensor& params, const Tensor& sums,
                        int64_t flags, bool pair, const OnDeviceOf& device) {
  AugmentLaunch l{};
  l.shape = shape;
  l.params = data<float>(params);
  l.sums = sums.numel() > 0 ? static_cast<double*>(sums.mutable_data_ptr()) : nullptr;
  l.flags = int(flags);
  l.pair = pair;
  l.linear = true;
  l.stream = device.stream();
  return l;
}

Tensor partial_sums(const Tensor& x, const AugmentShape& s, int64_t flags) {
  const int64_t n = flags & kContrast ? s.batch * kAugmentSlots : 0;
  return torch::stable::new_empty(x, {n}, std::make_optional(ScalarType::Double));
}

void check_types(const AugmentShape& s, ScalarType in, ScalarType out) {
  const int64_t pixels = s.height * s.width;  // a pixel has 32 bits, and so has a grid
  STD_TORCH_CHECK(pixels < (int64_t(1) << 30) && s.batch * ceil_div(pixels, kThreads) < INT32_MAX,
                  "augment: too many pixels for one CUDA launch");
  STD_TORCH_CHECK((in == ScalarType::Double) == (out == ScalarType::Double),
                  "augment: float64 images stay float64");
}

Tensor augment_cuda(Tensor x, Tensor params, int64_t seed, int64_t offset, int64_t flags,
                    int64_t dtype, bool pair, bool linear) {
  const OnDeviceOf device(x);
  x = in_image_order(x);
  const AugmentShape shape = augment_shape(x, params, false);
  Tensor y = new_images(x, shape, shape.batch * (pair ? 2 : 1), dtype);
  const Tensor sums = partial_sums(x, shape, flags);
  AugmentLaunch l = launch_of(shape, params, sums, flags, pair, device);
  l.seed = uint64_t(seed), l.offset = uint64_t(offset), l.linear = linear;
  const bool bytes = x.scalar_type() == ScalarType::Byte;
  check_types(shape, x.scalar_type(), y.scalar_type());
  check_launch(augment_launch(l, bytes ? DType::f32 : dtype_code(x), bytes, dtype_code(y), raw(x),
                              y.mutable_data_ptr()),
               "augment");
  return y;
}

Tensor augment_grad_cuda(Tensor dy, Tensor params, int64_t flags, int64_t dtype, bool pair) {
  const OnDeviceOf device(dy);
  dy = in_image_order(dy);
  const AugmentShape shape = augment_shape(dy, params, pair);
  Tensor dx = new_images(dy, shape, shape.batch, dtype);
  const Tensor sums = partial_sums(dy, shape, flags);
  const AugmentLaunch l = launch_of(shape, params, sums, flags, pair, device);
  check_types(shape, dy.scalar_type(), dx.scalar_type());
  check_launch(
      augment_grad_launch(l, dtype_code(dy), dtype_code(dx), raw(dy), dx.mutable_data_ptr()),
      "augment_grad");
  return dx;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("augment_params", TORCH_BOX(&augment_params_cuda));
  m.impl("augment_params.kernel", TORCH_BOX(&augment_params_cuda));
  m.impl("augment", TORCH_BOX(&augment_cuda));
  m.impl("augment.kernel", TORCH_BOX(&augment_cuda));
  m.impl("augment_grad", TORCH_BOX(&augment_grad_cuda));
  m.impl("augment_grad.kernel", TORCH_BOX(&augment_grad_cuda));
}
