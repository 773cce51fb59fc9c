// augment's CPU adjoint: rows of dx, from the rows of dy that read them.
#pragma once

#include "augment_task.h"

namespace ganops {
namespace {

// How much of each output position of an axis reads inside the image.
template <class C>
C inside_weight(int64_t w, int64_t shift, C fraction, int64_t side, bool reflect) {
  const bool first = augment_source(w, shift, side, reflect) >= 0;
  const bool second = augment_source(w, shift + 1, side, reflect) >= 0;
  return (first ? C(1) - fraction : C(0)) + (second ? fraction : C(0));
}

// Rows of dx from the rows of dy that read them.
template <class T, class Out, class C>
struct Adjoint {
  const Task& t;
  std::vector<C> f, row, sums;

  explicit Adjoint(const Task& task)
      : t(task), f(t.row() * t.planes()), row(t.row()), sums(t.row()) {}

  // Row h of dy, zero where it was cut out; its own memory where that will do.
  const C* read(const T* dy, const AugmentSample<C>& s, int64_t p, int64_t h) {
    const T* const from = dy + p * t.plane() + h * t.row();
    const bool cut = h >= s.top && h < s.bottom && s.left < s.right;
    if constexpr (std::is_same_v<T, C>) {
      if (!cut) return from;
    }
    widen_block(from, row.data(), t.row());
    if (cut) std::fill_n(row.data() + s.left * t.group(), (s.right - s.left) * t.group(), C(0));
    return row.data();
  }

  C mean(const T* dy, const AugmentSample<C>& s) {
    const int64_t n = t.row();
    for (int64_t i = 0; i < n; ++i) {
      sums[i] = inside_weight(i / t.group(), s.ix, s.fx, t.shape.width, t.reflect());
    }
    double total = 0;
    for (int64_t h = 0; h < t.shape.height; ++h) {
      const C weight = inside_weight(h, s.iy, s.fy, t.shape.height, t.reflect());
      for (int64_t p = 0; weight != C(0) && p < t.planes(); ++p) {
        const C* const d = read(dy, s, p, h);
        for (int64_t i = 0; i < n; i += kBlock) {
          total += weight * dot_block(d + i, sums.data() + i, std::min(kBlock, n - i));
        }
      }
    }
    return C(total / double(t.shape.image()));
  }

  // Row r of planes [first, last).
  void write(const T* dy, const T* plain, const AugmentSample<C>& s, int64_t r, int64_t first,
             int64_t last, Out* dx) {
    const int64_t n = t.row(), height = t.shape.height, start = first * t.plane() + r * n;
    const bool coloured = colours(s);
    const auto each = [&](const auto& g) {
      for (int64_t p = first; p < last; ++p) g(f.data() + (p - first) * n, p);
    };
    each([&](C* to, int64_t p) {
      const bool add = plain != nullptr && !coloured;
      add ? widen_block(plain + p * t.plane() + r * n, to, n) : void(std::fill_n(to, n, C(0)));
    });
    for (int tap = 0; tap < 6; ++tap) {
      const C wy = tap < 3 ? C(1) - s.fy : s.fy;
      const int64_t h = augment_reader(r, s.iy + tap / 3, height, t.reflect(), tap % 3);
      if (wy == C(0) || h < 0) continue;
      for (int tap_x = 0; tap_x < 2; ++tap_x) {
        const C weight = wy * (tap_x == 0 ? C(1) - s.fx : s.fx);
        if (weight == C(0)) continue;
        const Runs runs = row_runs(s.ix + tap_x, t.shape.width, t.reflect(), s.flip);
        each([&](C* to, int64_t p) {
          add_scattered(read(dy, s, p, h), to, runs, t.group(), weight);
        });
      }
    }
    if (coloured) {
      colour_rows(f.data(), sums.data(), last - first, n, t.group(), s.scale, s.mix, s.add);
    }
    each([&](C* to, int64_t p) {
      const int64_t at = start + (p - first) * t.plane();
      if (plain != nullptr && coloured) {
        widen_block(plain + at, row.data(), n);
        axpy(row.data(), to, C(1), n, true);
      }
      store_row(to, dx + at, n, t.stream);
    });
  }
};

template <class T, class Out, class C>
void adjoint(const Task& t, const T* dy, const float* params, Out* dx) {
  const int64_t image = t.shape.image(), skip = t.pair ? t.shape.batch * image : 0;
  std::vector<AugmentSample<C>> s = samples<C>(t, params);
  add_means(t, s,
            [&](int64_t b) { return Adjoint<T, Out, C>(t).mean(dy + skip + b * image, s[b]); });
  for_bands(t, [&](int64_t b, int64_t first, int64_t last) {
    Adjoint<T, Out, C> work(t);
    const T* const plain = t.pair ? dy + b * image : nullptr;
    for_planes(t, s[b], [&](int64_t plane, int64_t end) {
      for (int64_t r = first; r < last; ++r) {
        work.write(dy + skip + b * image, plain, s[b], r, plane, end, dx + b * image);
      }
    });
  });
}

}  // namespace
}  // namespace ganops
