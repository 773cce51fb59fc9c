// Philox streams on the CPU, four words at a time.
#include "../common/results.h"
#include "../common/stream_store.h"
#include "philox_math.h"

namespace ganops {
namespace {

constexpr int64_t kBlocksPerUnit = 1024;

struct Stream {
  uint64_t seed, stream;
};

// Words, uniforms or normals of `count` whole blocks from `first`.
#define GANOPS_PHILOX_FILL(NAME, T, BODY)                                      \
  GANOPS_CLONES                                                                \
  void NAME(Stream s, uint64_t first, int64_t count, T* GANOPS_RESTRICT out) { \
    for (int64_t i = 0; i < count; ++i) {                                      \
      const Words w = philox_block(s.seed, s.stream, first + uint64_t(i));     \
      T* o = out + 4 * i;                                                      \
      BODY                                                                     \
    }                                                                          \
  }
GANOPS_PHILOX_FILL(fill_bits, int64_t, for (int j = 0; j < 4; ++j) o[j] = int64_t(w.w[j]);)
GANOPS_PHILOX_FILL(fill_uniform, float,
                   for (int j = 0; j < 4; ++j) o[j] = uniform_from_bits(w.w[j]);)
GANOPS_PHILOX_FILL(fill_normal, float, normals_from_block(w, o);)

// Elements [offset, offset + n): whole blocks in place, the ragged ends by way of one block.
template <class T, class Fill>
void run(Stream s, int64_t offset, int64_t n, T* out, Fill fill) {
  const int64_t first = offset / 4, last = ceil_div(offset + n, 4);
  parallel_units(
      ceil_div(last - first, kBlocksPerUnit), 4 * kBlocksPerUnit, [&](int64_t begin, int64_t end) {
        T edge[4];
        const int64_t stop = std::min(first + end * kBlocksPerUnit, last);
        for (int64_t b = first + begin * kBlocksPerUnit; b < stop;) {
          const int64_t at = 4 * b - offset;
          if (at >= 0 && at + 4 <= n) {
            const int64_t count = std::min(std::min(kBlocksPerUnit, stop - b), (n - at) / 4);
            fill(s, uint64_t(b), count, out + at);
            b += count;
          } else {
            fill(s, uint64_t(b), 1, edge);
            for (int64_t j = std::max<int64_t>(0, -at); j < std::min<int64_t>(4, n - at); ++j) {
              out[at + j] = edge[j];
            }
            ++b;
          }
        }
      });
}

Tensor philox_cpu(Tensor like, int64_t n, int64_t seed, int64_t offset, int64_t stream,
                  int64_t kind) {
  STD_TORCH_CHECK(n >= 0 && offset >= 0 && kind >= 0 && kind <= 2, "philox: bad arguments");
  const Stream s{uint64_t(seed), uint64_t(stream)};
  Tensor out = on_huge_pages(torch::stable::new_empty(
      like, {n}, std::make_optional(kind == 0 ? ScalarType::Long : ScalarType::Float)));
  if (n == 0) return out;
  if (kind == 0) run(s, offset, n, mutable_data<int64_t>(out), fill_bits);
  if (kind == 1) run(s, offset, n, mutable_data<float>(out), fill_uniform);
  if (kind == 2) run(s, offset, n, mutable_data<float>(out), fill_normal);
  return out;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  m.impl("philox", TORCH_BOX(&ganops::philox_cpu));
  m.impl("philox.kernel", TORCH_BOX(&ganops::philox_cpu));
}
