// The second derivative of norms on CUDA, in three launches; sums are finished in a fixed order,
// without atomics. Layouts: norm_layout.h.
#include "../common/cuda_kernels.cuh"
#include "norm_cuda.h"
#include "norm_math.h"

namespace ganops {
namespace {

constexpr int64_t kPiece = 8 * 1024;  // numbers of a cell or row per block
constexpr int kRowSums = 7;
enum { kRows, kSegments, kBatch, kColumns };  // NormKind

inline int64_t ceil_of(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Lines of columns per block: few blocks in the grid's short dim.
inline int64_t lines_of(const NormLaunch& k) { return k.n > 65536 ? ceil_of(k.n, 1024) : 64; }
inline int64_t pieces_of(const NormLaunch& k) {
  return ceil_of(k.n, k.kind == kColumns ? lines_of(k) : kPiece);
}

template <class D, class C>
struct View {
  const D *v, *dy, *x;
  const C *mean, *rstd, *w, *a, *c;
  D *d_dy, *d_x;
  C *d_w, *partial, *numbers;
  int64_t outer, inner, cells, n, rows, members, weights, pieces, lines;
  int kind;

  __device__ int64_t row_of(int64_t cell) const {
    return kind == kBatch ? cell % rows : cell / members;
  }
  __device__ int64_t cell_of(int64_t row, int64_t j) const {
    return kind == kBatch ? row + j * rows : row * members + j;
  }
  __device__ C mean_of(int64_t row) const { return mean == nullptr ? C(0) : mean[row]; }
  __device__ C pick(const C* p, int64_t i, C missing) const {
    return p == nullptr ? missing : p[i];
  }
  __device__ C xhat(int64_t at, C m, C r) const { return (widen<C>(x[at]) - m) * r; }
};

template <class D, class C>
__device__ __forceinline__ void add_number(NormSums<C>& s, const View<D, C>& k, int64_t at, C m,
                                           C r) {
  const C d = widen<C>(k.dy[at]), u = widen<C>(k.v[at]), h = k.xhat(at, m, r);
  s.d += d;
  s.v += u;
  s.dx += d * h;
  s.vx += u * h;
  s.vd += u * d;
}

// partial is (pieces, kNormSums, cells).
template <class D, class C>
__global__ void __launch_bounds__(kThreads) segment_sums_kernel(View<D, C> k) {
  const int64_t cell = blockIdx.x, row = k.row_of(cell), begin = int64_t(blockIdx.y) * kPiece;
  const int64_t end = begin + kPiece < k.n ? begin + kPiece : k.n;
  const C m = k.mean_of(row), r = k.rstd[row];
  NormSums<C> s{};
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    add_number(s, k, cell * k.n + i, m, r);
  }
  const C all[] = {block_sum(s.d), block_sum(s.v), block_sum(s.dx), block_sum(s.vx),
                   block_sum(s.vd)};
  C* to = k.partial + blockIdx.y * kNormSums * k.cells + cell;
#pragma unroll
  for (int j = 0; threadIdx.x == 0 && j < kNormSums; ++j) to[j * k.cells] = all[j];
}

// A thread has a column.
template <class D, class C>
__global__ void __launch_bounds__(kThreads) column_sums_kernel(View<D, C> k) {
  const int64_t column = int64_t(blockIdx.x) * kThreads + threadIdx.x, o = blockIdx.y;
  if (column >= k.inner) return;
  const int64_t cell = o * k.inner + column, row = cell / k.members;
  const int64_t begin = blockIdx.z * k.lines;
  const int64_t end = begin + k.lines < k.n ? begin + k.lines : k.n;
  const C m = k.mean_of(row), r = k.rstd[row];
  NormSums<C> s{};
  for (int64_t i = begin; i < end; ++i) add_number(s, k, (o * k.n + i) * k.inner + column, m, r);
  C* to = k.partial + blockIdx.z * kNormSums * k.cells + cell;
  const C all[] = {s.d, s.v, s.dx, s.vx, s.vd};
#pragma unroll
  for (int j = 0; j < kNormSums; ++j) to[j * k.cells] = all[j];
}

template <class D, class C>
__device__ __forceinline__ NormSums<C> cell_sums(const View<D, C>& k, int64_t cell) {
  NormSums<C> s{};
  for (int64_t p = 0; p < k.pieces; ++p) {
    const C* from = k.partial + p * kNormSums * k.cells + cell;
    s.d += from[0];
    s.v += from[k.cells];
    s.dx += from[2 * k.cells];
    s.vx += from[3 * k.cells];
    s.vd += from[4 * k.cells];
  }
  return s;
}

// A warp has a row, a lane every 32nd of its cells. numbers is (kNormCell, cells).
template <class D, class C>
__global__ void __launch_bounds__(kThreads) combine_kernel(View<D, C> k) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= k.rows) return;  // whole warps leave
  const int lane = threadIdx.x % 32;
  NormMeans<C> sums{};
  for (int64_t j = lane; j < k.members; j += 32) {
    const int64_t cell = k.cell_of(row, j), i = k.weights == 0 ? 0 : cell % k.weights;
    norm_add(sums, cell_sums(k, cell), k.pick(k.w, i, C(1)), k.pick(k.a, i, C(0)));
  }
  const auto total = [&](C value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
  };
  const NormMeans<C> all{total(sums.g),  total(sums.v),  total(sums.gx), total(sums.vx),
                         total(sums.vg), total(sums.ad), total(sums.adx)};
  const auto e = norm_row(norm_means(all, C(k.n) * C(k.members)), k.rstd[row], k.mean != nullptr);
  for (int64_t j = lane; j < k.members; j += 32) {
    const int64_t cell = k.cell_of(row, j), i = k.weights == 0 ? 0 : cell % k.weights;
    const auto f = norm_cell(e, k.pick(k.w, i, C(1)), k.pick(k.a, i, C(0)), k.pick(k.c, i, C(0)));
    C* to = k.numbers + cell;
    const C all_of[] = {f.ev, f.ex, f.e1, f.fd, f.fv, f.fx, f.f1};
#pragma unroll
    for (int q = 0; q < kNormCell; ++q) to[q * k.cells] = all_of[q];
    if (k.d_w != nullptr) k.d_w[cell] = norm_weight_grad(e, cell_sums(k, cell));
  }
}

