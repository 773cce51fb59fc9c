// Tensors in, launches out: resize for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "resize_cuda.h"
#include "resize_layout.h"

namespace ganops {
namespace {

Tensor resize_cuda(Tensor x, Tensor first_y, Tensor weight_y, Tensor first_x, Tensor weight_x,
                   double shift, double divisor, int64_t dtype, bool channels_last) {
  const ResizeShape s = resize_shape(x, first_y, weight_y, first_x, weight_x);
  const OnDeviceOf device(x);
  Tensor y = resize_result(x, s, dtype, channels_last);
  STD_TORCH_CHECK(
      s.out_h * s.out_w < INT32_MAX && ceil_div(s.batch * s.out_h * s.out_w, kThreads) < INT32_MAX,
      "resize: too many pixels for one CUDA launch");
  ResizeLaunch l{};
  l.batch = s.batch, l.channels = int(s.channels);
  l.height = int(s.height), l.width = int(s.width);
  l.out_h = int(s.out_h), l.out_w = int(s.out_w);
  l.taps_y = int(s.taps_y), l.taps_x = int(s.taps_x);
  l.x_n = x.stride(0), l.x_c = x.stride(1), l.x_h = x.stride(2), l.x_w = x.stride(3);
  l.y_n = y.stride(0), l.y_c = y.stride(1), l.y_h = y.stride(2), l.y_w = y.stride(3);
  l.x = data<uint8_t>(x);
  l.first_y = data<int32_t>(first_y), l.first_x = data<int32_t>(first_x);
  l.weight_y = raw(weight_y), l.weight_x = raw(weight_x);
  l.shift = float(shift), l.divisor = float(divisor);
  l.lerp = s.lerp;
  l.dtype = dtype_code(y);
  l.stream = device.stream();
  check_launch(resize_launch(l, y.mutable_data_ptr()), "resize");
  return y;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  m.impl("resize", TORCH_BOX(&ganops::resize_cuda));
  m.impl("resize.kernel", TORCH_BOX(&ganops::resize_cuda));
}
