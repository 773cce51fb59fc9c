// The second derivative of norms on the CPU. A thread takes whole rows, sums and then writes: the
// second reading of a row finds it in cache. Columns are summed by chunks of lines. What is summed
// together depends on the shape alone, so results do not depend on the number of threads.
#include "norm_loops.h"

namespace ganops {
namespace {

template <class T>
struct Problem {
  using C = compute_t<T>;
  NormLayout k;
  NormSpan<T> all;  // pointers to number 0
  const C *mean, *rstd, *w, *a, *c;
  C* d_w;  // null: not wanted

  double weight(const C* p, int64_t cell, double missing) const {
    return p == nullptr ? missing : double(p[cell % k.weights]);
  }
  NormSpan<T> span(int64_t at, int64_t n, int64_t row) const {
    NormSpan<T> s = all;
    s.v += at, s.dy += at, s.x += at, s.d_dy += at, s.d_x += at;
    s.n = n;
    s.mean = mean == nullptr ? C(0) : mean[row];
    s.rstd = rstd[row];
    return s;
  }
};

template <class To, class From>
To cast_all(const From& from) {  // a struct of doubles to one of C
  static_assert(sizeof(From) % sizeof(double) == 0);
  if constexpr (sizeof(To) == sizeof(From)) {
    return bit_cast<To>(from);
  } else {
    struct Doubles {
      double v[sizeof(From) / sizeof(double)];
    } wide = bit_cast<Doubles>(from);
    struct Floats {
      float v[sizeof(From) / sizeof(double)];
    } narrow;
    for (size_t i = 0; i < sizeof(From) / sizeof(double); ++i) narrow.v[i] = float(wide.v[i]);
    return bit_cast<To>(narrow);
  }
}

// From the sums of a row's cells: their coefficients, and d_w of each into dw[cell].
template <class T>
void combine(const Problem<T>& p, int64_t row, const NormSums<double>* sums,
             NormCell<double>* cells, double* dw) {
  const NormLayout& k = p.k;
  NormMeans<double> total{};
  for (int64_t j = 0; j < k.members; ++j) {
    const int64_t cell = k.cell(row, j);
    norm_add(total, sums[j], p.weight(p.w, cell, 1), p.weight(p.a, cell, 0));
  }
  const auto e =
      norm_row(norm_means(total, double(k.n * k.members)), double(p.rstd[row]), k.centered);
  for (int64_t j = 0; j < k.members; ++j) {
    const int64_t cell = k.cell(row, j);
    cells[j] = norm_cell(e, p.weight(p.w, cell, 1), p.weight(p.a, cell, 0), p.weight(p.c, cell, 0));
    if (dw != nullptr) dw[cell] = norm_weight_grad(e, sums[j]);
  }
}

// d_w = sum over repetitions of the weights.
template <class T>
void finish_weight_grad(const Problem<T>& p, const std::vector<double>& dw) {
  std::vector<double> total(p.d_w == nullptr ? 0 : p.k.weights, 0.0);
  if (total.empty()) return;
  for (size_t i = 0; i < dw.size(); ++i) total[i % total.size()] += dw[i];
  for (size_t i = 0; i < total.size(); ++i) p.d_w[i] = compute_t<T>(total[i]);
}

// Channels of a batch taken together: neighbours in memory, each of which alone is a page at a time
// (an eighth faster). Few channels are left to the threads one by one.
constexpr int64_t kTogether = 4;

template <class T>
void run_segments(const Problem<T>& p) {  // and batch
  const NormLayout& k = p.k;
  std::vector<double> dw(p.d_w == nullptr ? 0 : k.cells);
  const int64_t across = k.kind == NormKind::batch && k.rows >= 16 * kTogether ? kTogether : 1;
  const auto take = [&](int64_t first, int64_t last) {
    std::vector<NormSums<double>> sums(across * k.members);
    std::vector<NormCell<double>> cells(across * k.members);
    for (int64_t row = first * across; row < std::min(last * across, k.rows); row += across) {
      const int64_t count = std::min(across, k.rows - row);
      const auto for_cells = [&](const auto& f) {  // in the order of memory
        for (int64_t i = 0; i < k.members * count; ++i) {
          const int64_t j = i / count, r = i % count;
          f(row + r, k.cell(row + r, j) * k.n, r * k.members + j);
        }
      };
      for_cells([&](int64_t of, int64_t at, int64_t i) {
        sums[i] = {};
        cell_sums(p.span(at, k.n, of), &sums[i].d);
      });
      for (int64_t r = 0, i = 0; r < count; ++r, i += k.members) {
        combine(p, row + r, &sums[i], &cells[i], dw.empty() ? nullptr : dw.data());
      }
      for_cells([&](int64_t of, int64_t at, int64_t i) {
        const auto e = cast_all<NormCell<compute_t<T>>>(cells[i]);
        for (int64_t stop = at + k.n; at < stop; at += kBlock) {
          write_cell(p.span(at, std::min(kBlock, stop - at), of), e);
        }
      });
    }
    if (p.all.stream) stream_fence();
  };
  parallel_units(ceil_div(k.rows, across), across * k.members * k.n, take);
  finish_weight_grad(p, dw);
}

// Above this a row leaves the cache before it is written, and partial sums of d_w would be many.
constexpr int64_t kLongRow = 16384;

template <class T>
void run_rows(const Problem<T>& p) {
  using C = compute_t<T>;
  const NormLayout& k = p.k;
  const int64_t weights = std::max(k.weights, k.n), period = weights / k.n;
  const std::vector<C> ones(p.w == nullptr ? weights : 0, C(1));
  const bool affine = p.a != nullptr || p.c != nullptr;
  const std::vector<C> zeros(affine && (p.a == nullptr || p.c == nullptr) ? weights : 0, C(0));
  const auto span = [&](int64_t row, int64_t i, int64_t n) {
    NormSpan<T> s = p.span(row * k.n + i, n, row);
    const int64_t at = row % period * k.n + i;
    s.w = (p.w == nullptr ? ones.data() : p.w) + at;
    if (affine) {
      s.a = (p.a == nullptr ? zeros.data() : p.a) + at;
      s.c = (p.c == nullptr ? zeros.data() : p.c) + at;
    }
    return s;
  };
  const auto coefficients = [&](int64_t row) {
    NormMeans<double> sums{};
    row_sums(span(row, 0, k.n), &sums.g);
    const auto means = norm_means(sums, double(k.n));
    return cast_all<NormRow<C>>(norm_row(means, double(p.rstd[row]), k.centered));
  };

  if (k.n >= kLongRow) {  // all rows' sums, then all rows' results, a block of positions each
    std::vector<NormRow<C>> e(k.rows);
    parallel_units(k.rows, k.n, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) e[row] = coefficients(row);
    });
    const int64_t blocks = ceil_div(k.n, kBlock);
    parallel_units(period * blocks, k.rows / period * kBlock, [&](int64_t first, int64_t last) {
      for (int64_t u = first; u < last; ++u) {
        const int64_t i = u % blocks * kBlock, n = std::min(kBlock, k.n - i);
        C dw[kBlock] = {};
        for (int64_t row = u / blocks; row < k.rows; row += period) {
          write_row(span(row, i, n), e[row], p.d_w == nullptr ? nullptr : dw);
        }
        if (p.d_w != nullptr) std::copy_n(dw, n, p.d_w + u / blocks * k.n + i);
      }
      if (p.all.stream) stream_fence();
    });
    return;
  }

