// Tensors in, launches out: upfirdn2d for CUDA tensors.
#include <limits>

#include "../common/cuda_tensors.h"
#include "upfirdn2d_cuda.h"
#include "upfirdn2d_layout.h"

namespace ganops {
namespace {

UpfirdnAxis narrow_axis(const Axis& a) {
  const int64_t last = a.out * a.down + std::abs(a.pad) + a.taps + a.in * a.up;
  STD_TORCH_CHECK(last < std::numeric_limits<int>::max() / 2,
                  "upfirdn2d: expected sides that fit 30 bits");
  return {int(a.in), int(a.out), int(a.up), int(a.down), int(a.pad), int(a.taps)};
}

UpfirdnPlaces places(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

Tensor upfirdn2d_cuda(Tensor x, Tensor f, int64_t up_x, int64_t up_y, int64_t down_x,
                      int64_t down_y, int64_t pad_x, int64_t pad_y, int64_t out_x, int64_t out_y,
                      bool flip, double gain) {
  const UpfirdnLayout k =
      upfirdn_layout(x, f, up_x, up_y, down_x, down_y, pad_x, pad_y, out_x, out_y);
  const OnDeviceOf device(x);
  Tensor y = upfirdn_result(x, k);
  UpfirdnLaunch l{};
  l.dtype = dtype_code(x);
  l.x = narrow_axis(k.x);
  l.y = narrow_axis(k.y);
  l.batch = k.batch;
  l.channels = int(k.channels);
  l.channels_last = k.channels_last;
  l.separable = f.dim() == 1;
  l.flip = flip;
  l.gain = gain;
  l.from = places(x);
  l.to = places(y);
  l.stream = device.stream();
  const UpfirdnTile tile = upfirdn_tile(l);
  if (tile.height > 0) {
    check_launch(upfirdn2d_tile_launch(l, tile, raw(x), raw(f), y.mutable_data_ptr()), "upfirdn2d");
    return y;
  }
  if (!l.separable) {
    check_launch(upfirdn2d_direct_launch(l, raw(x), raw(f), y.mutable_data_ptr()), "upfirdn2d");
    return y;
  }
  // One axis at a time: the other is left as it is.
  UpfirdnLayout half = k;
  half.x.out = k.x.in;
  Tensor between = upfirdn_result(x, half, reduced_dtype(x.scalar_type()));
  UpfirdnLaunch columns = l, rows = l;
  columns.x = {l.x.in, l.x.in, 1, 1, 0, 1};
  columns.to = rows.from = places(between);
  columns.wide_y = rows.wide_x = true;
  rows.y = {l.y.out, l.y.out, 1, 1, 0, 1};
  rows.gain = 1;
  check_launch(upfirdn2d_direct_launch(columns, raw(x), raw(f), between.mutable_data_ptr()),
               "upfirdn2d");
  check_launch(upfirdn2d_direct_launch(rows, raw(between), raw(f), y.mutable_data_ptr()),
               "upfirdn2d");
  return y;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d_cuda));
  m.impl("upfirdn2d.kernel", TORCH_BOX(&upfirdn2d_cuda));
}
