// A block of rows into mean and centred second moment, on the CPU: the rows are read for their
// mean, then packed centred in the order the product wants, and one triangle of their product is
// added tile by tile.
#include <cmath>
#include <memory>

#include "feature_stats_layout.h"
#include "feature_stats_tile.h"

namespace ganops {
namespace {

constexpr int64_t kGroup = 192;  // columns centred at a time; a multiple of every tile's width
constexpr int64_t kLeft = 96, kRight = 768;  // of m2, at a time; kRight likewise

#define GANOPS_FEATURE_ROWS(T, S)                                                       \
  /* out[k * width + j] = x[k, j] - mean[j] */                                          \
  GANOPS_CLONES                                                                         \
  void center_panel(const T* x, int64_t n, int64_t stride, int64_t cols, int64_t width, \
                    const double* GANOPS_RESTRICT mean, S* GANOPS_RESTRICT out) {       \
    for (int64_t k = 0; k < n; ++k) {                                                   \
      const T* GANOPS_RESTRICT row = x + k * stride;                                    \
      for (int64_t j = 0; j < cols; ++j)                                                \
        out[k * width + j] = S(double(to_compute(row[j])) - mean[j]);                   \
    }                                                                                   \
  }
#define GANOPS_FEATURE_SUMS(T)                                                  \
  GANOPS_CLONES                                                                 \
  void column_sums(const T* x, int64_t n, int64_t stride, int64_t cols,         \
                   double* GANOPS_RESTRICT sums) {                              \
    for (int64_t k = 0; k < n; ++k) {                                           \
      const T* GANOPS_RESTRICT row = x + k * stride;                            \
      for (int64_t j = 0; j < cols; ++j) sums[j] += double(to_compute(row[j])); \
    }                                                                           \
  }                                                                             \
  GANOPS_FEATURE_ROWS(T, double)                                                \
  GANOPS_FEATURE_ROWS(T, float)

GANOPS_FEATURE_SUMS(float)
GANOPS_FEATURE_SUMS(double)
GANOPS_FEATURE_SUMS(BFloat16)
GANOPS_FEATURE_SUMS(Half)

// Panels of `width` columns, each (depth, width), zero-padded; on 64-byte lines.
template <class S>
struct Panels {
  Panels(int64_t d, int64_t depth_, int64_t width_)
      : depth(depth_),
        width(width_),
        memory(new S[ceil_div(d, width_) * width_ * depth_ + 64 / sizeof(S)]),
        start(reinterpret_cast<S*>((reinterpret_cast<uintptr_t>(memory.get()) + 63) / 64 * 64)) {}
  S* panel(int64_t column) const { return start + column / width * width * depth; }

  int64_t depth, width;
  std::unique_ptr<S[]> memory;
  S* start;
};

// Centres and packs rows; their row `n` carries the way from the old mean. Writes the new mean.
template <class T, class S>
void pack(const Tensor& rows, const double* mean, int64_t count, double* merged,
          const Panels<S>& to) {
  const int64_t n = rows.size(0), d = rows.size(1), stride = rows.stride(0);
  const T* x = data<T>(rows);
  const double step = merge_step(double(count), double(n));
  const double spread = merge_spread(double(count), double(n));
  parallel_units(ceil_div(d, kGroup), n * kGroup, [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g) {
      const int64_t begin = g * kGroup, end = std::min(begin + kGroup, d);
      double own[kGroup] = {};
      column_sums(x + begin, n, stride, end - begin, own);
      for (int64_t j = 0; j < end - begin; ++j) own[j] /= double(n);
      for (int64_t at = begin; at < end; at += to.width) {
        const int64_t cols = std::min(to.width, end - at);
        S* panel = to.panel(at);
        if (cols < to.width) std::fill(panel, panel + to.depth * to.width, S(0));
        center_panel(x + at, n, stride, cols, to.width, own + (at - begin), panel);
        for (int64_t j = 0; j < to.width; ++j) {
          const double way = j < cols ? own[at - begin + j] - mean[at + j] : 0.0;
          panel[n * to.width + j] = S(spread * way);
          if (j < cols) merged[at + j] = mean[at + j] + step * way;
        }
      }
    }
  });
}

// m2 += P'P, upper triangle. A unit is kLeft rows of it by kRight columns: long runs along a row,
// which the caches foresee. Each element belongs to one unit, whatever the number of threads.
template <class S>
void add_product(const Panels<S>& p, const Tile<S>& tile, int64_t d, double* m2) {
  std::vector<std::pair<int64_t, int64_t>> units;
  for (int64_t j = 0; j < d; j += kRight) {
    for (int64_t i = 0; i < std::min(j + kRight, d); i += kLeft) units.emplace_back(i, j);
  }
  parallel_units(int64_t(units.size()), p.depth * kLeft * kRight, [&](int64_t u, int64_t end) {
    for (; u < end; ++u) {
      const auto [top, begin] = units[u];
      for (int64_t i = top; i < std::min(top + kLeft, d); i += tile.rows) {
        const S* left = p.panel(i) + i % tile.width;
        for (int64_t j = begin; j < std::min(begin + kRight, d); j += tile.width) {
          if (j + tile.width <= i) continue;
          tile.run(p.depth, left, p.panel(j), m2 + i * d + j, d,
                   std::min<int64_t>(tile.rows, d - i), std::min<int64_t>(tile.width, d - j),
                   i - j);
        }
      }
    }
  });
}

Tensor feature_stats_cpu(Tensor rows, Tensor mean, Tensor m2, int64_t count, bool fast) {
  check_stats(rows, mean, m2, count);
  const int64_t n = rows.size(0), d = rows.size(1);
  if (d > 1 && rows.stride(1) != 1) rows = torch::stable::contiguous(rows);
  Tensor merged = torch::stable::empty_like(mean);
  static const TileKind kind = best_tile();
  dispatch_floating(rows.scalar_type(), "feature_stats", [&](auto t) {
    using T = decltype(t);
    const auto with = [&](auto s) {
      using S = decltype(s);
      const Tile<S> tile = tile_of<S>(kind);
      const Panels<S> panels(d, n + 1, tile.width);
      pack<T>(rows, data<double>(mean), count, mutable_data<double>(merged), panels);
      add_product(panels, tile, d, mutable_data<double>(m2));
    };
    if (fast) {
      with(float{});
    } else {
      with(double{});
    }
  });
  return merged;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("feature_stats", TORCH_BOX(&ganops::feature_stats_cpu));
  m.impl("feature_stats.kernel", TORCH_BOX(&ganops::feature_stats_cpu));
}
