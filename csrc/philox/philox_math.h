// Philox 4x32-10 (Salmon et al., SC 2011) and the floats made from its words.
// ganops/ops/philox/reference.py is the specification; every line here has its twin there.
//
// Bits must agree on every machine, so products and sums are rounded one by one: on CUDA by the
// _rn intrinsics, which are never contracted; on the CPU by -ffp-contract=off.
#pragma once

#include "../common/numeric.h"

namespace ganops {

struct Words {
  uint32_t w[4];
};

GANOPS_HD GANOPS_INLINE Words philox4x32(Words c, uint32_t k0, uint32_t k1, int rounds = 10) {
  for (int i = 0; i < rounds; ++i) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c.w[0], p1 = uint64_t(0xCD9E8D57u) * c.w[2];
    c = Words{{uint32_t(p1 >> 32) ^ c.w[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c.w[3] ^ k1,
               uint32_t(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Block `block` of stream `stream` under `seed`: elements 4 block ... 4 block + 3.
GANOPS_HD GANOPS_INLINE Words philox_block(uint64_t seed, uint64_t stream, uint64_t block) {
  return philox4x32(
      Words{{uint32_t(block), uint32_t(block >> 32), uint32_t(stream), uint32_t(stream >> 32)}},
      uint32_t(seed), uint32_t(seed >> 32));
}

#if defined(__CUDA_ARCH__)
GANOPS_HD inline float mul_rn(float a, float b) { return __fmul_rn(a, b); }
GANOPS_HD inline float add_rn(float a, float b) { return __fadd_rn(a, b); }
GANOPS_HD inline float sqrt_rn(float a) { return __fsqrt_rn(a); }
#else
GANOPS_HD GANOPS_INLINE float mul_rn(float a, float b) { return a * b; }
GANOPS_HD GANOPS_INLINE float add_rn(float a, float b) { return a + b; }
GANOPS_HD GANOPS_INLINE float sqrt_rn(float a) { return __builtin_sqrtf(a); }
#endif
GANOPS_HD GANOPS_INLINE float fma_apart(float a, float b, float c) {
  return add_rn(mul_rn(a, b), c);
}

// [0, 1): the top 24 bits, each value exact.
GANOPS_HD GANOPS_INLINE float uniform_from_bits(uint32_t bits) {
  return mul_rn(float(int32_t(bits >> 8)), 0x1p-24f);
}

// Natural logarithm of a normal positive float.
GANOPS_HD GANOPS_INLINE float log_exact(float u) {
  const uint32_t bits = bit_cast<uint32_t>(u);
  const float m = bit_cast<float>((bits & 0x007FFFFFu) | 0x3F000000u);
  const bool small = m < 0.70710678118654752f;
  const float exponent = float(int32_t(bits >> 23) - 126 - (small ? 1 : 0));
  const float t = add_rn(small ? add_rn(m, m) : m, -1.0f);
  const float z = mul_rn(t, t);
  float y = 7.0376836292e-2f;
  y = fma_apart(y, t, -1.1514610310e-1f);
  y = fma_apart(y, t, 1.1676998740e-1f);
  y = fma_apart(y, t, -1.2420140846e-1f);
  y = fma_apart(y, t, 1.4249322787e-1f);
  y = fma_apart(y, t, -1.6668057665e-1f);
  y = fma_apart(y, t, 2.0000714765e-1f);
  y = fma_apart(y, t, -2.4999993993e-1f);
  y = fma_apart(y, t, 3.3333331174e-1f);
  y = mul_rn(mul_rn(y, t), z);
  y = add_rn(y, mul_rn(exponent, -2.12194440e-4f));
  y = add_rn(y, -mul_rn(z, 0.5f));
  return add_rn(add_rn(t, y), mul_rn(exponent, 0.693359375f));
}

struct CosSin {
  float cos, sin;
};

// (cos, sin) of 2 pi v, v = (bits >> 8) / 2^24: reduced exactly to the nearest quarter turn.
GANOPS_HD GANOPS_INLINE CosSin cos_sin_turns(uint32_t bits) {
  const int32_t v = int32_t(bits >> 8);
  const int32_t nearest = (v + (1 << 21)) >> 22;
  const int32_t quarter = nearest & 3;
  const float x = mul_rn(mul_rn(float(v - nearest * (1 << 22)), 0x1p-24f), 6.283185307179586f);
  const float z = mul_rn(x, x);
  float s = -1.9515295891e-4f;
  s = fma_apart(s, z, 8.3321608736e-3f);
  s = fma_apart(s, z, -1.6666654611e-1f);
  s = fma_apart(mul_rn(s, z), x, x);
  float c = 2.443315711809948e-5f;
  c = fma_apart(c, z, -1.388731625493765e-3f);
  c = fma_apart(c, z, 4.166664568298827e-2f);
  c = add_rn(add_rn(mul_rn(mul_rn(c, z), z), -mul_rn(z, 0.5f)), 1.0f);
  const bool swap = quarter & 1;
  const float cos = swap ? s : c, sin = swap ? c : s;
  return CosSin{quarter == 1 || quarter == 2 ? -cos : cos, quarter >= 2 ? -sin : sin};
}

// Box-Muller on the four words of a block.
GANOPS_HD GANOPS_INLINE void normals_from_block(Words w, float out[4]) {
  for (int pair = 0; pair < 4; pair += 2) {
    const float u = mul_rn(float(int32_t(w.w[pair] >> 8) + 1), 0x1p-24f);  // (0, 1]
    const float r = sqrt_rn(mul_rn(log_exact(u), -2.0f));
    const CosSin turn = cos_sin_turns(w.w[pair + 1]);
    out[pair] = mul_rn(r, turn.cos);
    out[pair + 1] = mul_rn(r, turn.sin);
  }
}

}  // namespace ganops