  const int64_t group =
      p.d_w == nullptr
          ? 1
          : std::max({int64_t(16) * period, ceil_div(65536, k.n), ceil_div(k.rows, 64)});
  const int64_t groups = ceil_div(k.rows, group);
  std::vector<C> dw(p.d_w == nullptr ? 0 : groups * weights);
  parallel_units(groups, group * k.n, [&](int64_t first, int64_t last) {
    for (int64_t row = first * group; row < std::min(last * group, k.rows); ++row) {
      const auto e = coefficients(row);
      C* to = dw.empty() ? nullptr : dw.data() + row / group * weights + row % period * k.n;
      for (int64_t i = 0; i < k.n; i += kBlock) {
        write_row(span(row, i, std::min(kBlock, k.n - i)), e, to == nullptr ? nullptr : to + i);
      }
    }
    if (p.all.stream) stream_fence();
  });
  finish_weight_grad(p, std::vector<double>(dw.begin(), dw.end()));
}

constexpr int64_t kColumns = 512;  // at a time: their sums stay in L1

template <class T>
void run_columns(const Problem<T>& p) {
  using C = compute_t<T>;
  const NormLayout& k = p.k;
  const int64_t across = std::min(kColumns, k.inner), blocks = ceil_div(k.inner, across);
  const int64_t lines = std::max<int64_t>(1, 65536 / across), chunks = ceil_div(k.n, lines);
  std::vector<C> means(k.cells), rstds(k.cells), e(kNormCell * k.cells);
  std::vector<double> sums(kNormSums * k.cells * chunks);
  for (int64_t cell = 0; cell < k.cells; ++cell) {
    means[cell] = p.mean == nullptr ? C(0) : p.mean[cell / k.members];
    rstds[cell] = p.rstd[cell / k.members];
  }
  // Calls f(first cell, its chunk, lines as spans): a block of columns and a chunk of lines.
  const auto for_lines = [&](const auto& begin, const auto& line, const auto& end) {
    parallel_units(k.outer * blocks * chunks, lines * across, [&](int64_t first, int64_t last) {
      std::vector<C> scratch(kNormSums * across);
      for (int64_t u = first; u < last; ++u) {
        const int64_t chunk = u % chunks, block = u / chunks % blocks, o = u / chunks / blocks;
        const int64_t column = block * across, cell = o * k.inner + column;
        const int64_t count = std::min(across, k.inner - column);
        begin(scratch);
        const int64_t stop = std::min((chunk + 1) * lines, k.n);
        for (int64_t i = chunk * lines; i < stop; ++i) {
          NormSpan<T> s = p.span((o * k.n + i) * k.inner + column, count, 0);
          line(s, ColumnStats<C>{&means[cell], &rstds[cell]}, cell, scratch.data());
        }
        end(cell, count, chunk, scratch);
      }
      if (p.all.stream) stream_fence();
    });
  };
  for_lines([](std::vector<C>& scratch) { std::fill(scratch.begin(), scratch.end(), C(0)); },
            [&](const NormSpan<T>& s, ColumnStats<C> stats, int64_t, C* scratch) {
              column_sums(s, stats, scratch, across);
            },
            [&](int64_t cell, int64_t count, int64_t chunk, const std::vector<C>& scratch) {
              for (int64_t i = 0; i < count; ++i) {
                for (int j = 0; j < kNormSums; ++j) {
                  sums[((cell + i) * chunks + chunk) * kNormSums + j] = scratch[j * across + i];
                }
              }
            });
  std::vector<double> dw(p.d_w == nullptr ? 0 : k.cells);
  parallel_units(k.rows, 64 * k.members, [&](int64_t first, int64_t last) {
    std::vector<NormSums<double>> own(k.members);
    std::vector<NormCell<double>> cells(k.members);
    for (int64_t row = first; row < last; ++row) {
      for (int64_t j = 0; j < k.members; ++j) {
        own[j] = {};
        const double* from = &sums[k.cell(row, j) * chunks * kNormSums];
        for (int64_t i = 0; i < chunks * kNormSums; ++i) (&own[j].d)[i % kNormSums] += from[i];
      }
      combine(p, row, own.data(), cells.data(), dw.empty() ? nullptr : dw.data());
      for (int64_t j = 0; j < k.members; ++j) {
        const double* from = &cells[j].ev;
        for (int i = 0; i < kNormCell; ++i) e[i * k.cells + k.cell(row, j)] = C(from[i]);
      }
    }
  });
  for_lines([](std::vector<C>&) {},
            [&](const NormSpan<T>& s, ColumnStats<C> stats, int64_t cell, C*) {
              write_columns(s, stats, &e[cell], k.cells);
            },
            [](int64_t, int64_t, int64_t, const std::vector<C>&) {});
  finish_weight_grad(p, dw);
}

