// augment on the CPU: a band of rows at a time, so that the second reading of an image (its shifted
// rows, after the original's) finds it in the cache.
#include "../common/results.h"
#include "augment_adjoint.h"
#include "augment_bytes.h"
#include "augment_layout.h"

namespace ganops {
namespace {

// Rows moved before they are converted: a load just after the two stores that it spans would wait.
constexpr int64_t kRowsMoved = 4;

template <class In, class Out, class C>
struct Forward {
  const Task& t;
  const AugmentSample<C>& s;
  const In* const x;  // the sample's image
  const Runs runs;
  std::vector<C> f, source, sums;
  std::vector<In> gathered;
  std::vector<uint16_t> keep;   // bits of a row that no border zeroes, then of one cut out as well
  int64_t first = 0, last = 0;  // planes at work

  Forward(const Task& task, const AugmentSample<C>& sample, const In* image)
      : t(task),
        s(sample),
        x(image),
        runs(row_runs(s.ix, t.shape.width, t.reflect(), s.flip)),
        f(t.row() * t.planes()),
        source(f.size()),
        sums(std::max<int64_t>(t.row(), kBlock)),
        gathered(std::max<int64_t>(f.size(), kRowsMoved * t.row())) {
    const int64_t n = t.row(), g = t.group();
    for (int cut = 0; cut < 2; ++cut) {
      for (int64_t i = 0; colours(s) && i < n; i += 16) {
        const uint16_t inside = bits_in(i, runs.low * g, runs.high * g);
        keep.push_back(uint16_t(inside & ~(cut ? bits_in(i, s.left * g, s.right * g) : 0)));
      }
    }
  }

  bool between() const { return s.fx != C(0) || s.fy != C(0); }
  bool plain() const {
    return !between() && runs.low == 0 && runs.high == t.shape.width && s.sigma == C(0) &&
           !colours(s);
  }

  // Row r of plane p, its pixels where the output wants them.
  const In* whole(int64_t r, int64_t p) {
    const In* const from = x + p * t.plane() + r * t.row();
    if (!s.flip && s.ix == 0) return from;
    In* const to = gathered.data() + (p - first) * t.row();
    gather_row(from, to, runs, t.group());
    return to;
  }

  // The planes of one row, widened and coloured: from `get`, one plane at a time.
  template <class Get>
  void read(std::vector<C>& to, const Get& get) {
    const int64_t n = t.row(), planes = last - first;
    if constexpr (std::is_same_v<In, uint8_t>) {
      if (colours(s)) {
        const uint8_t* rows[kMostPlanes];
        for (int64_t p = 0; p < planes; ++p) rows[p] = get(first + p);
        const ByteColour k = byte_colour(s, t.shape.channels);
        return colour_bytes(rows, planes, n, t.group(), k, to.data());
      }
    }
    for (int64_t p = first; p < last; ++p) widen_block(get(p), to.data() + (p - first) * n, n);
    if (!colours(s)) return;
    colour_rows(to.data(), sums.data(), planes, n, t.group(), s.scale, s.mix, s.add);
  }

  void rows(int64_t sample, int64_t begin, int64_t end, Out* out) {
    const int64_t n = t.row();
    const bool turned = s.flip && s.ix == 0 && t.group() == 1 && std::is_same_v<In, uint8_t>;
    const bool whole_rows = (t.reflect() || s.iy == 0) && (s.left >= s.right || s.top >= s.bottom);
    const bool moved = plain() && whole_rows && !turned && (s.flip || s.ix != 0);
    for (int64_t h = begin, count = 1; h < end; h += count) {
      if (!moved) {
        row(sample, h, out);
        continue;
      }
      count = std::min(kRowsMoved, end - h);
      for (int64_t p = first; p < last; ++p) {
        for (int64_t k = 0; k < count; ++k) {
          const int64_t r = augment_source(h + k, s.iy, t.shape.height, t.reflect());
          gather_row(x + p * t.plane() + r * n, gathered.data() + k * n, runs, t.group());
        }
        convert_run(gathered.data(), out + p * t.plane() + h * n, count * n, t.stream, sums.data());
      }
    }
  }