template <class D, class C>
__device__ __forceinline__ NormCell<C> load_cell(const View<D, C>& k, int64_t cell) {
  const C* e = k.numbers + cell;
  return {e[0],           e[k.cells],     e[2 * k.cells], e[3 * k.cells],
          e[4 * k.cells], e[5 * k.cells], e[6 * k.cells]};
}

template <class D, class C>
__device__ __forceinline__ void write_number(const View<D, C>& k, const NormCell<C>& e, int64_t at,
                                             C m, C r) {
  const C d = widen<C>(k.dy[at]), u = widen<C>(k.v[at]), h = k.xhat(at, m, r);
  k.d_dy[at] = narrow<D>(e.ev * u + e.ex * h + e.e1);
  k.d_x[at] = narrow<D>(e.fd * d + e.fv * u + e.fx * h + e.f1);
}

template <class D, class C>
__global__ void __launch_bounds__(kThreads) segment_write_kernel(View<D, C> k) {
  const int64_t cell = blockIdx.x, row = k.row_of(cell), begin = int64_t(blockIdx.y) * kPiece;
  const int64_t end = begin + kPiece < k.n ? begin + kPiece : k.n;
  const C m = k.mean_of(row), r = k.rstd[row];
  const NormCell<C> e = load_cell(k, cell);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    write_number(k, e, cell * k.n + i, m, r);
  }
}

template <class D, class C>
__global__ void __launch_bounds__(kThreads) column_write_kernel(View<D, C> k) {
  const int64_t column = int64_t(blockIdx.x) * kThreads + threadIdx.x, o = blockIdx.y;
  if (column >= k.inner) return;
  const int64_t cell = o * k.inner + column, row = cell / k.members;
  const int64_t begin = blockIdx.z * k.lines;
  const int64_t end = begin + k.lines < k.n ? begin + k.lines : k.n;
  const C m = k.mean_of(row), r = k.rstd[row];
  const NormCell<C> e = load_cell(k, cell);
  for (int64_t i = begin; i < end; ++i) write_number(k, e, (o * k.n + i) * k.inner + column, m, r);
}

// partial is (rows, pieces, kRowSums); numbers keeps (rows, 2): tx and t1, for d_w.
template <class D, class C>
__global__ void __launch_bounds__(kThreads) row_sums_kernel(View<D, C> k) {
  const int64_t row = blockIdx.x, begin = int64_t(blockIdx.y) * kPiece;
  const int64_t end = begin + kPiece < k.n ? begin + kPiece : k.n;
  const int64_t offset = k.weights == 0 ? 0 : row * k.n % k.weights;
  const C m = k.mean_of(row), r = k.rstd[row];
  NormMeans<C> s{};
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    NormSums<C> one{};
    add_number(one, k, row * k.n + i, m, r);
    norm_add(s, one, k.pick(k.w, offset + i, C(1)), k.pick(k.a, offset + i, C(0)));
  }
  const C all[] = {block_sum(s.g),  block_sum(s.v),  block_sum(s.gx), block_sum(s.vx),
                   block_sum(s.vg), block_sum(s.ad), block_sum(s.adx)};
  C* to = k.partial + (row * k.pieces + blockIdx.y) * kRowSums;
#pragma unroll
  for (int j = 0; threadIdx.x == 0 && j < kRowSums; ++j) to[j] = all[j];
}

