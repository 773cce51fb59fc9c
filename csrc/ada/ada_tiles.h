// ada on the CPU: one image of V interleaved channels, tile by tile, forward and adjoint.
//
// A tile of T x T results reads (2 T + 10)^2 points of the sampling lattice, whose sources lie in a
// box of the upsampled image that is made for the tile alone, so that it stays in the second-level
// cache. Filters run along interleaved rows, which vectorises them over columns and channels.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "ada_math.h"

namespace ganops {
namespace {

template <class C, int V>
struct Lanes {
  typedef C type __attribute__((vector_size(V * sizeof(C)), aligned(sizeof(C)), may_alias));
};
template <class C, int V>
using lanes_t = typename Lanes<C, V>::type;

template <class C, int V>
GANOPS_INLINE lanes_t<C, V> load_lanes(const C* p) {
  return *reinterpret_cast<const lanes_t<C, V>*>(p);
}
template <class C, int V>
GANOPS_INLINE void store_lanes(C* p, lanes_t<C, V> v) {
  *reinterpret_cast<lanes_t<C, V>*>(p) = v;
}

constexpr int64_t kTile = 48;                     // results along each side of a tile
constexpr int64_t kBoxBytes = int64_t(1) << 20;   // of the upsampled box; else smaller tiles
constexpr int64_t kMostBytes = int64_t(8) << 20;  // beyond it even so: point by point

// Tile and box: results [x, x + nx), lattice from 2 x - 5, upsampled columns [ux, ux + 2 n).
struct AdaAxis {
  int64_t first, count;  // results
  int64_t points;        // of the lattice
  int64_t up, half;      // first upsampled index (even), and half of their number
};

struct AdaTile {
  AdaAxis x, y;
  int64_t sx, sy;  // source coordinates of the tile's first lattice point
};

GANOPS_INLINE void ada_box(AdaAxis& axis, int64_t s, int64_t over_x, int64_t over_y) {
  const int64_t zero = 0;
  const int64_t low = (s + std::min(zero, over_x) + std::min(zero, over_y)) >> 32;
  const int64_t high = (s + std::max(zero, over_x) + std::max(zero, over_y)) >> 32;
  axis.up = low & ~int64_t(1);
  axis.half = (high + 2 - axis.up + 1) / 2;
}

GANOPS_INLINE AdaTile ada_tile_at(const AdaMap& m, int64_t x, int64_t y, int64_t nx, int64_t ny) {
  AdaTile t;
  t.x = {x, nx, 2 * nx + kAdaHalo, 0, 0};
  t.y = {y, ny, 2 * ny + kAdaHalo, 0, 0};
  const int64_t mx = 2 * x - kAdaBefore, my = 2 * y - kAdaBefore;
  t.sx = m.a * mx + m.b * my + 2 * m.e;
  t.sy = m.c * mx + m.d * my + 2 * m.f;
  ada_box(t.x, t.sx, m.a * (t.x.points - 1), m.b * (t.y.points - 1));
  ada_box(t.y, t.sy, m.c * (t.x.points - 1), m.d * (t.y.points - 1));
  return t;
}

template <class C, int V>
struct AdaImage {
  int64_t height, width;
  AdaMap map;
  const C* x;  // (height, width, V): forward the image, adjoint the gradient of the result
  C* y;        // the same: what is computed; adjoint: zeros to begin with
};

template <class C>
struct AdaScratch {
  std::vector<C> box, rows, line, even, odd, down;
  std::vector<int32_t> at;
  std::vector<C> fx, fy;
};

// out[i] = sum_t taps[t] in[i + t step], t = 0 ... n - 1.
template <int N, class C>
GANOPS_INLINE void fir(C* GANOPS_RESTRICT out, const C* const (&in)[N], const C (&taps)[N],
                       int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    C sum = taps[0] * in[0][i];
    for (int t = 1; t < N; ++t) sum += taps[t] * in[t][i];
    out[i] = sum;
  }
}

// Taps 2 f[first - 2 t]: the six that meet an even (first = 11) or odd (10) upsampled point.
template <class C>
struct Phase {
  C taps[6];
  GANOPS_INLINE explicit Phase(int first, C gain = C(2)) {
    for (int t = 0; t < 6; ++t) taps[t] = gain * sym6<C>(first - 2 * t);
  }
};

template <class C>
GANOPS_INLINE void fir6(C* out, const C* in, int64_t step, const Phase<C>& phase, int64_t count) {
  const C* const rows[6] = {in,           in + step, in + 2 * step, in + 3 * step, in + 4 * step,
                            in + 5 * step};
  fir<6>(out, rows, phase.taps, count);
}

// Row y of the image, columns first ... first + n - 1 of its continuation: itself or a copy.
template <class C, int V>
GANOPS_INLINE const C* continued_row(const AdaImage<C, V>& im, int64_t y, int64_t first, int64_t n,
                                     C* copy) {
  const C* row = im.x + ada_reflect(y, im.height) * im.width * V;
  if (first >= 0 && first + n <= im.width) return row + first * V;
  for (int64_t i = 0; i < n; ++i) {
    store_lanes<C, V>(copy + i * V, load_lanes<C, V>(row + ada_reflect(first + i, im.width) * V));
  }
  return copy;
}

// The tile's box of the upsampled image.
template <class C, int V>
GANOPS_INLINE void upsample_box(const AdaImage<C, V>& im, const AdaTile& t, AdaScratch<C>& s) {
  constexpr int64_t kRing = 8;  // rows upsampled along x; six are needed at a time
  const int64_t half = t.x.half, pitch = 2 * half * V;
  const Phase<C> phases[2] = {Phase<C>(11), Phase<C>(10)};
  s.rows.resize(kRing * pitch);
  s.line.resize((half + 6) * V);
  s.even.resize(half * V);
  s.odd.resize(half * V);
  s.box.resize(2 * t.y.half * pitch);
  const int64_t x0 = t.x.up / 2 - 3, y0 = t.y.up / 2 - 3;
  int64_t ready = 0;
  for (int64_t i = 0; i < 2 * t.y.half; ++i) {
    const int64_t first = i / 2 + (i & 1);
    for (; ready < first + 6; ++ready) {
      const C* row = continued_row(im, y0 + ready, x0, half + 6, s.line.data());
      fir6(s.even.data(), row, V, phases[0], half * V);
      fir6(s.odd.data(), row + V, V, phases[1], half * V);
      C* out = s.rows.data() + (ready % kRing) * pitch;
      for (int64_t k = 0; k < half; ++k) {
        store_lanes<C, V>(out + 2 * k * V, load_lanes<C, V>(s.even.data() + k * V));
        store_lanes<C, V>(out + (2 * k + 1) * V, load_lanes<C, V>(s.odd.data() + k * V));
      }
    }
    const C* in[6];
    for (int k = 0; k < 6; ++k) in[k] = s.rows.data() + ((first + k) % kRing) * pitch;
    fir<6>(s.box.data() + i * pitch, in, phases[i & 1].taps, pitch);
  }
}

// Where the points of one lattice row lie in the box, and how far beyond.
template <class C>
GANOPS_INLINE void locate(const AdaMap& m, const AdaTile& t, int64_t row, AdaScratch<C>& s) {
  const int64_t sx = t.sx + m.b * row - t.x.up * (int64_t(1) << 32);
  const int64_t sy = t.sy + m.d * row - t.y.up * (int64_t(1) << 32);
  const int32_t pitch = int32_t(2 * t.x.half);
  int32_t* GANOPS_RESTRICT at = s.at.data();
  C *GANOPS_RESTRICT fx = s.fx.data(), *GANOPS_RESTRICT fy = s.fy.data();
  for (int64_t i = 0; i < t.x.points; ++i) {
    const int64_t x = sx + m.a * i, y = sy + m.c * i;
    at[i] = int32_t(y >> 32) * pitch + int32_t(x >> 32);
    fx[i] = ada_fraction<C>(x);
    fy[i] = ada_fraction<C>(y);
  }
}

// One row of lattice points, bilinearly, split into even and odd ones.
template <class C, int V>
GANOPS_INLINE void sample_row(const AdaTile& t, AdaScratch<C>& s) {
  using L = lanes_t<C, V>;
  const int64_t pitch = 2 * t.x.half * V;
  for (int64_t i = 0; i < t.x.points; ++i) {
    const C* p = s.box.data() + int64_t(s.at[i]) * V;
    const L a = load_lanes<C, V>(p), b = load_lanes<C, V>(p + V);
    const L c = load_lanes<C, V>(p + pitch), d = load_lanes<C, V>(p + pitch + V);
    const L near = a + (b - a) * s.fx[i], far = c + (d - c) * s.fx[i];
    C* out = (i & 1 ? s.odd : s.even).data() + (i >> 1) * V;
    store_lanes<C, V>(out, near + (far - near) * s.fy[i]);
  }
}

// Its adjoint: into the box.
template <class C, int V>
GANOPS_INLINE void spread_row(const AdaTile& t, AdaScratch<C>& s) {
  using L = lanes_t<C, V>;
  const int64_t pitch = 2 * t.x.half * V;
  for (int64_t i = 0; i < t.x.points; ++i) {
    C* p = s.box.data() + int64_t(s.at[i]) * V;
    const L g = load_lanes<C, V>((i & 1 ? s.odd : s.even).data() + (i >> 1) * V);
    const L far = g * s.fy[i], near = g - far;
    const L far_right = far * s.fx[i], near_right = near * s.fx[i];
    store_lanes<C, V>(p, load_lanes<C, V>(p) + (near - near_right));
    store_lanes<C, V>(p + V, load_lanes<C, V>(p + V) + near_right);
    p += pitch;
    store_lanes<C, V>(p, load_lanes<C, V>(p) + (far - far_right));
    store_lanes<C, V>(p + V, load_lanes<C, V>(p + V) + far_right);
  }
}

// The same two for maps that shrink so much that no box can be held: 7 x 7 taps for each point.
template <class C, int V, bool kSpread>
GANOPS_INLINE void point_row(const AdaImage<C, V>& im, const AdaTile& t, int64_t row,
                             AdaScratch<C>& s) {
  for (int64_t i = 0; i < t.x.points; ++i) {
    const int64_t sx = t.sx + im.map.b * row + im.map.a * i;
    const int64_t sy = t.sy + im.map.d * row + im.map.c * i;
    C* value = (i & 1 ? s.odd : s.even).data() + (i >> 1) * V;
    lanes_t<C, V> sum{};
    for (int j = 0; j < 7; ++j) {
      const int64_t y = ada_reflect(ada_first(sy) + j, im.height);
      for (int k = 0; k < 7; ++k) {
        const int64_t x = ada_reflect(ada_first(sx) + k, im.width);
        const C w = ada_tap<C>(sy, j) * ada_tap<C>(sx, k);
        if (kSpread) {
          C* p = im.y + (y * im.width + x) * V;
          store_lanes<C, V>(p, load_lanes<C, V>(p) + w * load_lanes<C, V>(value));
        } else {
          sum += w * load_lanes<C, V>(im.x + (y * im.width + x) * V);
        }
      }
    }
    if (!kSpread) store_lanes<C, V>(value, sum);
  }
}

}  // namespace
}  // namespace ganops
