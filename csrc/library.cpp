// Every op of ganops, one line each. Kernels register themselves in <op>/<op>_cpu.cpp (this
// library) and <op>/<op>_cuda_bind.cpp (the CUDA library); fakes and derivatives in Python.
//
// Each op exists twice: `op` is the one to call, and carries its derivatives; the overload
// `op.kernel` is the bare kernel without autograd, which only those derivatives call.
#include <torch/csrc/stable/library.h>

#include <string>

namespace {

void define(torch::stable::detail::StableLibrary& m, const std::string& name,
            const std::string& signature) {
  m.def((name + signature).c_str());
  m.def((name + ".kernel" + signature).c_str());
}

}  // namespace

STABLE_TORCH_LIBRARY(ganops, m) {
  // y = C T(x), ADA's geometry and colour of each sample, and its adjoint; color (B, C, C + 1)
  define(m, "ada", "(Tensor x, Tensor maps, Tensor? color) -> Tensor");
  define(m, "ada_grad", "(Tensor dy, Tensor maps, Tensor? color) -> Tensor");
  // what ADA's pipeline draws for n images: maps (n, 7), and AdaColumn's table. p: one double;
  // plan: the numbers of the policy, on the CPU
  define(m, "ada_params",
         "(Tensor p, Tensor plan, int n, int seed, int offset, int height, int width)"
         " -> (Tensor maps, Tensor table)");
  // what a policy draws for samples offset ... offset + n - 1, (n, 11); numbers of policy.py's Plan
  define(m, "augment_params",
         "(Tensor like, int n, int seed, int offset, int height, int width, int flip, int gate,"
         " int shift_y, int shift_x, int cut_y, int cut_x, float sub_y, float sub_x,"
         " float brightness, float saturation, float contrast, float noise) -> Tensor");
  // T(x), or [x ; T(x)]; linear: without what is added. dtype: f32, f64, bf16, f16
  define(m, "augment",
         "(Tensor x, Tensor params, int seed, int offset, int flags, int dtype, bool pair,"
         " bool linear) -> Tensor");
  define(m, "augment_grad",  // the transpose of the linear part
         "(Tensor dy, Tensor params, int flags, int dtype, bool pair) -> Tensor");

  // y = clamp(gain * act(x + b)); ref is y if from_output, else x
  define(m, "bias_act",
         "(Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float clamp)"
         " -> Tensor");
  define(m, "bias_act_grad",
         "(Tensor dy, Tensor ref, Tensor? b, int dim, int act, float alpha, float gain,"
         " float clamp, bool from_output, bool want_db) -> (Tensor dx, Tensor db)");
  define(m, "bias_act_grad2",
         "(Tensor v, Tensor dy, Tensor ref, Tensor? b, int dim, int act, float alpha, float gain,"
         " float clamp, bool from_output) -> Tensor");

  // scale * sum of <xa - xb, ya - yb> over the halves of a batch, y = x if not given; per sample,
  // or one number. scale * s * [xa - xb ; xb - xa], s likewise
  define(m, "consistency", "(Tensor x, Tensor? y, float scale, bool per_sample) -> Tensor");
  define(m, "consistency_grad", "(Tensor s, Tensor x, float scale) -> Tensor");

  // rows (n, d) into the mean of `count` rows before them, and into the upper triangle of their
  // centred second moment; fast: products in float32. Returns the new mean.
  define(m, "feature_stats",
         "(Tensor rows, Tensor mean, Tensor(a!) m2, int count, bool fast) -> Tensor");

  // mean over samples of (|grad|_2 - center)^2, its gradient, and the derivative of that
  define(m, "gradient_penalty",
         "(Tensor grad, float center, bool one_sided) -> (Tensor value, Tensor norms)");
  define(m, "gradient_penalty_grad",
         "(Tensor go, Tensor grad, Tensor norms, float center, bool one_sided) -> Tensor");
  define(
      m, "gradient_penalty_fused",  // value and scale * gradient, reading memory once
      "(Tensor grad, float center, bool one_sided, float scale) -> (Tensor value, Tensor dgrad)");
  define(m, "gradient_penalty_grad2",
         "(Tensor v, Tensor go, Tensor grad, Tensor norms, float center, bool one_sided)"
         " -> (Tensor d_go, Tensor d_grad)");

  // y = f(x) of a piecewise linear f and where its slope is 1; s g, with s = mask ? 1 : outside
  define(m, "masked_slope_value",
         "(Tensor x, int act, float a, float b) -> (Tensor y, Tensor mask)");
  define(m, "masked_slope", "(Tensor g, Tensor mask, float outside) -> Tensor");

  // second order of every norm; `kind` of csrc/norm/norm_layout.h, without a mean: RMS norm
  define(m, "norm_grad2",
         "(Tensor v, Tensor dy, Tensor x, Tensor? mean, Tensor rstd, Tensor? w, Tensor? v_w,"
         " Tensor? v_b, int weights, int kind, bool want_w)"
         " -> (Tensor d_dy, Tensor d_x, Tensor d_w)");

  // elements offset ... offset + n - 1 of a Philox stream; kind 0 bits (as int64), 1 uniform,
  // 2 normal (float32). `like` says only where.
  define(m, "philox", "(Tensor like, int n, int seed, int offset, int stream, int kind) -> Tensor");

  // bytes resized and normalised to RGB. What output i reads along an axis: pixels first[i] and
  // the next, weight (n, 1) float32 of the way between them; or filter taps (n, k) float64 from
  // first[i] on. dtype: f32, (no f64), bf16, f16
  define(m, "resize",
         "(Tensor x, Tensor first_y, Tensor weight_y, Tensor first_x, Tensor weight_x,"
         " float shift, float divisor, int dtype, bool channels_last) -> Tensor");

  // the double backward of a smooth activation: (s v, ds/dref v dy), s = f'; ref is x, or y for
  // tanh and sigmoid
  define(m, "smooth_grad2",
         "(Tensor v, Tensor dy, Tensor ref, int act, float a, float b)"
         " -> (Tensor d_dy, Tensor d_ref)");

  // every W / sigma, the vectors after n_iterations, and the sigmas; weights share dtype and device
  define(m, "spectral_norm",
         "(Tensor[] ws, Tensor[] us, Tensor[] vs, int n_iterations, float eps, int dim)"
         " -> (Tensor[] ys, Tensor[] new_us, Tensor[] new_vs, Tensor sigmas)");
  define(m, "spectral_norm_grad",
         "(Tensor[] gs, Tensor[] ys, Tensor[] us, Tensor[] vs, Tensor sigmas, int dim)"
         " -> Tensor[]");
  // zeros inserted, padded or cropped, filtered, thinned out; its own derivative of every order.
  // pad: in front alone, what is behind follows from out. f: one dim (for both axes) or two.
  define(m, "upfirdn2d",
         "(Tensor x, Tensor f, int up_x, int up_y, int down_x, int down_y, int pad_x, int pad_y,"
         " int out_x, int out_y, bool flip, float gain) -> Tensor");
}
