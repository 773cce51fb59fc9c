// Launcher of resize_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

struct ResizeLaunch {
  int64_t batch;
  int channels, height, width, out_h, out_w, taps_y, taps_x;
  int64_t x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w;  // strides
  const uint8_t* x;
  const int32_t *first_y, *first_x;
  const void *weight_y, *weight_x;  // float fractions where lerp, else doubles
  float shift, divisor;
  bool lerp;
  DType dtype;
  CudaStream stream;
};

int resize_launch(const ResizeLaunch& l, void* y);

}  // namespace ganops
