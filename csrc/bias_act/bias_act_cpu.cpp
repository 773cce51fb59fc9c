// bias_act on the CPU: one read of each operand, one write of each result, nothing in between.
//
// The tensor is walked in blocks that fit L1. Half types are widened into small buffers there, so
// that the formulas are compiled for float and double only; but bfloat16, which widens by a shift,
// has a forward of its own.
#include "../common/results.h"
#include "../common/stream_store.h"
#include "../common/widen.h"
#include "bias_act_layout.h"

namespace ganops {
namespace {

// Partial sums of a bias gradient: this many, or one per column if that is more.
constexpr int64_t kMostSums = int64_t(1) << 20;

template <class C>
struct Params {
  Act act;
  C alpha, gain, clamp;
  bool from_output, stream;
};

template <class C>
GANOPS_INLINE void add_to(const C* GANOPS_RESTRICT from, C* GANOPS_RESTRICT sums, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += from[i];
}

// Adds whole groups of 32 into lanes, and returns the sum of the rest.
template <class C>
GANOPS_INLINE double add_lanes(const C* GANOPS_RESTRICT from, C* GANOPS_RESTRICT lanes, int64_t n) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    for (int j = 0; j < 32; ++j) lanes[j] += from[i + j];
  }
  double rest = 0;
  for (; i < n; ++i) rest += from[i];
  return rest;
}

template <class T, class C = compute_t<T>>
struct Block {  // operands of one block; which are set depends on the order
  const T *v, *dy, *x;
  const C* bias;
  T* out;
  C* column_sums;    // order 1, if wanted: += the result, element by element
  double* slab_sum;  // or: += the sum of the block
  int64_t n;
  bool one_bias;  // order 0 only: bias[0] for the whole block
};

template <Act A, bool kOneBias, class T, class C = compute_t<T>>
GANOPS_INLINE void value_loop(Block<T> k, Params<C> p) {
  store_results(k.out, k.n, p.stream,
                [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                  for (int64_t i = 0; i < count; ++i) {
                    const C t = to_compute(k.x[at + i]) + k.bias[kOneBias ? 0 : at + i];
                    to[i] = from_compute<T>(bias_act_value<A>(t, p.alpha, p.gain, p.clamp));
                  }
                });
}

// kOutput: k.x holds y, and the slope is read off it. The sums are taken while the results are in
// registers or L1, so that they can be streamed out.
template <Act A, bool kOutput, class C>
GANOPS_INLINE void grad_loop(Block<C> k, Params<C> p) {
  C lanes[32] = {};
  store_results(k.out, k.n, p.stream,
                [&](int64_t at, C* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                  for (int64_t i = 0; i < count; ++i) {
                    const C dy = k.dy[at + i], x = k.x[at + i];
                    if constexpr (kOutput && has_output_slope(A)) {
                      to[i] = bias_act_grad_from_output<A>(dy, x, p.alpha, p.gain, p.clamp);
                    } else {
                      to[i] = bias_act_grad<A>(dy, x + k.bias[at + i], p.alpha, p.gain, p.clamp);
                    }
                  }
                  if (k.column_sums != nullptr) add_to(to, k.column_sums + at, count);
                  if (k.slab_sum != nullptr) *k.slab_sum += add_lanes(to, lanes, count);
                });
  for (int j = 0; j < 32 && k.slab_sum != nullptr; ++j) *k.slab_sum += lanes[j];
}

template <Act A, bool kOutput, class C>
GANOPS_INLINE void grad2_loop(Block<C> k, Params<C> p) {
  store_results(
      k.out, k.n, p.stream, [&](int64_t at, C* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
        for (int64_t i = 0; i < count; ++i) {
          const C v = k.v[at + i], dy = k.dy[at + i], x = k.x[at + i];
          if constexpr (kOutput && has_output_slope(A)) {
            to[i] = bias_act_grad2_from_output<A>(v, dy, x, p.alpha, p.gain, p.clamp);
          } else {
            to[i] = bias_act_grad2<A>(v, dy, x + k.bias[at + i], p.alpha, p.gain, p.clamp);
          }
        }
      });
}

// The three orders and the sums, compiled once per instruction set.
// clang-format off
#define GANOPS_EITHER(flag, loop) if (flag) { loop<A, true>(k, p); } else { loop<A, false>(k, p); }
#define GANOPS_BIAS_ACT_VALUE(T)                                                        \
  GANOPS_CLONES void value_block(Block<T> k, Params<compute_t<T>> p) {                  \
    GANOPS_SWITCH_ACT(p.act, GANOPS_EITHER(k.one_bias, value_loop))                     \
  }
