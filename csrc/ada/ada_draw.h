// ada, what a sample draws: twin of ganops/ops/ada/parameters.py, line by line, to the last bit.
//
// In double, each operation rounded by itself: `Exact` is never contracted to fused multiply-add.
#pragma once

#include "../philox/philox_math.h"
#include "ada_math.h"

namespace ganops {

struct Exact {
  double v;
};
#if defined(__CUDA_ARCH__)
GANOPS_HD inline Exact operator*(Exact a, Exact b) { return {__dmul_rn(a.v, b.v)}; }
GANOPS_HD inline Exact operator+(Exact a, Exact b) { return {__dadd_rn(a.v, b.v)}; }
GANOPS_HD inline Exact operator-(Exact a, Exact b) { return {__dsub_rn(a.v, b.v)}; }
GANOPS_HD inline Exact operator/(Exact a, Exact b) { return {__ddiv_rn(a.v, b.v)}; }
GANOPS_HD inline Exact nearest(Exact a) { return {rint(a.v)}; }
#else
GANOPS_HD GANOPS_INLINE Exact operator*(Exact a, Exact b) { return {a.v * b.v}; }
GANOPS_HD GANOPS_INLINE Exact operator+(Exact a, Exact b) { return {a.v + b.v}; }
GANOPS_HD GANOPS_INLINE Exact operator-(Exact a, Exact b) { return {a.v - b.v}; }
GANOPS_HD GANOPS_INLINE Exact operator/(Exact a, Exact b) { return {a.v / b.v}; }
GANOPS_HD GANOPS_INLINE Exact nearest(Exact a) { return {__builtin_rint(a.v)}; }
#endif
GANOPS_HD GANOPS_INLINE Exact operator-(Exact a) { return {-a.v}; }

// Fields of AdaPolicy, in the order of its NUMBERS.
struct AdaPlan {
  double flip, rotate90, shift, scale, rotate, aniso, translate, brightness, contrast, luma_flip,
      hue, saturation, filter, noise, cutout, shift_max, scale_std, rotate_max, aniso_std,
      translate_std, brightness_std, contrast_std, hue_max, saturation_std, bands[4], filter_std,
      noise_std;
};
constexpr int kAdaPlan = sizeof(AdaPlan) / sizeof(double);

// Columns of the table of drawn numbers; COLUMNS of parameters.py.
enum AdaColumn : int {
  kFlip = 0,
  kRotate90 = 1,
  kShift = 2,
  kScale = 4,
  kRotateBefore = 5,
  kAniso = 6,
  kRotateAfter = 7,
  kTranslate = 8,
  kAffine = 10,
  kBrightness = 16,
  kContrast = 17,
  kLumaFlip = 18,
  kHue = 19,
  kSaturation = 20,
  kColor = 21,
  kFilter = 33,
  kFiltered = 37,
  kNoise = 38,
  kCutout = 39,  // centre as fractions, and whether it acts
  kCutoutCenter = 42,
  kAdaColumns = 44,
};

constexpr uint64_t kAdaBits = 0xADA0, kAdaNormals = 0xADA1;  // Philox streams
constexpr int kAdaSlots = 32, kAdaNormalSlots = 12;

GANOPS_HD GANOPS_INLINE Exact exp2_exact(Exact x) {
  const Exact whole = nearest(x), r = (x - whole) * Exact{0.6931471805599453};
  Exact y{1};
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // a division in double is long
#endif
  for (int k = 14; k > 0; --k) y = y * r / Exact{double(k)} + Exact{1};
  return y * Exact{bit_cast<double>((int64_t(whole.v) + 1023) << 52)};
}

// The numbers of one sample, and whose gate is open.
struct AdaDraws {
  uint32_t bits[kAdaSlots];
  float normals[kAdaNormalSlots];
  double p;

