// What both kernels know of an upfirdn2d call: two axes, and where the numbers lie.
//
// An image is rows of pixels; a pixel is `unit` numbers side by side: 1 where rows are contiguous
// (NCHW, and slices of it), all channels for channels_last. The result has the order of x.
#pragma once

#include "../common/tensors.h"
#include "upfirdn2d_math.h"

namespace ganops {

struct Axis {
  int64_t in, out, up, down, pad, taps;
};

struct UpfirdnLayout {
  Axis x, y;
  int64_t batch, channels;
  bool channels_last;
  int64_t unit() const { return channels_last ? channels : 1; }
  int64_t planes() const { return channels_last ? batch : batch * channels; }
};

// The first number of each plane, and of the row below.
struct Strides {
  int64_t sample, channel, row;
};

inline Strides strides_of(const Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2)}; }

// Twin of _channels_last in ganops/ops/upfirdn2d/autograd.py.
inline bool is_channels_last(const Tensor& x) {
  return !x.is_contiguous() && x.size(1) > 1 && x.stride(1) == 1 &&
         (x.size(3) == 1 || x.stride(3) == x.size(1)) && x.size(3) * x.size(2) > 1;
}

// x as the kernels read it: copied only if neither its rows nor its pixels are contiguous.
inline Tensor readable(const Tensor& x) {
  const bool rows = x.size(3) == 1 || x.stride(3) == 1;
  return rows || is_channels_last(x) ? x : torch::stable::contiguous(x);
}

inline UpfirdnLayout upfirdn_layout(const Tensor& x, const Tensor& f, int64_t up_x, int64_t up_y,
                                    int64_t down_x, int64_t down_y, int64_t pad_x, int64_t pad_y,
                                    int64_t out_x, int64_t out_y) {
  STD_TORCH_CHECK(x.dim() == 4, "upfirdn2d: expected four dims, got ", x.dim());
  STD_TORCH_CHECK((f.dim() == 1 || f.dim() == 2) && f.is_contiguous() && f.numel() > 0 &&
                      f.scalar_type() == reduced_dtype(x.scalar_type()),
                  "upfirdn2d: expected a contiguous filter of one or two dims, in the computing "
                  "dtype of x");
  STD_TORCH_CHECK(up_x > 0 && up_y > 0 && down_x > 0 && down_y > 0 && out_x > 0 && out_y > 0,
                  "upfirdn2d: expected positive factors and sizes");
  const Axis h{x.size(3), out_x, up_x, down_x, pad_x, f.size(f.dim() - 1)};
  const Axis v{x.size(2), out_y, up_y, down_y, pad_y, f.size(0)};
  return {h, v, x.size(0), x.size(1), is_channels_last(x)};
}

inline Tensor upfirdn_result(const Tensor& x, const UpfirdnLayout& k,
                             std::optional<ScalarType> dtype = std::nullopt) {
  using torch::stable::new_empty, torch::stable::transpose;
  if (!k.channels_last) return new_empty(x, {k.batch, k.channels, k.y.out, k.x.out}, dtype);
  const Tensor y = new_empty(x, {k.batch, k.y.out, k.x.out, k.channels}, dtype);
  return transpose(transpose(y, 1, 3), 2, 3);
}

}  // namespace ganops
