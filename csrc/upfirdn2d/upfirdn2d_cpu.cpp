// upfirdn2d on the CPU: each row of the result is made in L1 from the rows of x that reach it.
//
// First along the columns: a weighted sum of rows of x, at the width of x. Then along the row,
// where results that meet the same taps form phases, each again a weighted sum. Inserted zeros are
// never seen. A two-dimensional filter that is an outer product, as most are, is taken apart first.
#include <cmath>
#include <limits>
#include <numeric>

#include "../common/results.h"
#include "../common/widen.h"
#include "upfirdn2d_layout.h"
#include "upfirdn2d_loops.h"

namespace ganops {
namespace {

constexpr int64_t kTile = 4096;  // numbers of a row at a time: scratch stays in L1 and L2

// The filter as the rows of x meet it: one weight per row and tap. `column` is empty if it is no
// outer product, and then `row` is the whole.
template <class C>
struct Filter {
  std::vector<C> column, row;
};

// As column times row, if that is so to the rounding of its products.
template <class C>
Filter<C> take_apart(std::vector<C> f, int64_t height, int64_t width) {
  int64_t pivot = 0;
  for (int64_t i = 1; i < height * width; ++i) {
    if (std::abs(f[i]) > std::abs(f[pivot])) pivot = i;
  }
  if (!(std::abs(f[pivot]) > C(0))) return {{}, std::move(f)};
  const C* const first = &f[pivot / width * width];
  Filter<C> found{{}, std::vector<C>(first, first + width)};
  for (int64_t i = 0; i < height; ++i) {
    found.column.push_back(f[i * width + pivot % width] / f[pivot]);
    for (int64_t j = 0; j < width; ++j) {
      const C is = f[i * width + j], product = found.column[i] * found.row[j];
      const C slack = C(4) * std::numeric_limits<C>::epsilon() * std::abs(is);
      if (!(std::abs(is - product) <= slack)) return {{}, std::move(f)};
    }
  }
  return found;
}

template <class C>
Filter<C> filter_of(const Tensor& f, bool flip, double gain) {
  const C* const given = data<C>(f);
  std::vector<C> g(given, given + f.numel());
  if (!flip) std::reverse(g.begin(), g.end());
  Filter<C> found{g, g};
  if (f.dim() == 2) found = take_apart(std::move(g), f.size(0), f.size(1));
  for (C& w : found.column.empty() ? found.row : found.column) w *= C(gain);
  return found;
}

// Results p, p + phases, p + 2 phases, ... of a row meet the same taps, `step` pixels further on.
struct RowPlan {
  int64_t phases, step, first, span;  // pixels [first, first + span) make results [0, phases)
  std::vector<FirstTap<int64_t>> at;
};

RowPlan row_plan(const Axis& a) {
  const int64_t shared = std::gcd(a.up, a.down);
  RowPlan k{a.up / shared, a.down / shared, 0, 1, {}};
  for (int64_t p = 0; p < k.phases; ++p) {
    const auto t = first_tap(p, a.up, a.down, a.pad);
    if (p == 0) k.first = t.index;
    k.span = std::max(k.span, t.index - k.first + tap_count(t.tap, a.up, a.taps));
    k.at.push_back(t);
  }
  return k;
}

template <class T>
class Rows {
  using C = compute_t<T>;
  static constexpr bool kWiden = sizeof(T) == 2;

 public:
  Rows(const UpfirdnLayout& layout, const Filter<C>& filter, const RowPlan& plan, int64_t x_row)
      : k_(layout), f_(filter), p_(plan), x_row_(x_row) {
    const int64_t unit = k_.unit();
    tile_ = std::max<int64_t>(kTile / (unit * std::max(p_.phases, p_.step)), 8);
    tile_ = std::min(tile_, ceil_div(k_.x.out, p_.phases));
    // Whole steps, so that splitting reads inside.
    width_ = ceil_div((tile_ - 1) * p_.step + p_.span, p_.step) * p_.step * unit;
    most_rows_ = ceil_div(k_.y.taps, k_.y.up);
    scratch_.resize(2 * width_);
    phases_.resize((p_.phases + (kWiden ? p_.phases : 0)) * tile_ * unit);
    if (kWiden || !separable()) kept_.resize(most_rows_ * width_);
    held_.resize(most_rows_);
    rows_.resize(most_rows_);
    for (int64_t tap = 0; tap < k_.y.up && separable(); ++tap) {
      for (int64_t j = 0; j < most_rows_; ++j) {
        const int64_t at = tap + j * k_.y.up;
        column_.push_back(at < k_.y.taps ? f_.column[at] : C(0));
      }
    }
  }

