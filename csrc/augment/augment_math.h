// augment, the formulas: what is drawn for a sample, where an output pixel reads, and colours.
// ganops/ops/augment/reference.py is the specification.
//
//   y = A x + M mean_channels(x) + (1 - k) mean_image(x) + b     A = k s, M = k (1 - s)
//
// for brightness b, saturation s and contrast k, applied in that order; then flip, shift, noise,
// cutout. The linear part of it is symmetric in the pixels: the adjoint mixes colours the same way,
// after the adjoint of the rest.
#pragma once

#include "../philox/philox_math.h"

namespace ganops {

constexpr int kAugmentColumns = 11;
constexpr int kMostPlanes = 8;
// Columns of the parameters, and flags, as in reference.py; a test compares.
enum AugmentColumn : int {
  flip,
  shift_y,
  shift_x,
  brightness,
  saturation,
  contrast,
  cut_top,
  cut_left,
  cut_height,
  cut_width,
  noise
};
enum AugmentFlag : int {
  kReflect = 1,
  kSubpixel = 2,
  kSaturation = 4,
  kContrast = 8,
  kNoise = 16,
};

struct AugmentShape {
  int64_t batch, channels, height, width;
  bool channels_last;
  GANOPS_HD int64_t image() const { return channels * height * width; }
};

struct AugmentPlan {
  int64_t height, width, flip, gate, shift_y, shift_x, cut_y, cut_x;
  float sub_y, sub_x, brightness, saturation, contrast, noise;
};

// Block `block` of the stream of one sample. Blocks 0 ... 3 are the parameters'.
constexpr uint64_t kParameterBlocks = 4;
GANOPS_HD GANOPS_INLINE Words augment_words(uint64_t seed, uint64_t sample, uint64_t block) {
  return philox_block(seed, (uint64_t(1) << 63) + sample, block);
}

// Uniform in {0, ..., values - 1}.
GANOPS_HD GANOPS_INLINE int64_t whole_from_bits(uint32_t bits, int64_t values) {
  return int64_t((uint64_t(bits) * uint64_t(values)) >> 32);
}
// Uniform in [-1, 1).
GANOPS_HD GANOPS_INLINE float signed_from_bits(uint32_t bits) {
  return mul_rn(float(int32_t(bits >> 8) - (1 << 23)), 0x1p-23f);
}

GANOPS_HD GANOPS_INLINE void augment_draw(uint64_t seed, uint64_t sample, const AugmentPlan& p,
                                          float* row) {
  uint32_t w[16];
  for (int block = 0; block < int(kParameterBlocks); ++block) {
    const Words words = augment_words(seed, sample, uint64_t(block));
    for (int i = 0; i < 4; ++i) w[4 * block + i] = words.w[i];
  }
  const auto happens = [&](int word) { return int64_t(w[word] >> 8) < p.gate; };
  const auto shift = [&](int word, int64_t most, float sub) {
    const float pixels = float(whole_from_bits(w[word], 2 * most + 1) - most);
    return happens(1) ? fma_apart(signed_from_bits(w[word]), sub, pixels) : 0.0f;
  };
  const auto factor = [&](int word, float strength) {
    return happens(word) ? fma_apart(signed_from_bits(w[word + 1]), strength, 1.0f) : 1.0f;
  };
  const bool cuts = happens(4) && p.cut_y > 0 && p.cut_x > 0;
  const auto corner = [&](int word, int64_t side, int64_t cut) {
    return cuts ? float(whole_from_bits(w[word], side + 1 - cut % 2) - cut / 2) : 0.0f;
  };
  row[flip] = int64_t(w[0] >> 8) < p.flip ? 1.0f : 0.0f;
  row[shift_y] = shift(2, p.shift_y, p.sub_y);
  row[shift_x] = shift(3, p.shift_x, p.sub_x);
  row[brightness] = happens(8) ? mul_rn(signed_from_bits(w[9]), p.brightness) : 0.0f;
  row[saturation] = factor(10, p.saturation);
  row[contrast] = factor(12, p.contrast);
  row[cut_top] = corner(5, p.height, p.cut_y);
  row[cut_left] = corner(6, p.width, p.cut_x);
  row[cut_height] = cuts ? float(p.cut_y) : 0.0f;
  row[cut_width] = cuts ? float(p.cut_x) : 0.0f;
  row[noise] = happens(14) ? p.noise : 0.0f;
}

// u / 127.5 - 1 with the bits of a division: u times the high 16 bits of 1 / 127.5 is exact.
GANOPS_HD GANOPS_INLINE float unit_from_byte(uint8_t u) {
  const float v = float(u);
  return add_rn(fma_apart(v, 0x1.0102p-7f, mul_rn(v, -0x1.fdfdfep-24f)), -1.0f);
}

// Where the output position w of an axis reads under a shift by i; -1: beyond the border.
GANOPS_HD GANOPS_INLINE int64_t augment_source(int64_t w, int64_t i, int64_t side, bool reflect) {
  int64_t at = w + i;
  if (reflect) {
    at = at < 0 ? -at : at;
    return at > side - 1 ? 2 * (side - 1) - at : at;
  }
  return at >= 0 && at < side ? at : -1;
}

// The other way: candidate k = 0, 1, 2 of the output positions that read position r; -1: none.
GANOPS_HD GANOPS_INLINE int64_t augment_reader(int64_t r, int64_t i, int64_t side, bool reflect,
                                               int k) {
  if (k > 0 && !reflect) return -1;
  if ((k == 1 && r == 0) || (k == 2 && r == side - 1)) return -1;
  const int64_t w = (k == 0 ? r : k == 1 ? -r : 2 * (side - 1) - r) - i;
  return w >= 0 && w < side ? w : -1;
}

// How much of an output position of an axis reads inside the image.
template <class C>
GANOPS_HD GANOPS_INLINE C inside_weight(int64_t w, int64_t shift, C fraction, int64_t side,
                                        bool reflect) {
  const bool first = augment_source(w, shift, side, reflect) >= 0;
  const bool second = augment_source(w, shift + 1, side, reflect) >= 0;
  return (first ? C(1) - fraction : C(0)) + (second ? fraction : C(0));
}

// What is done to one sample, in the type of the arithmetic.
template <class C>
struct AugmentSample {
  bool flip;
  int64_t iy, ix;                    // whole part of the shift
  C fy, fx;                          // the rest, in [0, 1)
  C scale, mix, add, whole;          // A, M, b, 1 - k
  int64_t top, bottom, left, right;  // the cutout, within the image
  C sigma;
};

template <class C>
GANOPS_HD GANOPS_INLINE AugmentSample<C> augment_sample(const float* row, int64_t height,
                                                        int64_t width, int flags, bool linear) {
  const auto clip = [](float v, int64_t side) {
    const int64_t at = int64_t(v);
    return at < 0 ? int64_t(0) : at > side ? side : at;
  };
  AugmentSample<C> s;
  s.flip = row[flip] > 0.0f;
  const float y = floorf(row[shift_y]), x = floorf(row[shift_x]);
  s.iy = int64_t(y);
  s.ix = int64_t(x);
  s.fy = C(row[shift_y]) - C(y);
  s.fx = C(row[shift_x]) - C(x);
  const C k = flags & kContrast ? C(row[contrast]) : C(1);
  const C t = flags & kSaturation ? C(row[saturation]) : C(1);
  s.scale = k * t;
  s.mix = k * (C(1) - t);
  s.add = linear ? C(0) : C(row[brightness]);
  s.whole = C(1) - k;
  s.top = clip(row[cut_top], height);
  s.bottom = clip(row[cut_top] + row[cut_height], height);
  s.left = clip(row[cut_left], width);
  s.right = clip(row[cut_left] + row[cut_width], width);
  s.sigma = linear || !(flags & kNoise) ? C(0) : C(row[noise]);
  return s;
}

// In 32 bits: CUDA's adjoint has no registers to spare.
template <class C>
GANOPS_HD GANOPS_INLINE bool inside_cutout(const AugmentSample<C>& s, int h, int w) {
  return h >= int(s.top) && h < int(s.bottom) && w >= int(s.left) && w < int(s.right);
}

}  // namespace ganops
