// masked_slope on the CPU: one read of each operand, one write of each result.
#include "../common/results.h"
#include "../common/stream_store.h"
#include "masked_slope_layout.h"

namespace ganops {
namespace {

template <class T>
struct ValueBlock {
  const T* x;
  T* y;
  uint8_t* mask;
  int64_t n;
  bool stream;
  compute_t<T> a, b;
};

template <class T>
struct SlopeBlock {
  const T* g;
  const uint8_t* mask;
  T* out;
  int64_t n;
  bool stream;
  compute_t<T> outside;
};

template <size_t N>
using Bits = std::conditional_t<N == 2, uint16_t, std::conditional_t<N == 4, uint32_t, uint64_t>>;

// A choice by its bits: of a plain one compilers make a branch, 20 times slower where signs vary.
template <class T>
GANOPS_INLINE T choose(bool first, T a, T b) {
  using U = Bits<sizeof(T)>;
  const U mask = U(0) - U(first);
  return bit_cast<T>(U((bit_cast<U>(a) & mask) | (bit_cast<U>(b) & U(~mask))));
}

template <Piece P, class T>
GANOPS_INLINE void value_loop(ValueBlock<T> k) {
  using C = compute_t<T>;
  store_results(k.y, k.n, k.stream,
                [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                  const T* GANOPS_RESTRICT x = k.x + at;
                  uint8_t* GANOPS_RESTRICT mask = k.mask + at;
                  for (int64_t i = 0; i < count; ++i) {
                    const C v = to_compute(x[i]);
                    const T other = from_compute<T>(piece_else<P>(v, k.a, k.b));
                    to[i] = choose(piece_keeps<P>(v, k.a, k.b), x[i], other);
                    mask[i] = piece_inside<P>(v, k.a, k.b);
                  }
                });
}

template <bool kZero, class T>
GANOPS_INLINE void slope_loop(SlopeBlock<T> k) {
  using C = compute_t<T>;
  const C outside = kZero ? C(0) : k.outside;
  store_results(k.out, k.n, k.stream,
                [&](int64_t at, T* GANOPS_RESTRICT to, int64_t count) GANOPS_LAMBDA {
                  const T* GANOPS_RESTRICT g = k.g + at;
                  const uint8_t* GANOPS_RESTRICT mask = k.mask + at;
                  for (int64_t i = 0; i < count; ++i) {
                    const C other = slope_else(to_compute(g[i]), outside);
                    to[i] = choose(mask[i] != 0, g[i], from_compute<T>(other));
                  }
                });
}

// Compiled once per instruction set.
#define GANOPS_MASKED_BLOCKS(T)                                                               \
  GANOPS_CLONES                                                                               \
  void value_block(Piece act,                                                                 \
                   ValueBlock<T> k){GANOPS_SWITCH_PIECE(act, value_loop<P>(k))} GANOPS_CLONES \
  void slope_block(SlopeBlock<T> k) { k.outside == 0 ? slope_loop<true>(k) : slope_loop<false>(k); }
GANOPS_MASKED_BLOCKS(float)
GANOPS_MASKED_BLOCKS(double)
GANOPS_MASKED_BLOCKS(BFloat16)
GANOPS_MASKED_BLOCKS(Half)

// Runs f(first, count) over pieces of `numel`, in parallel.
template <class F>
void by_pieces(int64_t numel, const F& f) {
  constexpr int64_t unit = 8 * kBlock;
  parallel_units(ceil_div(numel, unit), unit, [&](int64_t first, int64_t last) {
    f(first * unit, std::min(last * unit, numel) - first * unit);
    stream_fence();
  });
}

bool streams(const Tensor& t) { return t.numel() * t.element_size() >= kStreamBytes; }

std::tuple<Tensor, Tensor> value_cpu(Tensor x, int64_t act, double a, double b) {
  check_piece(act);
  x = dense(x);
  Tensor y = result_like(x), mask = mask_like(x);
  dispatch_floating(x.scalar_type(), "masked_slope", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    by_pieces(x.numel(), [&](int64_t i, int64_t n) {
      value_block(Piece(act),
                  ValueBlock<T>{data<T>(x) + i, mutable_data<T>(y) + i,
                                mutable_data<uint8_t>(mask) + i, n, streams(y), C(a), C(b)});
    });
  });
  return {y, mask};
}

Tensor masked_slope_cpu(Tensor g, Tensor mask, double outside) {
  check_mask(g, mask);
  mask = dense(mask);
  g = in_order_of(g, mask);
  Tensor out = result_like(g);
  dispatch_floating(g.scalar_type(), "masked_slope", [&](auto t) {
    using T = decltype(t);
    by_pieces(g.numel(), [&](int64_t i, int64_t n) {
      slope_block(SlopeBlock<T>{data<T>(g) + i, data<uint8_t>(mask) + i, mutable_data<T>(out) + i,
                                n, streams(out), compute_t<T>(outside)});
    });
  });
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("masked_slope", TORCH_BOX(&masked_slope_cpu));
  m.impl("masked_slope.kernel", TORCH_BOX(&masked_slope_cpu));
  m.impl("masked_slope_value", TORCH_BOX(&value_cpu));
  m.impl("masked_slope_value.kernel", TORCH_BOX(&value_cpu));
}
