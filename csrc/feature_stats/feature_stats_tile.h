// C += A' B for one register tile, by the fused multiply-adds of each instruction set.
//
// An element's sum runs over the rows in order, one fused multiply-add each, then is added to C:
// fused everywhere, by a library call where there is no instruction, so every machine rounds alike.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../common/macros.h"
#if defined(__x86_64__) && defined(__GNUC__)
#define GANOPS_X86_TILES 1
#include <immintrin.h>
#endif

namespace ganops {
namespace {

// left: `rows` columns and right: `cols` columns of packed panels, whose lines are kWidth apart.
// skip: the first row of the tile minus its first column; nothing left of the diagonal is touched.
#define GANOPS_TILE_ADD(S, ROWS, WIDTH)                               \
  for (int64_t r = 0; r < rows; ++r) {                                \
    for (int64_t j = std::max<int64_t>(0, r + skip); j < cols; ++j) { \
      c[r * stride + j] += double(out[r * (WIDTH) + j]);              \
    }                                                                 \
  }

#define GANOPS_TILE(NAME, TARGET, S, V, LANES, ROWS, VECTORS, LOAD, STORE, SPREAD, FMA, ZERO)      \
  TARGET inline void NAME(int64_t depth, const S* left, const S* right, double* c, int64_t stride, \
                          int64_t rows, int64_t cols, int64_t skip) {                              \
    constexpr int kWidth = (LANES) * (VECTORS);                                                    \
    V sum[ROWS][VECTORS];                                                                          \
    for (int r = 0; r < (ROWS); ++r) {                                                             \
      for (int v = 0; v < (VECTORS); ++v) sum[r][v] = ZERO();                                      \
    }                                                                                              \
    for (int64_t r = 0; r < rows; ++r) {                                                           \
      for (int64_t j = 0; j < cols; j += 8) __builtin_prefetch(c + r * stride + j, 1);             \
    }                                                                                              \
    for (int64_t k = 0; k < depth; ++k) {                                                          \
      V b[VECTORS];                                                                                \
      for (int v = 0; v < (VECTORS); ++v) b[v] = LOAD(right + k * kWidth + v * (LANES));           \
      for (int r = 0; r < (ROWS); ++r) {                                                           \
        const V a = SPREAD(left[k * kWidth + r]);                                                  \
        for (int v = 0; v < (VECTORS); ++v) sum[r][v] = FMA(a, b[v], sum[r][v]);                   \
      }                                                                                            \
    }                                                                                              \
    alignas(64) S out[(ROWS) * kWidth];                                                            \
    for (int r = 0; r < (ROWS); ++r) {                                                             \
      for (int v = 0; v < (VECTORS); ++v) STORE(out + r * kWidth + v * (LANES), sum[r][v]);        \
    }                                                                                              \
    GANOPS_TILE_ADD(S, ROWS, kWidth)                                                               \
  }

#if defined(GANOPS_X86_TILES)
GANOPS_TILE(tile_avx512, __attribute__((target("avx512f"))), double, __m512d, 8, 8, 3,
            _mm512_load_pd, _mm512_store_pd, _mm512_set1_pd, _mm512_fmadd_pd, _mm512_setzero_pd)
GANOPS_TILE(tile_avx512, __attribute__((target("avx512f"))), float, __m512, 16, 8, 3,
            _mm512_load_ps, _mm512_store_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_setzero_ps)
GANOPS_TILE(tile_avx2, __attribute__((target("avx2,fma"))), double, __m256d, 4, 4, 3,
            _mm256_load_pd, _mm256_store_pd, _mm256_set1_pd, _mm256_fmadd_pd, _mm256_setzero_pd)
GANOPS_TILE(tile_avx2, __attribute__((target("avx2,fma"))), float, __m256, 8, 4, 3, _mm256_load_ps,
            _mm256_store_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_setzero_ps)
#endif

// Anywhere else; lines as wide as AVX2's.
template <class S>
void tile_portable(int64_t depth, const S* left, const S* right, double* c, int64_t stride,
                   int64_t rows, int64_t cols, int64_t skip) {
  constexpr int kWidth = 96 / int(sizeof(S)), kRows = 4;
  S out[kRows * kWidth] = {};
  for (int64_t k = 0; k < depth; ++k) {
    for (int r = 0; r < kRows; ++r) {
      const S a = left[k * kWidth + r];
      for (int j = 0; j < kWidth; ++j) {
        out[r * kWidth + j] = std::fma(a, right[k * kWidth + j], out[r * kWidth + j]);
      }
    }
  }
  GANOPS_TILE_ADD(S, kRows, kWidth)
}

// One instruction set's tile: `rows` by `width`, where rows divides width.
template <class S>
struct Tile {
  using Run = void (*)(int64_t, const S*, const S*, double*, int64_t, int64_t, int64_t, int64_t);
  Run run;
  int rows, width;
};

enum class TileKind : int { portable, avx2, avx512 };

template <class S>
Tile<S> tile_of(TileKind kind) {
#if defined(GANOPS_X86_TILES)
  if (kind == TileKind::avx512) return {tile_avx512, 8, 192 / int(sizeof(S))};
  if (kind == TileKind::avx2) return {tile_avx2, 4, 96 / int(sizeof(S))};
#endif
  return {tile_portable<S>, 4, 96 / int(sizeof(S))};
}

inline TileKind best_tile() {
#if defined(GANOPS_X86_TILES)
  if (__builtin_cpu_supports("avx512f")) return TileKind::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return TileKind::avx2;
#endif
  return TileKind::portable;
}

}  // namespace
}  // namespace ganops
