// The scalar formulas of csrc/*/*_math.h and numeric.h as NumPy functions, for the tests alone.
// One call evaluates a whole array; dtypes are told apart by overload, float64 first.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "ada/ada_math.h"
#include "augment/augment_math.h"
#include "bias_act/bias_act_math.h"
#include "common/numeric.h"
#include "consistency/consistency_math.h"
#include "feature_stats/feature_stats_math.h"
#include "feature_stats/feature_stats_tile.h"
#include "gradient_penalty/gradient_penalty_math.h"
#include "masked_slope/masked_slope_math.h"
#include "norm/norm_math.h"
#include "philox/philox_math.h"
#include "resize/resize_math.h"
#include "smooth/smooth_math.h"
#include "spectral_norm/spectral_norm_math.h"
#include "upfirdn2d/upfirdn2d_math.h"

namespace py = pybind11;
using namespace ganops;

namespace {

// No forcecast: a float32 array must not be taken for float64.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class Out, class In, class F>
Array<Out> map(const Array<In>& x, const F& f) {
  Array<Out> y(x.size());
  for (py::ssize_t i = 0; i < x.size(); ++i) y.mutable_data()[i] = f(x.data()[i]);
  return y;
}

template <class T>
void bind_numeric(py::module_& m) {
  m.def("exp_", [](const Array<T>& x) { return map<T>(x, [](T v) { return exp_(v); }); });
  m.def("exp_negative",
        [](const Array<T>& x) { return map<T>(x, [](T v) { return exp_negative(v); }); });
  m.def("expm1_negative",
        [](const Array<T>& x) { return map<T>(x, [](T v) { return expm1_negative(v); }); });
  m.def("log1p_", [](const Array<T>& x) { return map<T>(x, [](T v) { return log1p_(v); }); });
  m.def("tanh_", [](const Array<T>& x) { return map<T>(x, [](T v) { return tanh_(v); }); });
}

// Upper triangle of x'x, x (depth, d), d <= the tile's width, by one instruction set's tiles.
template <class T>
Array<double> tile_product(int kind, const Array<T>& x, int64_t depth, int64_t d) {
  const Tile<T> tile = tile_of<T>(TileKind(kind));
  std::vector<T> memory(depth * tile.width + 64 / sizeof(T));
  T* packed = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = 0; j < d; ++j) packed[k * tile.width + j] = x.data()[k * d + j];
  }
  Array<double> c(d * d);
  std::fill(c.mutable_data(), c.mutable_data() + d * d, 0.0);
  for (int64_t i = 0; i < d; i += tile.rows) {
    tile.run(depth, packed + i, packed, c.mutable_data() + i * d, d,
             std::min<int64_t>(tile.rows, d - i), d, i);
  }
  return c;
}

// (f, f', f'') of activation A; (s, s') of its slope as a function of the output.
template <class T, Act A>
void bind_act(py::module_& m, const std::string& name) {
  m.def(("jet_" + name).c_str(), [](const Array<T>& t, T alpha) {
    return py::make_tuple(map<T>(t, [=](T v) { return act_jet<A>(v, alpha).f; }),
                          map<T>(t, [=](T v) { return act_jet<A>(v, alpha).d1; }),
                          map<T>(t, [=](T v) { return act_jet<A>(v, alpha).d2; }));
  });
  m.def(("value_" + name).c_str(), [](const Array<T>& t, T alpha, T gain, T clamp) {
    return map<T>(t, [=](T v) { return bias_act_value<A>(v, alpha, gain, clamp); });
  });
  m.def(("grad_" + name).c_str(), [](const Array<T>& t, T alpha, T gain, T clamp) {
    return py::make_tuple(
        map<T>(t, [=](T v) { return bias_act_grad<A>(T(3), v, alpha, gain, clamp); }),
        map<T>(t, [=](T v) { return bias_act_grad2<A>(T(3), T(0.5), v, alpha, gain, clamp); }));
  });
  if constexpr (has_output_slope(A)) {
    m.def(("slope_" + name).c_str(), [](const Array<T>& y, T alpha, T gain) {
      return py::make_tuple(map<T>(y, [=](T v) { return output_slope<A>(v, alpha, gain).s; }),
                            map<T>(y, [=](T v) { return output_slope<A>(v, alpha, gain).d; }));
    });
  }
}

