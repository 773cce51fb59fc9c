// Tensors in, launches out: spectral_norm for CUDA tensors.
#include "../common/cuda_tensors.h"
#include "spectral_norm_cuda.h"
#include "spectral_norm_layout.h"

namespace ganops {
namespace {

Matrix small_matrix_of(const Tensor& w, int64_t dim) {
  const Matrix m = matrix_of(w, dim);
  STD_TORCH_CHECK(m.numel() < (int64_t(1) << 31), "spectral_norm: a weight of ", m.numel(),
                  " elements is too large for the CUDA kernel");
  return m;
}

std::tuple<Tensors, Tensors, Tensors, Tensor> spectral_norm_cuda(Tensors ws, Tensors us, Tensors vs,
                                                                 int64_t steps, double eps,
                                                                 int64_t dim) {
  check_lists(ws, us, vs);
  const OnDeviceOf device(ws[0]);
  const auto wide = std::make_optional(reduced_dtype(ws[0].scalar_type()));
  const int64_t count = int64_t(ws.size());
  Tensor sigmas = torch::stable::new_empty(ws[0], {count}, wide);
  Tensors new_us, new_vs;
  std::vector<Result> results;
  std::vector<SpectralLayer> layers;
  int64_t scratch = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Matrix m = small_matrix_of(ws[i], dim);
    results.emplace_back(torch::stable::empty_like(ws[i]));
    ws[i] = torch::stable::contiguous(ws[i]);
    us[i] = vector_of(us[i], m.rows, ws[i], "u");
    vs[i] = vector_of(vs[i], m.columns(), ws[i], "v");
    new_us.push_back(torch::stable::empty_like(us[i]));
    new_vs.push_back(torch::stable::empty_like(vs[i]));
    layers.push_back({raw(ws[i]), nullptr, results[i].rows(), raw(us[i]), raw(vs[i]),
                      new_us[i].mutable_data_ptr(), new_vs[i].mutable_data_ptr(), m.outer, m.rows,
                      m.inner, scratch});
    scratch += spectral_forward_scratch(layers[i]);
  }
  Tensor room = torch::stable::new_empty(ws[0], {scratch}, wide);
  const SpectralLaunch a{dtype_code(ws[0]), layers.data(), count, device.stream()};
  check_launch(
      spectral_forward_launch(a, steps, eps, room.mutable_data_ptr(), sigmas.mutable_data_ptr()),
      "spectral_norm");
  Tensors ys;
  for (Result& r : results) ys.push_back(r.finished());
  return {ys, new_us, new_vs, sigmas};
}

Tensors spectral_norm_grad_cuda(Tensors gs, Tensors ys, Tensors us, Tensors vs, Tensor sigmas,
                                int64_t dim) {
  check_lists(ys, us, vs);
  check_grads(gs, ys, sigmas);
  const OnDeviceOf device(ys[0]);
  const int64_t count = int64_t(ys.size());
  std::vector<Result> results;
  std::vector<SpectralLayer> layers;
  int64_t scratch = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Matrix m = small_matrix_of(ys[i], dim);
    results.emplace_back(torch::stable::empty_like(ys[i]));
    gs[i] = torch::stable::contiguous(gs[i]);
    ys[i] = torch::stable::contiguous(ys[i]);
    us[i] = vector_of(us[i], m.rows, ys[i], "u");
    vs[i] = vector_of(vs[i], m.columns(), ys[i], "v");
    layers.push_back({raw(gs[i]), raw(ys[i]), results[i].rows(), raw(us[i]), raw(vs[i]), nullptr,
                      nullptr, m.outer, m.rows, m.inner, scratch});
    scratch += spectral_backward_scratch(layers[i]);
  }
  sigmas = torch::stable::contiguous(sigmas);
  Tensor room = torch::stable::new_empty(ys[0], {scratch}, std::make_optional(ScalarType::Double));
  const SpectralLaunch a{dtype_code(ys[0]), layers.data(), count, device.stream()};
  check_launch(spectral_backward_launch(a, mutable_data<double>(room), raw(sigmas)),
               "spectral_norm_grad");
  Tensors out;
  for (Result& r : results) out.push_back(r.finished());
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  using namespace ganops;
  m.impl("spectral_norm", TORCH_BOX(&spectral_norm_cuda));
  m.impl("spectral_norm.kernel", TORCH_BOX(&spectral_norm_cuda));
  m.impl("spectral_norm_grad", TORCH_BOX(&spectral_norm_grad_cuda));
  m.impl("spectral_norm_grad.kernel", TORCH_BOX(&spectral_norm_grad_cuda));
}