#define GANOPS_BIAS_ACT_BLOCKS(C)                                                       \
  GANOPS_BIAS_ACT_VALUE(C)                                                              \
  GANOPS_CLONES void grad_block(Block<C> k, Params<C> p) {                              \
    GANOPS_SWITCH_ACT(p.act, GANOPS_EITHER(p.from_output, grad_loop))                   \
  }                                                                                     \
  GANOPS_CLONES void grad2_block(Block<C> k, Params<C> p) {                             \
    GANOPS_SWITCH_ACT(p.act, GANOPS_EITHER(p.from_output, grad2_loop))                  \
  }
// clang-format on

GANOPS_BIAS_ACT_BLOCKS(float)
GANOPS_BIAS_ACT_BLOCKS(double)
GANOPS_BIAS_ACT_VALUE(BFloat16)

// Walks the tensor. `kernel` computes a block; with `db` the channel sums of the result follow.
template <class T, class Kernel>
void run(BiasLayout layout, BiasActArgs args, bool value_only, bool from_output, const T* b,
         const T* v, const T* dy, const T* x, T* out, T* db, Kernel kernel) {
  using C = compute_t<T>;
  constexpr bool widen = !std::is_invocable_v<Kernel, Block<T>, Params<C>>;
  const auto [numel, channels, inner] = layout;
  // An exponential per element takes longer than memory does: there, short bursts only cost.
  const bool light = is_piecewise_linear(args.act) || (from_output && args.act != Act::softplus);
  const bool stream = light && !widen && numel * int64_t(sizeof(T)) >= kStreamBytes;
  const Params<C> p{args.act, C(args.alpha), C(args.gain), C(args.clamp), from_output, stream};

  // Unit = run of positions that share one bias vector: a piece of one channel's slab, or, where
  // slabs are short, one period of the channels, repeated until it is worth a block.
  const bool pattern = inner < kBlock / 4 && channels > 1;
  const int64_t period = channels * inner;
  const int64_t unit = pattern ? period * std::max<int64_t>(1, kBlock / period)
                               : std::min<int64_t>(inner, 8 * kBlock);
  const int64_t per_slab = pattern ? 1 : ceil_div(inner, unit);
  const int64_t units = pattern ? ceil_div(numel, unit) : numel / inner * per_slab;
  std::vector<C> biases(pattern ? unit : 0);
  for (int64_t i = 0, c = 0; b != nullptr && i < int64_t(biases.size()); i += inner, ++c) {
    std::fill_n(biases.data() + i, inner, to_compute(b[c % channels]));
  }

  // Sums are taken over groups of units whose size depends on the shape alone, so that they do
  // not depend on the number of threads. Wide units make few groups, for each keeps a sum per
  // column; threads then share out the columns.
  const int64_t most = std::clamp<int64_t>(kMostSums / std::max<int64_t>(unit, 1), 1, 64);
  const int64_t group =
      pattern ? std::max(std::max<int64_t>(1, 65536 / unit), ceil_div(units, most)) : 1;
  const int64_t groups = ceil_div(units, group);
  const int64_t part = pattern ? std::min(unit, 64 * kBlock) : unit;
  const int64_t parts = pattern ? ceil_div(unit, part) : 1;
  std::vector<C> sums(db != nullptr && pattern ? groups * unit : 0);
  std::vector<double> slab_sums(db != nullptr && !pattern ? units : 0);

  parallel_units(groups * parts, group * part, [&](int64_t first, int64_t last) {
    std::vector<C> scratch(widen ? 5 * kBlock : kBlock);
    C* const constant = scratch.data();
    C* const wide = constant + kBlock;
    for (int64_t k = first * group; k < last * group; ++k) {
      const int64_t u = k / (parts * group) * group + k % group;
      if (u >= units) continue;  // the last group may be short
      const int64_t slab = u / per_slab, column = k / group % parts * part;
      const int64_t start = pattern ? u * unit + column : slab * inner + u % per_slab * unit;
      const int64_t stop = pattern ? std::min({start + part, (u + 1) * unit, numel})
                                   : std::min(start + unit, (slab + 1) * inner);
      if (!pattern) {
        const C bias = b == nullptr ? C(0) : to_compute(b[slab % channels]);
        std::fill_n(constant, value_only ? 1 : std::min(kBlock, stop - start), bias);
      }
      for (int64_t i = start; i < stop; i += kBlock) {
        const int64_t n = std::min(kBlock, stop - i);
        const int64_t at = column + (i - start);
        const C* bias = pattern ? biases.data() + at : constant;
        Block<std::conditional_t<widen, C, T>> block{};
        block.bias = bias;
        block.n = n;
        block.one_bias = value_only && !pattern;
        if (db != nullptr && pattern) {
          block.column_sums = sums.data() + u / group * unit + at;
        } else if (db != nullptr) {
          block.slab_sum = &slab_sums[u];
        }
        if constexpr (widen) {
          C *const wide_dy = wide + (dy == v ? 0 : kBlock), *const result = wide + 3 * kBlock;
          C* const wide_x = wide + (x == v ? 0 : 2 * kBlock);
          widen_block(v + i, wide, n);
          if (dy != v) widen_block(dy + i, wide_dy, n);
          if (x != v) widen_block(x + i, wide_x, n);
          block.v = wide, block.dy = wide_dy, block.x = wide_x, block.out = result;
          kernel(block, p);
          narrow_block(result, out + i, n);
        } else {
          block.v = v + i, block.dy = dy + i, block.x = x + i, block.out = out + i;
          kernel(block, p);
        }
      }
    }
    if (stream) stream_fence();
  });

  if (db == nullptr) return;
  std::vector<double> total(channels, 0.0);
  for (int64_t i = 0, c = 0; i < int64_t(sums.size()); i += inner, ++c) {
    double sum = 0;
    for (int64_t j = 0; j < inner; ++j) sum += sums[i + j];
    total[c % channels] += sum;
  }
  for (int64_t u = 0; u < int64_t(slab_sums.size()); ++u) {
    total[u / per_slab % channels] += slab_sums[u];
  }
  for (int64_t c = 0; c < channels; ++c) db[c] = from_compute<T>(C(total[c]));
}

