// smooth on the CPU: three operands read once, two results written once.
//
// The tensor is walked in blocks that fit L1; half types are widened into small buffers there, so
// that the formulas are compiled for float and double only.
#include "../common/results.h"
#include "../common/stream_store.h"
#include "../common/widen.h"
#include "smooth_math.h"

namespace ganops {
namespace {

template <class C>
struct Block {
  const C *v, *dy, *ref;
  C *d_dy, *d_ref;
  int64_t n;
  C a, b;
};

template <Smooth A, class C>
GANOPS_INLINE void grad2_loop(Block<C> k) {
  const C *GANOPS_RESTRICT v = k.v, *GANOPS_RESTRICT dy = k.dy, *GANOPS_RESTRICT ref = k.ref;
  C *GANOPS_RESTRICT d_dy = k.d_dy, *GANOPS_RESTRICT d_ref = k.d_ref;
  for (int64_t i = 0; i < k.n; ++i) {
    const Slopes<C> f = smooth_slopes<A>(ref[i], k.a, k.b);
    d_dy[i] = f.s * v[i];
    d_ref[i] = f.d * (v[i] * dy[i]);
  }
}

// Compiled once per instruction set.
#define GANOPS_SMOOTH_BLOCK(C) \
  GANOPS_CLONES                \
  void grad2_block(Smooth act, Block<C> k) { GANOPS_SWITCH_SMOOTH(act, grad2_loop<A>(k)) }
GANOPS_SMOOTH_BLOCK(float)
GANOPS_SMOOTH_BLOCK(double)

template <class T, class C = compute_t<T>>
void run(Smooth act, C a, C b, const T* v, const T* dy, const T* ref, T* d_dy, T* d_ref,
         int64_t numel) {
  constexpr int64_t unit = 8 * kBlock;
  parallel_units(ceil_div(numel, unit), unit, [&](int64_t first, int64_t last) {
    constexpr bool widen = sizeof(T) == 2;
    std::vector<C> wide(widen ? 5 * kBlock : 0);
    for (int64_t i = first * unit; i < std::min(last * unit, numel); i += kBlock) {
      const int64_t n = std::min(kBlock, numel - i);
      if constexpr (widen) {
        C* const w = wide.data();
        widen_block(v + i, w, n);
        widen_block(dy + i, w + kBlock, n);
        widen_block(ref + i, w + 2 * kBlock, n);
        grad2_block(
            act, Block<C>{w, w + kBlock, w + 2 * kBlock, w + 3 * kBlock, w + 4 * kBlock, n, a, b});
        narrow_block(w + 3 * kBlock, d_dy + i, n);
        narrow_block(w + 4 * kBlock, d_ref + i, n);
      } else {
        grad2_block(act, Block<C>{v + i, dy + i, ref + i, d_dy + i, d_ref + i, n, a, b});
      }
    }
  });
}

std::tuple<Tensor, Tensor> smooth_grad2_cpu(Tensor v, Tensor dy, Tensor ref, int64_t act, double a,
                                            double b) {
  STD_TORCH_CHECK(act >= 0 && act < int64_t(Smooth::count), "smooth: no activation ", act);
  check_same(dy, ref, "dy", "ref");
  check_same(dy, v, "dy", "v");
  ref = dense(ref);
  dy = in_layout_of(dy, ref);
  v = in_layout_of(v, ref);
  Tensor d_dy = result_like(ref), d_ref = result_like(ref);
  dispatch_floating(ref.scalar_type(), "smooth", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    run<T>(Smooth(act), C(a), C(b), data<T>(v), data<T>(dy), data<T>(ref), mutable_data<T>(d_dy),
           mutable_data<T>(d_ref), ref.numel());
  });
  return {d_dy, d_ref};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("smooth_grad2", TORCH_BOX(&smooth_grad2_cpu));
  m.impl("smooth_grad2.kernel", TORCH_BOX(&smooth_grad2_cpu));
}