  // Rows [first, last) of one plane's result.
  void run(const T* x, T* y, int64_t first, int64_t last) {
    const int64_t count = ceil_div(k_.x.out, p_.phases);
    for (int64_t i = 0; i < count; i += tile_) {
      columns(x, y, first, last, i, std::min(tile_, count - i));
    }
  }

 private:
  bool separable() const { return !f_.column.empty(); }

  // Results [i phases, (i + n) phases) of those rows.
  void columns(const T* x, T* y, int64_t first, int64_t last, int64_t i, int64_t n) {
    const int64_t unit = k_.unit(), from = p_.first + i * p_.step;
    pixels_ = ceil_div((n - 1) * p_.step + p_.span, p_.step);
    const int64_t reach = pixels_ * p_.step;
    begin_ = std::clamp<int64_t>(from, 0, k_.x.in);
    const int64_t end = std::max(begin_, std::clamp<int64_t>(from + reach, 0, k_.x.in));
    left_ = std::clamp<int64_t>(begin_ - from, 0, reach) * unit;
    inside_ = (end - begin_) * unit;
    std::fill(scratch_.begin(), scratch_.end(), C(0));
    std::fill(held_.begin(), held_.end(), -1);
    const int64_t wanted = (std::min(k_.x.out, (i + n) * p_.phases) - i * p_.phases) * unit;
    if (separable()) {
      begin_terms();
      add_terms(split_or(scratch_.data()), f_.row.data());
    }
    for (int64_t o = first; o < last; ++o) {
      T* const to = y + (o * k_.x.out + i * p_.phases) * unit;
      const auto t = first_tap(o, k_.y.up, k_.y.down, k_.y.pad);
      const int64_t count = tap_count(t.tap, k_.y.up, k_.y.taps);
      const int64_t j0 = std::max<int64_t>(0, -t.index), j1 = std::min(count, k_.y.in - t.index);
      if (j0 >= j1) {
        std::fill(to, to + wanted, T{});
        continue;
      }
      if (separable()) {
        for (int64_t j = j0; j < j1; ++j) rows_[j - j0] = row_inside(x, t.index + j);
        const C* const weights = &column_[t.tap * most_rows_ + j0];
        sum_rows({rows_.data(), weights, j1 - j0}, scratch_.data() + left_, inside_);
        if (p_.step > 1) split(scratch_.data(), scratch_.data() + width_, pixels_, p_.step, unit);
      } else {
        begin_terms();
        for (int64_t j = j0; j < j1; ++j) {
          add_terms(row_split(x, t.index + j), &f_.row[(t.tap + j * k_.y.up) * k_.x.taps]);
        }
      }
      emit(to, n, wanted);
    }
  }

  C* split_or(C* whole) { return p_.step > 1 ? whole + width_ : whole; }

  void begin_terms() {
    terms_.assign(p_.phases, {});
    term_weights_.assign(p_.phases, {});
  }
  // The taps of one row of the filter, on a row of x.
  void add_terms(const C* row, const C* g) {
    for (int64_t p = 0; p < p_.phases; ++p) {
      const int64_t count = tap_count(p_.at[p].tap, k_.x.up, k_.x.taps);
      for (int64_t j = 0; j < count; ++j) {
        const int64_t pixel = p_.at[p].index - p_.first + j;
        terms_[p].push_back(row + (pixel % p_.step * pixels_ + pixel / p_.step) * k_.unit());
        term_weights_[p].push_back(g[p_.at[p].tap + j * k_.x.up]);
      }
    }
  }
  Terms<C> terms(int64_t p) const {
    return {terms_[p].data(), term_weights_[p].data(), int64_t(terms_[p].size())};
  }

