// Launchers of norm_cuda.cu.
#pragma once

#include "../common/cuda_launch.h"

namespace ganops {

struct NormLaunch {
  DType dtype;
  int kind;  // NormKind of norm_layout.h
  int64_t outer, inner, cells, n, rows, members, weights;
  const void *v, *dy, *x, *mean, *rstd, *w, *a, *c;  // mean, w, a, c may be null
  void *d_dy, *d_x;
  void* d_w;      // per cell (cells), or per piece of the rows (chunks, weights); null: not wanted
  void* partial;  // norm_partials() numbers of the computing type
  void* numbers;  // norm_numbers() of the computing type
  CudaStream stream;
};

int64_t norm_partials(const NormLaunch& a);
int64_t norm_numbers(const NormLaunch& a);
int64_t norm_weight_chunks(const NormLaunch& a);  // kind rows: how many parts d_w comes in

// Three launches: sums, each row's numbers (kind rows: d_w, last), results.
int norm_grad2_launch(const NormLaunch& a);

}  // namespace ganops