  void row(int64_t sample, int64_t h, Out* out) {
    const int64_t n = t.row(), width = t.shape.width;
    const bool cut = h >= s.top && h < s.bottom && s.left < s.right;
    const int64_t r = augment_source(h, s.iy, t.shape.height, t.reflect());
    if (plain() && !cut && r >= 0) {
      for (int64_t p = first; p < last; ++p) {
        Out* const to = out + p * t.plane() + h * n;
        if constexpr (std::is_same_v<In, uint8_t>) {
          if (s.flip && s.ix == 0 && t.group() == 1) {
            const In* const end = x + p * t.plane() + r * n + n - 1;
            convert_bytes(end, to, n, false, t.stream, sums.data());
            continue;
          }
        }
        convert_run(whole(r, p), to, n, t.stream, sums.data());
      }
      return;
    }
    if constexpr (std::is_same_v<In, uint8_t>) {
      const ByteColour k = byte_colour(s, t.shape.channels);
      const bool coloured = colours(s) && s.sigma == C(0) && !between() && r >= 0;
      if (coloured && has_coloured_store<Out>(last - first, n, t.group(), k)) {
        const uint8_t* rows[kMostPlanes];
        for (int64_t p = first; p < last; ++p) rows[p - first] = whole(r, p);
        const uint16_t* const kept = keep.data() + (cut ? keep.size() / 2 : 0);
        Out* const to = out + first * t.plane() + h * n;
        return store_coloured(rows, n, t.group(), k, kept, to, t.plane(), t.stream);
      }
    }
    if (between()) {
      blend(h);
    } else if (r < 0) {
      std::fill(f.begin(), f.end(), C(0));
    } else {
      read(f, [&](int64_t p) { return whole(r, p); });
      zero_pixels(t, last - first, f.data(), 0, runs.low);
      zero_pixels(t, last - first, f.data(), runs.high, width);
    }
    if (s.sigma != C(0)) add_noise(t, s, sample, h, f.data());
    if (cut) zero_pixels(t, last - first, f.data(), s.left, s.right);
    for (int64_t p = first; p < last; ++p) {
      store_row(f.data() + (p - first) * n, out + p * t.plane() + h * n, n, t.stream);
    }
  }