  // The pixels of row r of x that are used, in the type that is computed in.
  const C* row_inside(const T* x, int64_t r) {
    const T* const from = x + r * x_row_ + begin_ * k_.unit();
    if constexpr (kWiden) {
      C* const to = &kept_[r % most_rows_ * width_];
      if (held_[r % most_rows_] != r) widen_block(from, to, inside_);
      held_[r % most_rows_] = r;
      return to;
    } else {
      return from;
    }
  }
  // The same between zeros, and split.
  const C* row_split(const T* x, int64_t r) {
    C* const to = &kept_[r % most_rows_ * width_];
    if (held_[r % most_rows_] == r) return to;
    held_[r % most_rows_] = r;
    const T* const from = x + r * x_row_ + begin_ * k_.unit();
    C* const padded = p_.step > 1 ? scratch_.data() : to;
    if (p_.step == 1) std::fill(to, to + width_, C(0));
    if constexpr (kWiden) {
      widen_block(from, padded + left_, inside_);
    } else {
      std::copy(from, from + inside_, padded + left_);
    }
    if (p_.step > 1) split(padded, to, pixels_, p_.step, k_.unit());
    return to;
  }

  void emit(T* to, int64_t n, int64_t wanted) {
    if constexpr (kWiden) {
      C* const line = &phases_[p_.phases * tile_ * k_.unit()];
      compute(line, n, wanted);
      narrow_block(line, to, wanted);
    } else {
      compute(to, n, wanted);
    }
  }
  void compute(C* to, int64_t n, int64_t wanted) {
    const int64_t unit = k_.unit();
    const bool filled =
        std::none_of(terms_.begin(), terms_.end(), [](auto& t) { return t.empty(); });
    if (p_.phases == 1 && filled) return sum_rows(terms(0), to, wanted);
    if (p_.phases == 2 && unit == 1 && filled && terms_[0].size() == terms_[1].size() &&
        int64_t(terms_[0].size()) <= kTerms) {
      return sum_pairs(terms(0), terms(1), to, wanted);
    }
    for (int64_t p = 0; p < p_.phases; ++p) {
      C* const phase = &phases_[p * n * unit];
      if (terms_[p].empty()) {
        std::fill(phase, phase + n * unit, C(0));  // fewer taps than phases
      } else {
        sum_rows(terms(p), phase, n * unit);
      }
    }
    join(phases_.data(), to, n, wanted / unit, p_.phases, unit);
  }

  const UpfirdnLayout& k_;
  const Filter<C>& f_;
  const RowPlan& p_;
  const int64_t x_row_;
  int64_t tile_, width_, most_rows_, pixels_ = 0, begin_ = 0, left_ = 0, inside_ = 0;
  std::vector<C> scratch_, phases_, kept_, column_;  // scratch_: a row between zeros, then split
  std::vector<int64_t> held_;                        // which row of x is kept where
  std::vector<const C*> rows_;
  std::vector<std::vector<const C*>> terms_;  // by phase
  std::vector<std::vector<C>> term_weights_;
};

Tensor upfirdn2d_cpu(Tensor x, Tensor f, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                     int64_t pad_x, int64_t pad_y, int64_t out_x, int64_t out_y, bool flip,
                     double gain) {
  x = readable(x);
  const UpfirdnLayout k =
      upfirdn_layout(x, f, up_x, up_y, down_x, down_y, pad_x, pad_y, out_x, out_y);
  Tensor y = on_huge_pages(upfirdn_result(x, k));
  const Strides at = strides_of(x);
  const RowPlan plan = row_plan(k.x);
  dispatch_floating(x.scalar_type(), "upfirdn2d", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    const Filter<C> filter = filter_of<C>(f, flip, gain);
    const T* const from = data<T>(x);
    T* const to = mutable_data<T>(y);
    const int64_t row = k.x.out * k.unit();
    parallel_units(k.planes() * k.y.out, 4 * row, [&](int64_t first, int64_t last) {
      Rows<T> rows(k, filter, plan, at.row);
      for (int64_t i = first; i < last;) {
        const int64_t plane = i / k.y.out, o = i % k.y.out;
        const int64_t end = std::min(k.y.out, o + last - i);
        const int64_t start =
            k.channels_last ? plane * at.sample
                            : plane / k.channels * at.sample + plane % k.channels * at.channel;
        rows.run(from + start, to + plane * k.y.out * row, o, end);
        i += end - o;
      }
    });
  });
  return y;
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_IMPL(ganops, CPU, m) {
  using namespace ganops;
  m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d_cpu));
  m.impl("upfirdn2d.kernel", TORCH_BOX(&upfirdn2d_cpu));
}