// One row of a norm, every number a cell of its own: (d_dy, d_x, d_w).
template <class T>
py::tuple norm_second(const Array<T>& v, const Array<T>& dy, const Array<T>& xhat, T r,
                      const Array<T>& w, const Array<T>& a, const Array<T>& c, bool centered) {
  const py::ssize_t n = xhat.size();
  const auto sums = [&](py::ssize_t i) {
    const T d = dy.data()[i], u = v.data()[i], h = xhat.data()[i];
    return NormSums<T>{d, u, d * h, u * h, u * d};
  };
  NormMeans<T> total{};
  for (py::ssize_t i = 0; i < n; ++i) norm_add(total, sums(i), w.data()[i], a.data()[i]);
  const NormRow<T> row = norm_row(norm_means(total, T(n)), r, centered);
  Array<T> d_dy(n), d_x(n), d_w(n);
  for (py::ssize_t i = 0; i < n; ++i) {
    const T d = dy.data()[i], u = v.data()[i], h = xhat.data()[i];
    const NormCell<T> e = norm_cell(row, w.data()[i], a.data()[i], c.data()[i]);
    d_dy.mutable_data()[i] = e.ev * u + e.ex * h + e.e1;
    d_x.mutable_data()[i] = e.fd * d + e.fv * u + e.fx * h + e.f1;
    d_w.mutable_data()[i] = norm_weight_grad(row, sums(i));
  }
  return py::make_tuple(d_dy, d_x, d_w);
}

// (s, ds/d ref) of smooth activation A.
template <class T, Smooth A>
void bind_smooth(py::module_& m, const std::string& name) {
  m.def(("smooth_" + name).c_str(), [](const Array<T>& ref, T a, T b) {
    return py::make_tuple(map<T>(ref, [=](T v) { return smooth_slopes<A>(v, a, b).s; }),
                          map<T>(ref, [=](T v) { return smooth_slopes<A>(v, a, b).d; }));
  });
}

// (is y = x, y where it is not, is the slope 1) of piecewise linear P; s g outside.
template <class T, Piece P>
void bind_piece(py::module_& m, const std::string& name) {
  m.def(("piece_" + name).c_str(), [](const Array<T>& x, T a, T b) {
    return py::make_tuple(map<bool>(x, [=](T v) { return piece_keeps<P>(v, a, b); }),
                          map<T>(x, [=](T v) { return piece_else<P>(v, a, b); }),
                          map<bool>(x, [=](T v) { return piece_inside<P>(v, a, b); }),
                          map<T>(x, [=](T v) { return slope_else(v, a); }));
  });
}

template <class T>
void bind_spectral(py::module_& m) {
  m.def("spectral_unit", [](const Array<T>& norm, T eps) {
    return map<T>(norm, [=](T v) { return spectral_unit(v, eps); });
  });
  m.def("spectral_grad", [](const Array<T>& g, T inverse, T along, T v) {
    return map<T>(g, [=](T x) { return spectral_grad(x, inverse, along, v); });
  });
}

// (first pixel, its seven taps) of the point at s.
template <class T>
py::tuple ada_point(int64_t s, const Array<T>&) {
  Array<T> taps(7);
  for (int t = 0; t < 7; ++t) taps.mutable_data()[t] = ada_tap<T>(s, t);
  return py::make_tuple(ada_first(s), taps);
}

template <class T>
void bind_formulas(py::module_& m) {
  bind_spectral<T>(m);
  m.def("ada_point", &ada_point<T>);
  m.def("norm_second", &norm_second<T>);
  bind_numeric<T>(m);
  bind_act<T, Act::linear>(m, "linear");
  bind_act<T, Act::relu>(m, "relu");
  bind_act<T, Act::lrelu>(m, "lrelu");
  bind_act<T, Act::tanh>(m, "tanh");
  bind_act<T, Act::sigmoid>(m, "sigmoid");
  bind_act<T, Act::elu>(m, "elu");
  bind_act<T, Act::selu>(m, "selu");
  bind_act<T, Act::softplus>(m, "softplus");
  bind_act<T, Act::swish>(m, "swish");
  bind_smooth<T, Smooth::silu>(m, "silu");
  bind_smooth<T, Smooth::gelu>(m, "gelu");
  bind_smooth<T, Smooth::gelu_tanh>(m, "gelu_tanh");
  bind_smooth<T, Smooth::softplus>(m, "softplus");
  bind_smooth<T, Smooth::elu>(m, "elu");
  bind_smooth<T, Smooth::tanh>(m, "tanh");
  bind_smooth<T, Smooth::sigmoid>(m, "sigmoid");
  bind_smooth<T, Smooth::mish>(m, "mish");
  bind_smooth<T, Smooth::hardswish>(m, "hardswish");
  bind_piece<T, Piece::relu>(m, "relu");
  bind_piece<T, Piece::leaky_relu>(m, "leaky_relu");
  bind_piece<T, Piece::hardtanh>(m, "hardtanh");
  bind_piece<T, Piece::threshold>(m, "threshold");
  m.def("consistency_term", &consistency_term<T>);
  m.def("consistency_slope", &consistency_slope<T>);
  m.def("penalty", [](const Array<T>& n, T center, bool one_sided) {
    return py::make_tuple(map<T>(n, [=](T v) { return penalty_value(v, center, one_sided); }),
                          map<T>(n, [=](T v) { return penalty_k1(v, v, center, one_sided); }),
                          // <G, v> = n gives 2c / n^2, which is k1'
                          map<T>(n, [=](T v) { return penalty_k2(v, v, v, center, one_sided); }));
  });
}