  // A row between pixels: up to two source rows, each read at two offsets.
  void blend(int64_t h) {
    const int64_t n = t.row();
    std::fill(f.begin(), f.end(), C(0));
    for (int tap_y = 0; tap_y < 2; ++tap_y) {
      const C wy = tap_y == 0 ? C(1) - s.fy : s.fy;
      const int64_t r = augment_source(h, s.iy + tap_y, t.shape.height, t.reflect());
      if (wy == C(0) || r < 0) continue;
      read(source, [&](int64_t p) { return x + p * t.plane() + r * n; });
      for (int tap_x = 0; tap_x < 2; ++tap_x) {
        const C weight = wy * (tap_x == 0 ? C(1) - s.fx : s.fx);
        if (weight == C(0)) continue;
        const Runs tap = row_runs(s.ix + tap_x, t.shape.width, t.reflect(), s.flip);
        for (int64_t p = first; p < last; ++p) {
          add_gathered(source.data() + (p - first) * n, f.data() + (p - first) * n, tap, t.group(),
                       weight, sums.data());
        }
      }
    }
  }
};

template <class In, class Out, class C>
void forward(const Task& t, const In* x, const float* params, Out* out) {
  const int64_t image = t.shape.image();
  std::vector<AugmentSample<C>> s = samples<C>(t, params);
  const std::vector<C> ones(kBlock, C(1));
  add_means(t, s, [&](int64_t b) {
    C buffer[kBlock];
    return image_mean<In, C>(x + b * image, image, buffer, ones.data());
  });
  Out* const changed = t.pair ? out + t.shape.batch * image : out;
  for_bands(t, [&](int64_t b, int64_t first, int64_t last) {
    Forward<In, Out, C> work(t, s[b], x + b * image);
    for (int64_t p = 0; t.pair && p < t.planes(); ++p) {
      const int64_t at = b * image + p * t.plane() + first * t.row();
      convert_run(x + at, out + at, (last - first) * t.row(), t.stream, work.sums.data());
    }
    for_planes(t, s[b], [&](int64_t plane, int64_t end) {
      work.first = plane, work.last = end;
      work.rows(b, first, last, changed + b * image);
    });
  });
}

// Calls f(In{}, Out{}, C{}): float64 stays float64, all else is computed in float.
template <class F>
void dispatch_types(ScalarType in, ScalarType out, const F& f) {
  if (in == ScalarType::Double || out == ScalarType::Double) {
    STD_TORCH_CHECK(in == out, "augment: float64 images stay float64");
    return f(double{}, double{}, double{});
  }
  dispatch_floating(out, "augment", [&](auto o) {
    using Out = decltype(o);
    if constexpr (!std::is_same_v<Out, double>) {
      if (in == ScalarType::Byte) return f(uint8_t{}, Out{}, float{});
      dispatch_floating(in, "augment", [&](auto i) {
        if constexpr (!std::is_same_v<decltype(i), double>) f(i, Out{}, float{});
      });
    }
  });
}

Tensor augment_params_cpu(Tensor like, int64_t n, int64_t seed, int64_t offset, int64_t height,
                          int64_t width, int64_t flip, int64_t gate, int64_t shift_y,
                          int64_t shift_x, int64_t cut_y, int64_t cut_x, double sub_y, double sub_x,
                          double brightness, double saturation, double contrast, double noise) {
  const AugmentPlan plan = augment_plan(height, width, flip, gate, shift_y, shift_x, cut_y, cut_x,
                                        sub_y, sub_x, brightness, saturation, contrast, noise);
  Tensor params =
      torch::stable::new_empty(like, {n, kAugmentColumns}, std::make_optional(ScalarType::Float));
  float* const rows = mutable_data<float>(params);
  for (int64_t i = 0; i < n; ++i) {
    augment_draw(uint64_t(seed), uint64_t(offset + i), plan, rows + i * kAugmentColumns);
  }
  return params;
}

Tensor augment_cpu(Tensor x, Tensor params, int64_t seed, int64_t offset, int64_t flags,
                   int64_t dtype, bool pair, bool linear) {
  x = in_image_order(x);
  const AugmentShape shape = augment_shape(x, params, false);
  Tensor y = on_huge_pages(new_images(x, shape, shape.batch * (pair ? 2 : 1), dtype));
  const bool stream = y.numel() * y.element_size() >= kStreamBytes;
  const Task task{shape, int(flags), pair, linear, stream, uint64_t(seed), uint64_t(offset)};
  dispatch_types(x.scalar_type(), y.scalar_type(), [&](auto in, auto out, auto c) {
    using In = decltype(in);
    using Out = decltype(out);
    forward<In, Out, decltype(c)>(task, data<In>(x), data<float>(params), mutable_data<Out>(y));
  });
  return y;
}

Tensor augment_grad_cpu(Tensor dy, Tensor params, int64_t flags, int64_t dtype, bool pair) {
  dy = in_image_order(dy);
  const AugmentShape shape = augment_shape(dy, params, pair);
  Tensor dx = on_huge_pages(new_images(dy, shape, shape.batch, dtype));
  const bool stream = dx.numel() * dx.element_size() >= kStreamBytes;
  const Task task{shape, int(flags), pair, true, stream, 0, 0};
  dispatch_types(dy.scalar_type(), dx.scalar_type(), [&](auto in, auto out, auto c) {
    using In = decltype(in);
    using Out = decltype(out);
    if constexpr (!std::is_same_v<In, uint8_t>) {
      adjoint<In, Out, decltype(c)>(task, data<In>(dy), data<float>(params), mutable_data<Out>(dx));
    } else {
      STD_TORCH_CHECK(false, "augment: bytes have no gradient");
    }
  });
  return dx;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("augment_params", TORCH_BOX(&augment_params_cpu));
  m.impl("augment_params.kernel", TORCH_BOX(&augment_params_cpu));
  m.impl("augment", TORCH_BOX(&augment_cpu));
  m.impl("augment.kernel", TORCH_BOX(&augment_cpu));
  m.impl("augment_grad", TORCH_BOX(&augment_grad_cpu));
  m.impl("augment_grad.kernel", TORCH_BOX(&augment_grad_cpu));
}
