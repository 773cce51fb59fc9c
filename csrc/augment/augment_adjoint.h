// augment's CPU adjoint: rows of dx, from the rows of dy that read them.
#pragma once

#include "augment_task.h"

namespace ganops {
namespace {

// plain[i] + x[i], forwards or (last given) backwards.
#define GANOPS_SUM_RUN(C)                                                         \
  GANOPS_CLONES                                                                   \
  inline void sum_run(const C* GANOPS_RESTRICT plain, const C* GANOPS_RESTRICT x, \
                      C* GANOPS_RESTRICT to, int64_t n, bool forward) {           \
    if (forward) {                                                                \
      for (int64_t i = 0; i < n; ++i) to[i] = plain[i] + x[i];                    \
    } else {                                                                      \
      for (int64_t i = 0; i < n; ++i) to[i] = plain[i] + x[-i];                   \
    }                                                                             \
  }
GANOPS_SUM_RUN(float)
GANOPS_SUM_RUN(double)

// Bytes between the row at work and the one asked for: of short rows, turned, from several places
// the hardware foresees nothing (a flip's backward took twice the time).
constexpr int64_t kAhead = 2048;

// Rows of dx from the rows of dy that read them.
template <class T, class Out, class C>
struct Adjoint {
  const Task& t;
  const AugmentSample<C>& s;
  const T* const dy;
  const T* const plain;  // what comes on top, if any
  const Runs runs[2];    // of the pixel that is read, and of the next
  std::vector<C> f, row, sums, turned;

  Adjoint(const Task& task, const AugmentSample<C>& sample, const T* dy_, const T* plain_)
      : t(task),
        s(sample),
        dy(dy_),
        plain(plain_),
        runs{row_runs(s.ix, t.shape.width, t.reflect(), s.flip),
             row_runs(s.ix + 1, t.shape.width, t.reflect(), s.flip)},
        f(t.row() * t.planes()),
        row(t.row()),
        sums(t.row()),
        turned(t.group() > 1 ? t.row() : 0) {}

  bool cut_out(int64_t h) const { return h >= s.top && h < s.bottom && s.left < s.right; }

  // Row h of dy, zero where it was cut out; its own memory where that will do.
  const C* read(int64_t p, int64_t h) {
    const T* const from = dy + p * t.plane() + h * t.row();
    const bool cut = cut_out(h);
    if constexpr (std::is_same_v<T, C>) {
      if (!cut) return from;
    }
    widen_block(from, row.data(), t.row());
    if (cut) std::fill_n(row.data() + s.left * t.group(), (s.right - s.left) * t.group(), C(0));
    return row.data();
  }

  C mean() {
    const int64_t n = t.row();
    for (int64_t i = 0; i < n; ++i) {
      sums[i] = inside_weight(i / t.group(), s.ix, s.fx, t.shape.width, t.reflect());
    }
    double total = 0;
    for (int64_t h = 0; h < t.shape.height; ++h) {
      const C weight = inside_weight(h, s.iy, s.fy, t.shape.height, t.reflect());
      for (int64_t p = 0; weight != C(0) && p < t.planes(); ++p) {
        const C* const d = read(p, h);
        for (int64_t i = 0; i < n; i += kBlock) {
          total += weight * dot_block(d + i, sums.data() + i, std::min(kBlock, n - i));
        }
      }
    }
    return C(total / double(t.shape.image()));
  }

  // Asks for row r of plane p, and for the row of dy that reads it. (Not inlined, g++ drops calls
  // of a function that only prefetches.)
  GANOPS_INLINE void prefetch(int64_t r, int64_t p) const {
    const int64_t n = t.row(), bottom = t.shape.height - 1;
    const int64_t at = p * t.plane() + std::min(r, bottom) * n;
    const int64_t read = p * t.plane() + std::clamp<int64_t>(r - s.iy, 0, bottom) * n;
    for (int64_t i = 0; i < n; i += 64 / int64_t(sizeof(T))) {
      if (plain != nullptr) __builtin_prefetch(plain + at + i);
      __builtin_prefetch(dy + read + i);
    }
  }

  // base plus the longest run of row h of dy, in one pass; false: not in this case.
  bool begin(const T* base, int64_t p, int64_t h, C* to) {
    if constexpr (std::is_same_v<T, C>) {
      const Run& r = runs[0].run[0];
      const int64_t n = r.end - r.begin, g = t.group();
      if (base == nullptr || h < 0 || n <= 0 || cut_out(h) || (g > 1 && !r.forward)) return false;
      const int64_t from = (r.forward ? r.first : r.first - (n - 1)) * g, end = from + n * g;
      const C* const x = dy + p * t.plane() + h * t.row() + (r.forward ? r.begin : r.end - 1) * g;
      std::copy_n(base, from, to);
      sum_run(base + from, x, to + from, n * g, r.forward);
      std::copy_n(base + end, t.row() - end, to + end);
      return true;
    }
    return false;
  }

  // Row r of planes [first, last).
  void write(int64_t r, int64_t first, int64_t last, Out* dx) {
    const int64_t n = t.row(), height = t.shape.height, start = first * t.plane() + r * n;
    const bool coloured = colours(s), between = s.fx != C(0) || s.fy != C(0);
    const auto each = [&](const auto& g) {
      for (int64_t p = first; p < last; ++p) g(f.data() + (p - first) * n, p);
    };
    const int64_t direct = augment_reader(r, s.iy, height, t.reflect(), 0);
    bool begun = false;
    each([&](C* to, int64_t p) {
      prefetch(r + ceil_div(kAhead, n * int64_t(sizeof(T))), p);
      const T* const base = plain && !coloured ? plain + p * t.plane() + r * n : nullptr;
      begun = !between && begin(base, p, direct, to);
      if (!begun) base ? widen_block(base, to, n) : void(std::fill_n(to, n, C(0)));
    });
    for (int tap = 0; tap < 6; ++tap) {
      const C wy = tap < 3 ? C(1) - s.fy : s.fy;
      const int64_t h = augment_reader(r, s.iy + tap / 3, height, t.reflect(), tap % 3);
      if (wy == C(0) || h < 0) continue;
      for (int tap_x = 0; tap_x < 2; ++tap_x) {
        const C weight = wy * (tap_x == 0 ? C(1) - s.fx : s.fx);
        if (weight == C(0)) continue;
        Runs rest = runs[tap_x];
        if (begun && tap == 0) rest.run[0] = {};
        each([&](C* to, int64_t p) {
          add_scattered(read(p, h), to, rest, t.group(), weight, turned.data());
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
  const int64_t image = t.shape.image();
  std::vector<AugmentSample<C>> s = samples<C>(t, params);
  const auto of = [&](int64_t b) {
    const T* const changed = dy + (t.pair ? t.shape.batch + b : b) * image;
    return Adjoint<T, Out, C>(t, s[b], changed, t.pair ? dy + b * image : nullptr);
  };
  add_means(t, s, [&](int64_t b) { return of(b).mean(); });
  for_bands(t, [&](int64_t b, int64_t first, int64_t last) {
    Adjoint<T, Out, C> work = of(b);
    for_planes(t, s[b], [&](int64_t plane, int64_t end) {
      for (int64_t r = first; r < last; ++r) work.write(r, plane, end, dx + b * image);
    });
  });
}

}  // namespace
}  // namespace ganops