// The kernels as arguments of run(): for any type that there is a block of. (A pointer to a
// function with clones does not assemble with g++ 11.)
#define GANOPS_KERNEL(block) [](auto k, auto p) -> decltype(block(k, p)) { return block(k, p); }
constexpr auto value_kernel = GANOPS_KERNEL(value_block);
constexpr auto grad_kernel = GANOPS_KERNEL(grad_block);
constexpr auto grad2_kernel = GANOPS_KERNEL(grad2_block);

template <class T>
const T* bias_data(const std::optional<Tensor>& b) {
  return b.has_value() ? data<T>(*b) : nullptr;
}

Tensor bias_act_cpu(Tensor x, std::optional<Tensor> b, int64_t dim, int64_t act, double alpha,
                    double gain, double clamp) {
  x = dense(x);
  Tensor y = result_like(x);
  const BiasActArgs args = bias_act_args(act, alpha, gain, clamp);
  const BiasLayout layout = bias_layout(x, b, dim);
  dispatch_floating(x.scalar_type(), "bias_act", [&](auto t) {
    using T = decltype(t);
    const T* px = data<T>(x);
    run<T>(layout, args, true, false, bias_data<T>(b), px, px, px, mutable_data<T>(y), nullptr,
           value_kernel);
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_grad_cpu(Tensor dy, Tensor ref, std::optional<Tensor> b,
                                             int64_t dim, int64_t act, double alpha, double gain,
                                             double clamp, bool from_output, bool want_db) {
  check_same(dy, ref, "dy", "ref");
  ref = dense(ref);
  dy = in_layout_of(dy, ref);
  Tensor dx = result_like(ref);
  Tensor db = bias_like(b, ref, want_db);
  const BiasActArgs args = bias_act_args(act, alpha, gain, clamp);
  check_from_output(args, from_output);
  const BiasLayout layout = bias_layout(ref, b, dim);
  dispatch_floating(ref.scalar_type(), "bias_act", [&](auto t) {
    using T = decltype(t);
    const T* pr = data<T>(ref);
    run<T>(layout, args, false, from_output, bias_data<T>(b), pr, data<T>(dy), pr,
           mutable_data<T>(dx), db.numel() > 0 ? mutable_data<T>(db) : nullptr, grad_kernel);
  });
  return {dx, db};
}

Tensor bias_act_grad2_cpu(Tensor v, Tensor dy, Tensor ref, std::optional<Tensor> b, int64_t dim,
                          int64_t act, double alpha, double gain, double clamp, bool from_output) {
  check_same(dy, ref, "dy", "ref");
  check_same(dy, v, "dy", "v");
  ref = dense(ref);
  dy = in_layout_of(dy, ref);
  v = in_layout_of(v, ref);
  Tensor out = result_like(ref);
  const BiasActArgs args = bias_act_args(act, alpha, gain, clamp);
  check_from_output(args, from_output);
  const BiasLayout layout = bias_layout(ref, b, dim);
  dispatch_floating(ref.scalar_type(), "bias_act", [&](auto t) {
    using T = decltype(t);
    run<T>(layout, args, false, from_output, bias_data<T>(b), data<T>(v), data<T>(dy), data<T>(ref),
           mutable_data<T>(out), nullptr, grad2_kernel);
  });
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("bias_act", TORCH_BOX(&bias_act_cpu));
  m.impl("bias_act.kernel", TORCH_BOX(&bias_act_cpu));
  m.impl("bias_act_grad", TORCH_BOX(&bias_act_grad_cpu));
  m.impl("bias_act_grad.kernel", TORCH_BOX(&bias_act_grad_cpu));
  m.impl("bias_act_grad2", TORCH_BOX(&bias_act_grad2_cpu));
  m.impl("bias_act_grad2.kernel", TORCH_BOX(&bias_act_grad2_cpu));
}