py::tuple words(const Words& w) { return py::make_tuple(w.w[0], w.w[1], w.w[2], w.w[3]); }

}  // namespace

PYBIND11_MODULE(ganops_harness, m) {
  bind_formulas<double>(m);
  bind_formulas<float>(m);

  m.def("ada_reflect", &ada_reflect);

  // Half formats as their 16 bits.
  m.def("half_to_float", [](const Array<uint16_t>& x) {
    return map<float>(x, [](uint16_t bits) { return to_compute(Half{bits}); });
  });
  m.def("bfloat16_to_float", [](const Array<uint16_t>& x) {
    return map<float>(x, [](uint16_t bits) { return to_compute(BFloat16{bits}); });
  });
  m.def("float_to_half", [](const Array<float>& x) {
    return map<uint16_t>(x, [](float v) { return from_compute<Half>(v).bits; });
  });
  m.def("float_to_bfloat16", [](const Array<float>& x) {
    return map<uint16_t>(x, [](float v) { return from_compute<BFloat16>(v).bits; });
  });

  m.def("first_tap", [](int64_t o, int64_t up, int64_t down, int64_t pad) {
    const auto wide = first_tap(o, up, down, pad);
    const auto narrow = first_tap(int(o), int(up), int(down), int(pad));
    return py::make_tuple(wide.tap, wide.index, narrow.tap, narrow.index);
  });
  m.def("tap_count", &tap_count<int64_t>);

  m.def("merge_step", &merge_step);
  m.def("merge_spread", &merge_spread);
  m.def("best_tile", [] { return int(best_tile()); });
  m.def("tile_product", &tile_product<double>);
  m.def("tile_product", &tile_product<float>);
  m.def("resize_lerp", &resize_lerp);
  m.def("resize_sum", [](const Array<double>& weights, const Array<float>& pixels) {
    double sum = 0.0;
    for (int64_t k = 0; k < weights.size(); ++k) {
      sum = resize_tap(sum, weights.data()[k], pixels.data()[k]);
    }
    return sum;
  });
  m.def("resize_clip", &resize_clip);
  m.def("resize_normalise", &resize_normalise);

  m.def("philox4x32",
        [](uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
          return words(philox4x32(Words{{c0, c1, c2, c3}}, k0, k1));
        });
  m.def("philox_block", [](uint64_t seed, uint64_t stream, uint64_t block) {
    return words(philox_block(seed, stream, block));
  });
  m.def("uniform_from_bits", [](const Array<uint32_t>& x) {
    return map<float>(x, [](uint32_t b) { return uniform_from_bits(b); });
  });
  m.def("unit_from_byte", [](const Array<uint8_t>& x) {
    return map<float>(x, [](uint8_t u) { return unit_from_byte(u); });
  });
  m.def("augment_source", &augment_source);
  m.def("augment_reader", &augment_reader);
  m.def("log_exact",
        [](const Array<float>& x) { return map<float>(x, [](float u) { return log_exact(u); }); });
  m.def("cos_sin_turns", [](const Array<uint32_t>& x) {
    return py::make_tuple(map<float>(x, [](uint32_t b) { return cos_sin_turns(b).cos; }),
                          map<float>(x, [](uint32_t b) { return cos_sin_turns(b).sin; }));
  });
  m.def("normals_from_block", [](uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
    float out[4];
    normals_from_block(Words{{w0, w1, w2, w3}}, out);
    return py::make_tuple(out[0], out[1], out[2], out[3]);
  });
}
