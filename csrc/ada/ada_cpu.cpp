// ada on the CPU: images in parallel, each interleaved, worked on tile by tile, and stored.
//
// Bound by arithmetic: a resampled result and channel costs about 230 multiply-adds (upsampling 9
// for each of some 9 points of the box, 3 for each of 5 lattice points, downsampling 40), against 8
// bytes of memory.
#include "../common/results.h"
#include "../common/widen.h"
#include "ada_layout.h"
#include "ada_passes.h"

namespace ganops {
namespace {

// Compiled once per instruction set.
#define GANOPS_ADA_IMAGE(C, V)                                                                   \
  GANOPS_CLONES                                                                                  \
  void ada_image(const AdaImage<C, V>& im, const C* color, int64_t channels, AdaScratch<C>& s) { \
    forward_image<C, V>(im, s);                                                                  \
    if (color != nullptr) color_image<C, V>(im.y, im.height * im.width, color, channels, false); \
  }                                                                                              \
  GANOPS_CLONES                                                                                  \
  void ada_image_grad(const AdaImage<C, V>& im, C* dy, const C* color, int64_t channels,         \
                      AdaScratch<C>& s) {                                                        \
    if (color != nullptr) color_image<C, V>(dy, im.height * im.width, color, channels, true);    \
    adjoint_image<C, V>(im, s);                                                                  \
  }
GANOPS_ADA_IMAGE(float, 1)
GANOPS_ADA_IMAGE(float, 4)
GANOPS_ADA_IMAGE(double, 1)
GANOPS_ADA_IMAGE(double, 4)

struct Strides {
  int64_t n, c, y, x;
  explicit Strides(const Tensor& t)
      : n(t.stride(0)), c(t.stride(1)), y(t.stride(2)), x(t.stride(3)) {}
};

// Bytes as the reference maps them, to the last bit.
struct ByteValues {
  float of[256];
  ByteValues() {
    for (int i = 0; i < 256; ++i) of[i] = float(i) / 127.5f - 1.0f;
  }
};
const ByteValues kBytes;

template <class T>
compute_t<T> value_of(T v) {
  return to_compute(v);
}
template <>
float value_of<uint8_t>(uint8_t v) {
  return kBytes.of[v];
}

// A row of `channels` planes to V interleaved channels and back.
template <int V, class T, class C>
void interleave(const T* x, const Strides& s, int64_t width, int64_t channels, C* out) {
  for (int64_t i = 0; i < width; ++i) {
    for (int c = 0; c < V; ++c)
      out[i * V + c] = c < channels ? value_of(x[i * s.x + c * s.c]) : C(0);
  }
}
template <int V, class T, class C>
void separate(const C* in, const Strides& s, int64_t width, int64_t channels, T* y) {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < width; ++i) y[i * s.x + c * s.c] = from_compute<T>(in[i * V + c]);
  }
}

struct Call {
  Tensor x, maps;
  std::optional<Tensor> color;
  Tensor y;
  bool adjoint;
};

template <class T, int V>
void run(const Call& call) {
  using C = compute_t<T>;
  using Out = std::conditional_t<std::is_same_v<T, uint8_t>, float, T>;
  const Tensor &x = call.x, &y = call.y;
  const int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t groups = ceil_div(channels, V), pixels = height * width;
  const Strides in(x), out(y);
  const int64_t* maps = data<int64_t>(call.maps);
  const C* color = call.color.has_value() ? data<C>(*call.color) : nullptr;
  const T* from = data<T>(x);
  Out* to = mutable_data<Out>(y);
  parallel_units(x.size(0) * groups, 32 * V * pixels, [&](int64_t first, int64_t last) {
    AdaScratch<C> scratch;
    std::vector<C> source(pixels * V), result(pixels * V);
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t n = unit / groups, c0 = unit % groups * V;
      const int64_t count = std::min<int64_t>(V, channels - c0);
      for (int64_t row = 0; row < height; ++row) {
        interleave<V>(from + n * in.n + c0 * in.c + row * in.y, in, width, count,
                      source.data() + row * width * V);
      }
      const int64_t* m = maps + n * kAdaMap;
      const AdaImage<C, V> im{
          height, width, {m[0], m[1], m[2], m[3], m[4], m[5], m[6]}, source.data(), result.data()};
      const C* matrix = color == nullptr ? nullptr : color + n * channels * (channels + 1);
      if (call.adjoint) {
        std::fill(result.begin(), result.end(), C(0));
        ada_image_grad(im, source.data(), matrix, channels, scratch);
      } else {
        ada_image(im, matrix, channels, scratch);
      }
      for (int64_t row = 0; row < height; ++row) {
        separate<V>(result.data() + row * width * V, out, width, count,
                    to + n * out.n + c0 * out.c + row * out.y);
      }
    }
  });
}

