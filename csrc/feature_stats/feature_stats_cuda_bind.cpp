// Tensors in, launches out: feature_stats on a CUDA device. The product is torch's own matmul.
#include "../common/cuda_tensors.h"
#include "feature_stats_cuda.h"
#include "feature_stats_layout.h"

namespace ganops {
namespace {

Tensor feature_stats_cuda(Tensor rows, Tensor mean, Tensor m2, int64_t count, bool fast) {
  check_stats(rows, mean, m2, count);
  const OnDeviceOf device(rows);
  const int64_t n = rows.size(0), d = rows.size(1);
  if (d > 1 && rows.stride(1) != 1) rows = torch::stable::contiguous(rows);
  Tensor merged = torch::stable::empty_like(mean);
  Tensor block = torch::stable::new_empty(
      mean, {n + 1, d}, std::make_optional(fast ? ScalarType::Float : ScalarType::Double));
  const StatsLaunch l{dtype_code(rows), n, d, rows.stride(0), count, fast, device.stream()};
  check_launch(feature_stats_center_launch(l, raw(rows), data<double>(mean),
                                           mutable_data<double>(merged), block.mutable_data_ptr()),
               "feature_stats");
  const Tensor product = torch::stable::matmul(torch::stable::transpose(block, 0, 1), block);
  check_launch(feature_stats_add_launch(l, raw(product), mutable_data<double>(m2)),
               "feature_stats");
  return merged;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CUDA, m) {
  m.impl("feature_stats", TORCH_BOX(&ganops::feature_stats_cuda));
  m.impl("feature_stats.kernel", TORCH_BOX(&ganops::feature_stats_cuda));
}
