// ada on the CPU, whole images: tiles of ada_tiles.h, blitting, colour.
#pragma once

#include "ada_tiles.h"

namespace ganops {
namespace {

// One tile: D T x into y.
template <class C, int V>
GANOPS_INLINE void forward_tile(const AdaImage<C, V>& im, const AdaTile& t, bool box,
                                AdaScratch<C>& s) {
  if (box) upsample_box(im, t, s);
  const int64_t run = t.x.count * V;
  s.down.resize(t.y.points * run);
  s.even.resize((t.x.points / 2) * V);
  s.odd.resize((t.x.points / 2) * V);
  const Phase<C> odds(11, C(1)), evens(10, C(1));  // taps f[11], f[9] ... and f[10], f[8] ...
  for (int64_t row = 0; row < t.y.points; ++row) {
    if (box) {
      locate(im.map, t, row, s);
      sample_row<C, V>(t, s);
    } else {
      point_row<C, V, false>(im, t, row, s);
    }
    // y[o] = sum_k f[k] w[2 o + k]: taps ascend with the points here.
    const C* in[12];
    C taps[12];
    for (int k = 0; k < 6; ++k) {
      in[2 * k] = s.even.data() + k * V;
      in[2 * k + 1] = s.odd.data() + k * V;
      taps[2 * k] = evens.taps[5 - k];
      taps[2 * k + 1] = odds.taps[5 - k];
    }
    fir<12>(s.down.data() + row * run, in, taps, run);
  }
  C taps[12];
  for (int k = 0; k < 12; ++k) taps[k] = sym6<C>(k);
  for (int64_t o = 0; o < t.y.count; ++o) {
    const C* in[12];
    for (int k = 0; k < 12; ++k) in[k] = s.down.data() + (2 * o + k) * run;
    fir<12>(im.y + ((t.y.first + o) * im.width + t.x.first) * V, in, taps, run);
  }
}

// Its adjoint: T' D' of a tile of the gradient, added to y.
template <class C, int V>
GANOPS_INLINE void adjoint_tile(const AdaImage<C, V>& im, const AdaTile& t, bool box,
                                AdaScratch<C>& s) {
  const int64_t run = t.x.count * V, pitch = 2 * t.x.half * V;
  const int64_t halves = t.x.points / 2;  // count + 5
  if (box) s.box.assign(2 * t.y.half * pitch, C(0));
  s.even.resize(halves * V);
  s.odd.resize(halves * V);
  s.line.assign((halves + 5) * V, C(0));  // a row of the gradient between zeros
  const Phase<C> odds(11, C(1)), evens(10, C(1));
  for (int64_t row = 0; row < t.y.points; ++row) {
    C* line = s.line.data() + 5 * V;
    std::fill(line, line + run, C(0));
    for (int k = row & 1; k < 12; k += 2) {
      const int64_t o = (row - k) / 2;
      if (row < k || o >= t.y.count) continue;
      const C* g = im.x + ((t.y.first + o) * im.width + t.x.first) * V;
      const C tap = sym6<C>(k);
      for (int64_t i = 0; i < run; ++i) line[i] += tap * g[i];
    }
    // w[2 n] = sum_k f[2 k] line[n - k], w[2 n + 1] with f[2 k + 1]: descending taps.
    fir6(s.even.data(), s.line.data(), V, evens, halves * V);
    fir6(s.odd.data(), s.line.data(), V, odds, halves * V);
    if (box) {
      locate(im.map, t, row, s);
      spread_row<C, V>(t, s);
    } else {
      point_row<C, V, true>(im, t, row, s);
    }
  }
  if (box) downsample_box(im, t, s);
}

// The adjoint of upsample_box: every pixel of the continuation, added where it stands.
template <class C, int V>
GANOPS_INLINE void downsample_box(const AdaImage<C, V>& im, const AdaTile& t, AdaScratch<C>& s) {
  constexpr int64_t kPad = 6;
  const int64_t half = t.x.half, pitch = 2 * half * V, n = half + 6;
  s.rows.resize(pitch);
  s.even.assign((half + 2 * kPad) * V, C(0));
  s.odd.assign((half + 2 * kPad) * V, C(0));
  s.line.resize(n * V);
  const int64_t x0 = t.x.up / 2 - 3, y0 = t.y.up / 2 - 3;
  C evens[6], odds[6];  // taps that meet even and odd points: f[1], f[3] ... and f[0], f[2] ...
  for (int k = 0; k < 6; ++k) {
    evens[k] = C(2) * sym6<C>(2 * k + 1);
    odds[k] = C(2) * sym6<C>(2 * k);
  }
  for (int64_t j = 0; j < t.y.half + 6; ++j) {
    C* h = s.rows.data();
    std::fill(h, h + pitch, C(0));
    for (int k = 0; k < 12; ++k) {
      const int64_t i = 2 * (j - 3) + k - 5;  // of the box
      if (i < 0 || i >= 2 * t.y.half) continue;
      const C tap = C(2) * sym6<C>(k);
      const C* u = s.box.data() + i * pitch;
      for (int64_t at = 0; at < pitch; ++at) h[at] += tap * u[at];
    }
    for (int64_t i = 0; i < half; ++i) {
      store_lanes<C, V>(s.even.data() + (kPad + i) * V, load_lanes<C, V>(h + 2 * i * V));
      store_lanes<C, V>(s.odd.data() + (kPad + i) * V, load_lanes<C, V>(h + (2 * i + 1) * V));
    }
    const C* in[12];
    C taps[12];
    for (int k = 0; k < 6; ++k) {
      in[k] = s.even.data() + (k + 1) * V;
      in[6 + k] = s.odd.data() + k * V;
      taps[k] = evens[k];
      taps[6 + k] = odds[k];
    }
    fir<12>(s.line.data(), in, taps, n * V);
    C* out = im.y + ada_reflect(y0 + j, im.height) * im.width * V;
    if (x0 >= 0 && x0 + n <= im.width) {
      for (int64_t i = 0; i < n * V; ++i) out[x0 * V + i] += s.line[i];
      continue;
    }
    for (int64_t i = 0; i < n; ++i) {
      C* p = out + ada_reflect(x0 + i, im.width) * V;
      store_lanes<C, V>(p, load_lanes<C, V>(p) + load_lanes<C, V>(s.line.data() + i * V));
    }
  }
}

// Runs f(tile, whether its box is held) over the image.
template <class C, int V, class F>
GANOPS_INLINE void each_tile(const AdaImage<C, V>& im, AdaScratch<C>& s, const F& f) {
  const auto bytes = [&](int64_t side) GANOPS_LAMBDA {
    const AdaTile t =
        ada_tile_at(im.map, 0, 0, std::min(side, im.width), std::min(side, im.height));
    // One more for where the tile begins; in floating point, so that nothing overflows.
    return 4.0 * double(t.x.half + 1) * double(t.y.half + 1) * V * sizeof(C);
  };
  int64_t side = kTile;
  while (side > 8 && bytes(side) > double(kBoxBytes)) side /= 2;
  const bool box = bytes(side) <= double(kMostBytes);
  s.at.resize(2 * side + kAdaHalo);
  s.fx.resize(2 * side + kAdaHalo);
  s.fy.resize(2 * side + kAdaHalo);
  for (int64_t y = 0; y < im.height; y += side) {
    for (int64_t x = 0; x < im.width; x += side) {
      f(ada_tile_at(im.map, x, y, std::min(side, im.width - x), std::min(side, im.height - y)),
        box);
    }
  }
}

// Runs f(result, source) over the pixels of a blitted image.
template <class C, int V, class F>
GANOPS_INLINE void each_pixel(const AdaImage<C, V>& im, const F& f) {
  const AdaMap& m = im.map;
  for (int64_t y = 0; y < im.height; ++y) {
    for (int64_t x = 0; x < im.width; ++x) {
      const int64_t sx = ada_reflect((m.a * x + m.b * y + m.e) >> 32, im.width);
      const int64_t sy = ada_reflect((m.c * x + m.d * y + m.f) >> 32, im.height);
      f((y * im.width + x) * V, (sy * im.width + sx) * V);
    }
  }
}

template <class C, int V>
GANOPS_INLINE void forward_image(const AdaImage<C, V>& im, AdaScratch<C>& s) {
  if (im.map.resample) {
    each_tile(im, s,
              [&](const AdaTile& t, bool box) GANOPS_LAMBDA { forward_tile(im, t, box, s); });
  } else {
    each_pixel(im, [&](int64_t to, int64_t from) GANOPS_LAMBDA {
      store_lanes<C, V>(im.y + to, load_lanes<C, V>(im.x + from));
    });
  }
}

template <class C, int V>
GANOPS_INLINE void adjoint_image(const AdaImage<C, V>& im, AdaScratch<C>& s) {
  if (im.map.resample) {
    each_tile(im, s,
              [&](const AdaTile& t, bool box) GANOPS_LAMBDA { adjoint_tile(im, t, box, s); });
  } else {
    each_pixel(im, [&](int64_t to, int64_t from) GANOPS_LAMBDA {
      store_lanes<C, V>(im.y + from, load_lanes<C, V>(im.y + from) + load_lanes<C, V>(im.x + to));
    });
  }
}

// In place: v -> M v + b, or M' v. color: (channels, channels + 1), 1 or 3 of V lanes.
template <class C, int V>
GANOPS_INLINE void color_image(C* image, int64_t pixels, const C* color, int64_t channels,
                               bool transposed) {
  using L = lanes_t<C, V>;
  constexpr int n = V == 1 ? 1 : 3;
  L columns[n + 1] = {};
  for (int i = 0; i < channels; ++i) {
    for (int j = 0; j < channels; ++j) {
      columns[j][i] = color[transposed ? j * (channels + 1) + i : i * (channels + 1) + j];
    }
    columns[n][i] = transposed ? C(0) : color[i * (channels + 1) + channels];
  }
  for (int64_t i = 0; i < pixels; ++i) {
    const L v = load_lanes<C, V>(image + i * V);
    L sum = columns[n];
    for (int j = 0; j < n; ++j) sum += columns[j] * v[j];
    store_lanes<C, V>(image + i * V, sum);
  }
}

}  // namespace
}  // namespace ganops
