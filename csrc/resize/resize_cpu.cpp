// resize on the CPU: a band of output rows at a time. Each source row is widened and resized along
// x once, when an output row first asks for it, and kept while it may be asked for again: what is
// read and what is kept fits the cache, and the result is written once.
#include "../common/results.h"
#include "resize_layout.h"
#include "resize_loops.h"

namespace ganops {
namespace {

constexpr int64_t kBand = 64;  // output rows

struct ResizeTask {
  ResizeShape s;
  const uint8_t* x;
  int64_t x_n, x_c, x_h, x_w;  // strides
  const int32_t *first_y, *first_x;
  const void *weight_y, *weight_x;
  ResizeRange range;
  bool channels_last, stream;
  int64_t row() const { return 3 * s.out_w; }
  bool pixels_together() const { return x_c == 1 && x_w == s.channels; }
};

// Where along a widened source row each number of a resized row reads; as all rows do.
struct Columns {
  std::vector<int32_t> low, high;
  std::vector<float> fraction;
  std::vector<double> weight;  // (taps, row)
  int64_t step;

  explicit Columns(const ResizeTask& t)
      : low(t.row()), step(t.pixels_together() ? t.s.channels : 1) {
    const int64_t channel = t.pixels_together() ? 1 : t.s.width, n = t.row(), taps = t.s.taps_x;
    if (t.s.lerp) high.resize(n), fraction.resize(n);
    if (!t.s.lerp) weight.resize(taps * n);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t w = 0; w < t.s.out_w; ++w) {
        const int64_t i = t.channels_last ? 3 * w + c : c * t.s.out_w + w;
        const int64_t base = (c % t.s.channels) * channel, first = t.first_x[w];
        low[i] = int32_t(base + first * step);
        if (t.s.lerp) {
          high[i] = int32_t(base + std::min(first + 1, t.s.width - 1) * step);
          fraction[i] = static_cast<const float*>(t.weight_x)[w];
        } else {
          for (int64_t k = 0; k < taps; ++k) {
            weight[k * n + i] = static_cast<const double*>(t.weight_x)[w * taps + k];
          }
        }
      }
    }
  }
};

// The source rows of one image, resized along x.
class Rows {
 public:
  Rows(const ResizeTask& task, const Columns& columns)
      : t(task),
        c(columns),
        kept(task.s.lerp ? 2 : task.s.taps_y),
        source(task.s.channels * task.s.width + task.s.taps_x * columns.step),
        numbers(kept * task.row()),
        held(kept, -1) {}

  void start(const uint8_t* image_) {
    image = image_;
    std::fill(held.begin(), held.end(), -1);
  }

  const float* operator[](int64_t h) {
    float* const to = numbers.data() + (h % kept) * t.row();
    if (held[h % kept] == h) return to;
    held[h % kept] = h;
    widen(image + h * t.x_h);
    if (t.s.lerp) {
      lerp_columns(source.data(), c.low.data(), c.high.data(), c.fraction.data(), to, t.row());
    } else {  // taps beyond the last pixel have weight 0, and read zeros
      sum_columns(source.data(), c.low.data(), c.step, c.weight.data(), t.s.taps_x, to, t.row());
    }
    return to;
  }

 private:
  void widen(const uint8_t* from) {
    if (t.pixels_together()) return floats_of(from, source.data(), t.s.channels * t.s.width);
    for (int64_t channel = 0; channel < t.s.channels; ++channel, from += t.x_c) {
      float* const to = source.data() + channel * t.s.width;
      if (t.x_w == 1) {
        floats_of(from, to, t.s.width);
      } else {
        for (int64_t w = 0; w < t.s.width; ++w) to[w] = float(from[w * t.x_w]);
      }
    }
  }

  const ResizeTask& t;
  const Columns& c;
  int64_t kept;
  std::vector<float> source, numbers;
  std::vector<int64_t> held;
  const uint8_t* image = nullptr;
};

template <class Out>
void run(const ResizeTask& t, Out* out) {
  const Columns columns(t);
  const int64_t bands = ceil_div(t.s.out_h, kBand), n = t.row(), plane = t.s.out_h * t.s.out_w;
  parallel_units(t.s.batch * bands, kBand * n, [&](int64_t begin, int64_t end) {
    Rows rows(t, columns);
    std::vector<float> finished(n);
    std::vector<const float*> asked(t.s.taps_y);
    int64_t image = -1;
    for (int64_t unit = begin; unit < end; ++unit) {
      if (unit / bands != image) {
        image = unit / bands;
        rows.start(t.x + image * t.x_n);
      }
      const int64_t first = unit % bands * kBand, last = std::min(first + kBand, t.s.out_h);
      for (int64_t h = first; h < last; ++h) {
        const int64_t r = t.first_y[h];
        const int64_t pieces = t.channels_last ? 1 : 3, length = n / pieces;
        const int64_t count = std::min(t.s.taps_y, t.s.height - r);
        const float *low = nullptr, *high = nullptr;
        if (t.s.lerp) {
          low = rows[r], high = rows[std::min(r + 1, t.s.height - 1)];
        }
        for (int64_t p = 0; p < pieces; ++p) {
          Out* const to = out + (image * 3 + p) * plane + h * length;
          write_row(to, finished.data(), length, t.stream, [&](float* target, bool stream) {
            if (t.s.lerp) {
              lerp_rows(low + p * length, high + p * length,
                        static_cast<const float*>(t.weight_y)[h], t.range, target, length, stream);
            } else {
              for (int64_t k = 0; k < count; ++k) asked[k] = rows[r + k] + p * length;
              sum_rows(asked.data(), static_cast<const double*>(t.weight_y) + h * t.s.taps_y, count,
                       t.range, target, length, stream);
            }
          });
        }
      }
    }
    if (t.stream) stream_fence();
  });
}

Tensor resize_cpu(Tensor x, Tensor first_y, Tensor weight_y, Tensor first_x, Tensor weight_x,
                  double shift, double divisor, int64_t dtype, bool channels_last) {
  const ResizeShape s = resize_shape(x, first_y, weight_y, first_x, weight_x);
  Tensor y = on_huge_pages(resize_result(x, s, dtype, channels_last));
  if (s.batch == 0) return y;
  const bool stream = y.numel() * y.element_size() >= kStreamBytes;
  const ResizeTask t{s,
                     data<uint8_t>(x),
                     x.stride(0),
                     x.stride(1),
                     x.stride(2),
                     x.stride(3),
                     data<int32_t>(first_y),
                     data<int32_t>(first_x),
                     weight_y.const_data_ptr(),
                     weight_x.const_data_ptr(),
                     {float(shift), float(divisor)},
                     channels_last,
                     stream};
  for (int64_t i = 0; i < s.out_h; ++i) {
    STD_TORCH_CHECK(t.first_y[i] >= 0 && t.first_y[i] < s.height, "resize: a tap is outside");
  }
  for (int64_t i = 0; i < s.out_w; ++i) {
    STD_TORCH_CHECK(t.first_x[i] >= 0 && t.first_x[i] < s.width, "resize: a tap is outside");
  }
  dispatch_floating(y.scalar_type(), "resize", [&](auto out) {
    using Out = decltype(out);
    if constexpr (!std::is_same_v<Out, double>) run(t, mutable_data<Out>(y));
  });
  return y;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("resize", TORCH_BOX(&ganops::resize_cpu));
  m.impl("resize.kernel", TORCH_BOX(&ganops::resize_cpu));
}
