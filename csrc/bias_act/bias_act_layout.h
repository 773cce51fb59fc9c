// How a dense tensor in any memory order meets its bias: physical position p belongs to channel
// (p / inner) % channels. Without a bias the whole tensor is one channel.
#pragma once

#include "../common/tensors.h"
#include "bias_act_math.h"

namespace ganops {

struct BiasActArgs {
  Act act;
  double alpha, gain, clamp;
};

inline BiasActArgs bias_act_args(int64_t act, double alpha, double gain, double clamp) {
  STD_TORCH_CHECK(act >= 0 && act < int64_t(Act::count), "bias_act: no activation ", act);
  return {Act(act), alpha, gain, clamp};
}

inline void check_from_output(const BiasActArgs& a, bool from_output) {
  const bool can = has_output_slope(a.act) && a.gain > 0 && (a.act != Act::lrelu || a.alpha >= 0);
  STD_TORCH_CHECK(!from_output || can, "bias_act: this activation's slope cannot be read off y");
}

struct BiasLayout {
  int64_t numel, channels, inner;
};

inline BiasLayout bias_layout(const Tensor& x, const std::optional<Tensor>& b, int64_t dim) {
  if (!b.has_value()) return {x.numel(), 1, std::max<int64_t>(x.numel(), 1)};
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "bias_act: dim ", dim, " is outside rank ", x.dim());
  STD_TORCH_CHECK(b->dim() == 1 && b->size(0) == x.size(dim) && b->is_contiguous() &&
                      b->scalar_type() == x.scalar_type(),
                  "bias_act: expected a contiguous bias of ", x.size(dim), " of x's dtype");
  // A dim of size 1 may carry any stride; every position is then in channel 0.
  const bool single = x.size(dim) == 1;
  const int64_t inner = single ? std::max<int64_t>(x.numel(), 1) : x.stride(dim);
  return {x.numel(), x.size(dim), std::max<int64_t>(inner, 1)};
}

// What a reduction over everything but the channels is returned in.
inline Tensor bias_like(const std::optional<Tensor>& b, const Tensor& x, bool want) {
  return torch::stable::new_empty(x, {want && b.has_value() ? b->size(0) : 0});
}

}  // namespace ganops

// Runs the statement with A as a compile-time constant.
#define GANOPS_ACT_CASE(NAME, ...) \
  case Act::NAME: {                \
    constexpr Act A = Act::NAME;   \
    __VA_ARGS__;                   \
    break;                         \
  }
#define GANOPS_SWITCH_ACT(act, ...)        \
  switch (act) {                           \
    GANOPS_ACT_CASE(linear, __VA_ARGS__)   \
    GANOPS_ACT_CASE(relu, __VA_ARGS__)     \
    GANOPS_ACT_CASE(lrelu, __VA_ARGS__)    \
    GANOPS_ACT_CASE(tanh, __VA_ARGS__)     \
    GANOPS_ACT_CASE(sigmoid, __VA_ARGS__)  \
    GANOPS_ACT_CASE(elu, __VA_ARGS__)      \
    GANOPS_ACT_CASE(selu, __VA_ARGS__)     \
    GANOPS_ACT_CASE(softplus, __VA_ARGS__) \
    GANOPS_ACT_CASE(swish, __VA_ARGS__)    \
    default:                               \
      break;                               \
  }