  GANOPS_HD GANOPS_INLINE AdaDraws(uint64_t seed, uint64_t sample, double probability)
      : p(probability) {
    for (int i = 0; i < kAdaSlots / 4; ++i) {
      const Words w = philox_block(seed, kAdaBits, sample * (kAdaSlots / 4) + uint64_t(i));
      for (int j = 0; j < 4; ++j) bits[4 * i + j] = w.w[j];
    }
    for (int i = 0; i < kAdaNormalSlots / 4; ++i) {
      const uint64_t block = sample * (kAdaNormalSlots / 4) + uint64_t(i);
      normals_from_block(philox_block(seed, kAdaNormals, block), normals + 4 * i);
    }
  }
  GANOPS_HD GANOPS_INLINE Exact uniform(int slot) const { return {uniform_from_bits(bits[slot])}; }
  GANOPS_HD GANOPS_INLINE Exact normal(int slot) const { return {normals[slot]}; }
  GANOPS_HD GANOPS_INLINE bool open(int slot, Exact weight) const {
    return uniform(slot).v < (weight * Exact{p}).v;
  }
  GANOPS_HD GANOPS_INLINE bool open(int slot, double weight) const {
    return open(slot, Exact{weight});
  }
  GANOPS_HD GANOPS_INLINE bool open_rotation(int slot, double weight) const {
    const Exact left = Exact{1} - Exact{weight} * Exact{p}, rest = Exact{1} - uniform(slot);
    return (rest * rest).v > (left.v < 0 ? 0 : left.v);
  }
  GANOPS_HD GANOPS_INLINE Exact factor(int slot, double std, bool gate) const {
    return exp2_exact(gate ? normal(slot) * Exact{std} : Exact{0});
  }
};

struct AdaTurn {
  Exact cos, sin, degrees;
};
GANOPS_HD GANOPS_INLINE AdaTurn ada_turn(uint32_t bits, double most, bool gate) {
  int64_t v = int64_t(bits >> 8) - (1 << 23);
  if (most != 1.0) v = int64_t(nearest({mul_rn(float(v), float(most))}).v);
  if (!gate) v = 0;
  const CosSin turn = cos_sin_turns((uint32_t(v) & 0xFFFFFFu) << 8);
  return {{turn.cos}, {turn.sin}, Exact{double(v)} * Exact{360.0 * 0x1p-24}};
}

struct AdaAffine {
  Exact a{1}, b{0}, c{0}, d{1}, e{0}, f{0};
  GANOPS_HD GANOPS_INLINE void after(Exact p, Exact q, Exact r, Exact s) {
    const AdaAffine g = *this;
    a = g.a * p + g.b * r, b = g.a * q + g.b * s;
    c = g.c * p + g.d * r, d = g.c * q + g.d * s;
  }
  GANOPS_HD GANOPS_INLINE void shift(Exact x, Exact y) {
    e = a * x + b * y + e, f = c * x + d * y + f;
  }
};

GANOPS_HD GANOPS_INLINE void ada_to_map(const AdaAffine& g, bool resample, int64_t height,
                                        int64_t width, int64_t* map) {
  const Exact cx{double(width - 1) / 2}, cy{double(height - 1) / 2};
  const Exact e = g.e + cx - (g.a * cx + g.b * cy), f = g.f + cy - (g.c * cx + g.d * cy);
  const Exact units[6] = {g.a, g.b, e, g.c, g.d, f};
  for (int i = 0; i < 6; ++i) map[i] = int64_t(nearest(units[i] * Exact{0x1p32}).v);
  map[6] = resample || e.v != nearest(e).v || f.v != nearest(f).v;
}

GANOPS_HD GANOPS_INLINE void ada_geometry(const AdaPlan& k, const AdaDraws& d, int64_t height,
                                          int64_t width, double* row, int64_t* map) {
  const Exact zero{0}, one{1};
  const double sides[2] = {double(width), double(height)};
  AdaAffine g;
  bool resample = false;
  if (k.flip > 0) {
    const bool flip = d.open(0, k.flip) && d.uniform(1).v >= 0.5;
    row[kFlip] = flip;
    g.after(flip ? -one : one, zero, zero, one);
  }
  if (k.rotate90 > 0) {
    const int turns = d.open(2, k.rotate90) ? int(d.bits[3] >> 30) : 0;
    row[kRotate90] = 90 * turns;
    const Exact cos{double((turns == 0) - (turns == 2))}, sin{double((turns == 1) - (turns == 3))};
    g.after(cos, -sin, sin, cos);
  }
  if (k.shift > 0) {
    Exact t[2] = {zero, zero};
    for (int i = 0; i < 2 && d.open(4, k.shift); ++i) {
      const Exact v = d.uniform(5 + i) * Exact{2} - one;
      t[i] = nearest(v * Exact{k.shift_max} * Exact{sides[i]});
    }
    row[kShift] = t[0].v, row[kShift + 1] = t[1].v;
    g.shift(-t[0], -t[1]);
  }
  if (k.scale > 0) {
    const bool gate = d.open(7, k.scale);
    const Exact s = d.factor(0, k.scale_std, gate);
    row[kScale] = s.v;
    g.after(one / s, zero, zero, one / s);
    resample |= gate;
  }
  for (int after = 0; after < 2; ++after) {
    if (k.rotate > 0) {
      const int slot = after ? 11 : 8;
      const bool gate = d.open_rotation(slot, k.rotate);
      const AdaTurn turn = ada_turn(d.bits[slot + 1], k.rotate_max, gate);
      row[after ? kRotateAfter : kRotateBefore] = turn.degrees.v;
      g.after(turn.cos, -turn.sin, turn.sin, turn.cos);
      resample |= gate;
    }
    if (!after && k.aniso > 0) {
      const bool gate = d.open(10, k.aniso);
      const Exact s = d.factor(1, k.aniso_std, gate);
      row[kAniso] = s.v;
      g.after(one / s, zero, zero, s);
      resample |= gate;
    }
  }
  if (k.translate > 0) {
    const bool gate = d.open(13, k.translate);
    Exact t[2] = {zero, zero};
    for (int i = 0; i < 2 && gate; ++i) {
      t[i] = d.normal(2 + i) * Exact{k.translate_std} * Exact{sides[i]};
    }
    row[kTranslate] = t[0].v, row[kTranslate + 1] = t[1].v;
    g.shift(-t[0], -t[1]);
    resample |= gate;
  }
  const Exact affine[6] = {g.a, g.b, g.e, g.c, g.d, g.f};
  for (int i = 0; i < 6; ++i) row[kAffine + i] = affine[i].v;
  ada_to_map(g, resample, height, width, map);
}

GANOPS_HD GANOPS_INLINE void ada_color(const AdaPlan& k, const AdaDraws& d, double* row) {
  constexpr double third = 1.0 / 3.0, root_third = 0.5773502691896257;
  Exact c[3][4] = {};
  for (int i = 0; i < 3; ++i) c[i][i] = {1};
  const auto luma = [&](int j) { return (c[0][j] + c[1][j] + c[2][j]) * Exact{third}; };
  if (k.brightness > 0) {
    const Exact b = d.open(14, k.brightness) ? d.normal(4) * Exact{k.brightness_std} : Exact{0};
    row[kBrightness] = b.v;
    for (int i = 0; i < 3; ++i) c[i][3] = c[i][3] + b;
  }
  if (k.contrast > 0) {
    const Exact s = d.factor(5, k.contrast_std, d.open(15, k.contrast));
    row[kContrast] = s.v;
    for (int i = 0; i < 12; ++i) c[i / 4][i % 4] = c[i / 4][i % 4] * s;
  }
  if (k.luma_flip > 0) {
    const bool flip = d.open(16, k.luma_flip) && d.uniform(17).v >= 0.5;
    row[kLumaFlip] = flip;
    for (int j = 0; j < 4; ++j) {
      const Exact twice = Exact{flip ? 2.0 : 0.0} * luma(j);
      for (int i = 0; i < 3; ++i) c[i][j] = c[i][j] - twice;
    }
  }
  if (k.hue > 0) {
    const AdaTurn turn = ada_turn(d.bits[19], k.hue_max, d.open(18, k.hue));
    row[kHue] = turn.degrees.v;
    for (int j = 0; j < 4; ++j) {
      const Exact mean = luma(j), v[3] = {c[0][j], c[1][j], c[2][j]};
      for (int i = 0; i < 3; ++i) {
        const Exact cross = (v[(i + 2) % 3] - v[(i + 1) % 3]) * Exact{root_third};
        c[i][j] = v[i] * turn.cos + cross * turn.sin + (Exact{1} - turn.cos) * mean;
      }
    }
  }
  if (k.saturation > 0) {
    const Exact s = d.factor(6, k.saturation_std, d.open(20, k.saturation));
    row[kSaturation] = s.v;
    for (int j = 0; j < 4; ++j) {
      const Exact mean = luma(j);
      for (int i = 0; i < 3; ++i) c[i][j] = mean + (c[i][j] - mean) * s;
    }
  }
  for (int i = 0; i < 12; ++i) row[kColor + i] = c[i / 4][i % 4].v;
}

GANOPS_HD GANOPS_INLINE void ada_bands(const AdaPlan& k, const AdaDraws& d, double* row) {
  const Exact one{1};
  Exact total[4] = {one, one, one, one};
  bool any = false;
  for (int band = 0; band < 4; ++band) {
    const bool gate = d.open(21 + band, Exact{k.filter} * Exact{k.bands[band]});
    const Exact t = d.factor(7 + band, k.filter_std, gate);
    const Exact power{(band == 0 ? 10.0 : 1.0) / 13.0};
    const Exact norm{sqrt_rn(float((one - power + power * t * t).v))};
    for (int i = 0; i < 4; ++i) total[i] = total[i] * ((i == band ? t : one) / norm);
    any |= gate;
  }
  for (int i = 0; i < 4; ++i) row[kFilter + i] = total[i].v;
  row[kFiltered] = any;
}

// Everything that sample `sample` draws: a row of the table, and its map.
GANOPS_HD GANOPS_INLINE void ada_draw(const AdaPlan& k, double p, uint64_t seed, uint64_t sample,
                                      int64_t height, int64_t width, double* row, int64_t* map) {
  const AdaDraws d(seed, sample, p);
  for (int i = 0; i < kAdaColumns; ++i) row[i] = 0;
  ada_geometry(k, d, height, width, row, map);
  ada_color(k, d, row);
  if (k.filter > 0) ada_bands(k, d, row);
  if (k.noise > 0) {
    const double sigma = (d.normal(11) * Exact{k.noise_std}).v;
    row[kNoise] = d.open(25, k.noise) ? (sigma < 0 ? -sigma : sigma) : 0.0;
  }
  if (k.cutout > 0) {
    const Exact x = d.uniform(27), y = d.uniform(28);
    row[kCutout] = x.v, row[kCutout + 1] = y.v, row[kCutout + 2] = d.open(26, k.cutout);
    row[kCutoutCenter] = (x * Exact{double(width)}).v;
    row[kCutoutCenter + 1] = (y * Exact{double(height)}).v;
  }
}

}  // namespace ganops