template <class D, class C>
__global__ void __launch_bounds__(kThreads) row_write_kernel(View<D, C> k) {
  const int64_t row = blockIdx.x, begin = int64_t(blockIdx.y) * kPiece;
  const int64_t end = begin + kPiece < k.n ? begin + kPiece : k.n;
  const int64_t offset = k.weights == 0 ? 0 : row * k.n % k.weights;
  const C m = k.mean_of(row), r = k.rstd[row];
  NormMeans<C> s{};
  for (int64_t p = 0; p < k.pieces; ++p) {
    const C* from = k.partial + (row * k.pieces + p) * kRowSums;
    s.g += from[0], s.v += from[1], s.gx += from[2], s.vx += from[3];
    s.vg += from[4], s.ad += from[5], s.adx += from[6];
  }
  const NormRow<C> e = norm_row(norm_means(s, C(k.n)), r, k.mean != nullptr);
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    k.numbers[2 * row] = e.tx;
    k.numbers[2 * row + 1] = e.t1;
  }
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t q = offset + i;
    write_number(k, norm_cell(e, k.pick(k.w, q, C(1)), k.pick(k.a, q, C(0)), k.pick(k.c, q, C(0))),
                 row * k.n + i, m, r);
  }
}

// A thread has a weight, and every row of its chunk that uses it.
template <class D, class C>
__global__ void __launch_bounds__(kThreads) row_weights_kernel(View<D, C> k, int64_t lines) {
  const int64_t q = int64_t(blockIdx.x) * kThreads + threadIdx.x, period = k.weights / k.n;
  if (q >= k.weights) return;
  C sum(0);
  for (int64_t i = 0; i < lines; ++i) {
    const int64_t row = (blockIdx.y * lines + i) * period + q / k.n;
    if (row >= k.rows) break;
    const int64_t at = row * k.n + q % k.n;
    const C r = k.rstd[row], h = k.xhat(at, k.mean_of(row), r);
    sum += widen<C>(k.dy[at]) *
           (r * widen<C>(k.v[at]) + k.numbers[2 * row] * h + k.numbers[2 * row + 1]);
  }
  k.d_w[blockIdx.y * k.weights + q] = sum;
}

int64_t weight_lines(const NormLaunch& k) {
  const int64_t repeats = k.rows / (k.weights / k.n);
  return repeats > 512 ? ceil_of(repeats, 32) : 16;
}
}  // namespace

int64_t norm_partials(const NormLaunch& k) {
  return pieces_of(k) * k.cells * (k.kind == kRows ? kRowSums : kNormSums);
}
int64_t norm_numbers(const NormLaunch& k) { return k.cells * (k.kind == kRows ? 2 : kNormCell); }
int64_t norm_weight_chunks(const NormLaunch& k) {
  return ceil_of(k.rows / (k.weights / k.n), weight_lines(k));
}

int norm_grad2_launch(const NormLaunch& a) {
  const auto stream = static_cast<cudaStream_t>(a.stream);
  const int64_t pieces = pieces_of(a);
  const dim3 cells(unsigned(a.cells), unsigned(pieces));
  const dim3 columns(unsigned(ceil_of(a.inner, kThreads)), unsigned(a.outer), unsigned(pieces));
  return dispatch_dtype(a.dtype, [&](auto t) {
    using T = decltype(t);
    using D = typename DeviceType<T>::type;
    using C = compute_t<T>;
    const auto in = [](const void* p) { return static_cast<const C*>(p); };
    const View<D, C> k{static_cast<const D*>(a.v),
                       static_cast<const D*>(a.dy),
                       static_cast<const D*>(a.x),
                       in(a.mean),
                       in(a.rstd),
                       in(a.w),
                       in(a.a),
                       in(a.c),
                       static_cast<D*>(a.d_dy),
                       static_cast<D*>(a.d_x),
                       static_cast<C*>(a.d_w),
                       static_cast<C*>(a.partial),
                       static_cast<C*>(a.numbers),
                       a.outer,
                       a.inner,
                       a.cells,
                       a.n,
                       a.rows,
                       a.members,
                       a.weights,
                       pieces,
                       lines_of(a),
                       a.kind};
    if (a.kind == kRows) {
      row_sums_kernel<D, C><<<cells, kThreads, 0, stream>>>(k);
      row_write_kernel<D, C><<<cells, kThreads, 0, stream>>>(k);
      if (a.d_w != nullptr) {
        const dim3 grid(unsigned(ceil_of(a.weights, kThreads)), unsigned(norm_weight_chunks(a)));
        row_weights_kernel<D, C><<<grid, kThreads, 0, stream>>>(k, weight_lines(a));
      }
      return int(cudaGetLastError());
    }
    const unsigned rows = unsigned(ceil_of(a.rows, kThreads / 32));
    if (a.kind == kColumns) {
      column_sums_kernel<D, C><<<columns, kThreads, 0, stream>>>(k);
      combine_kernel<D, C><<<rows, kThreads, 0, stream>>>(k);
      column_write_kernel<D, C><<<columns, kThreads, 0, stream>>>(k);
    } else {
      segment_sums_kernel<D, C><<<cells, kThreads, 0, stream>>>(k);
      combine_kernel<D, C><<<rows, kThreads, 0, stream>>>(k);
      segment_write_kernel<D, C><<<cells, kThreads, 0, stream>>>(k);
    }
    return int(cudaGetLastError());
  });
}

}  // namespace ganops