// Beyond these, a source coordinate would not fit 32 bits of whole pixels.
void check_maps(const Tensor& maps) {
  const int64_t* m = data<int64_t>(maps);
  for (int64_t i = 0; i < maps.size(0) * kAdaMap; ++i) {
    const bool offset = i % kAdaMap == 2 || i % kAdaMap == 5;
    const int64_t most = int64_t(1) << (offset ? 60 : 42);
    STD_TORCH_CHECK(m[i] > -most && m[i] < most, "ada: expected maps of finite scale");
  }
}

Tensor ada_run(Tensor x, Tensor maps, std::optional<Tensor> color, bool adjoint) {
  check_ada(x, maps, color);
  if (color.has_value()) color = torch::stable::contiguous(*color);
  maps = torch::stable::contiguous(maps);
  check_maps(maps);
  const bool bytes = x.scalar_type() == ScalarType::Byte;
  STD_TORCH_CHECK(!bytes || (!adjoint && x.is_contiguous()), "ada: bytes are images, contiguous");
  Tensor y = bytes ? on_huge_pages(new_contiguous(x, std::make_optional(ScalarType::Float)))
                   : (is_dense(x) ? result_like(x) : new_contiguous(x));
  if (x.numel() == 0) return y;
  const Call call{x, maps, color, y, adjoint};
  if (bytes) {
    x.size(1) == 1 ? run<uint8_t, 1>(call) : run<uint8_t, 4>(call);
    return y;
  }
  dispatch_floating(x.scalar_type(), "ada", [&](auto t) {
    using T = decltype(t);
    x.size(1) == 1 ? run<T, 1>(call) : run<T, 4>(call);
  });
  return y;
}

Tensor ada_cpu(Tensor x, Tensor maps, std::optional<Tensor> color) {
  return ada_run(x, maps, color, false);
}
Tensor ada_grad_cpu(Tensor dy, Tensor maps, std::optional<Tensor> color) {
  return ada_run(dy, maps, color, true);
}

std::tuple<Tensor, Tensor> ada_params_cpu(Tensor p, Tensor plan, int64_t n, int64_t seed,
                                          int64_t offset, int64_t height, int64_t width) {
  const AdaPlan k = ada_plan(p, plan);
  const AdaDrawn drawn = new_drawn(p, n);
  const double probability = *data<double>(p);
  int64_t* const maps = mutable_data<int64_t>(drawn.maps);
  double* const table = mutable_data<double>(drawn.table);
  parallel_units(n, 4096, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      ada_draw(k, probability, uint64_t(seed), uint64_t(offset + i), height, width,
               table + i * kAdaColumns, maps + i * kAdaMap);
    }
  });
  return {drawn.maps, drawn.table};
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("ada", TORCH_BOX(&ada_cpu));
  m.impl("ada.kernel", TORCH_BOX(&ada_cpu));
  m.impl("ada_params", TORCH_BOX(&ada_params_cpu));
  m.impl("ada_params.kernel", TORCH_BOX(&ada_params_cpu));
  m.impl("ada_grad", TORCH_BOX(&ada_grad_cpu));
  m.impl("ada_grad.kernel", TORCH_BOX(&ada_grad_cpu));
}