template <class C>
const C* vector_data(const std::optional<Tensor>& t) {
  return t.has_value() ? data<C>(*t) : nullptr;
}

std::tuple<Tensor, Tensor, Tensor> norm_grad2_cpu(Tensor v, Tensor dy, Tensor x,
                                                  std::optional<Tensor> mean, Tensor rstd,
                                                  std::optional<Tensor> w,
                                                  std::optional<Tensor> v_w,
                                                  std::optional<Tensor> v_b, int64_t weights,
                                                  int64_t kind, bool want_w) {
  check_same(x, v, "x", "v");
  check_same(x, dy, "x", "dy");
  x = contiguous3(x), v = contiguous3(v), dy = contiguous3(dy);
  const NormLayout k = norm_layout(x, mean, rstd, w, v_w, v_b, weights, kind);
  Tensor d_dy = result_like(x), d_x = result_like(x);
  Tensor d_w = torch::stable::new_empty(x, {want_w ? weights : 0},
                                        std::make_optional(reduced_dtype(x.scalar_type())));
  if (x.numel() == 0) {
    torch::stable::fill_(d_w, 0);
    return {d_dy, d_x, d_w};
  }
  dispatch_floating(x.scalar_type(), "norm", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const bool stream = k.numel() * int64_t(sizeof(T)) >= kStreamBytes;
    const Problem<T> p{k,
                       {data<T>(v), data<T>(dy), data<T>(x), mutable_data<T>(d_dy),
                        mutable_data<T>(d_x), 0, C(0), C(0), nullptr, nullptr, nullptr, stream},
                       vector_data<C>(mean),
                       data<C>(rstd),
                       vector_data<C>(w),
                       vector_data<C>(v_w),
                       vector_data<C>(v_b),
                       want_w && weights > 0 ? mutable_data<C>(d_w) : nullptr};
    if (k.kind == NormKind::rows) return run_rows(p);
    if (k.kind == NormKind::columns) return run_columns(p);
    run_segments(p);
  });
  return {d_dy, d_x, d_w};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("norm_grad2", TORCH_BOX(&norm_grad2_cpu));
  m.impl("norm_grad2.kernel", TORCH_BOX(&norm_grad2_cpu));
}
