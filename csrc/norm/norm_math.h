// Second derivatives of normalisation, from a row's sums.
//
// A row is what shares one mean m and rstd r = (var + eps)^(-1/2): n numbers x with xhat = (x-m) r.
// RMS norm is the same with m = 0 and the mean square for var ("not centered").
//
//   order 0   y  = w xhat + b
//   order 1   dx = T(g),  g = w dy,  T(u) = r (u - mean u - xhat mean(u xhat));  T is symmetric
//             dw = sum dy xhat,  db = sum dy
//   order 2   from the cotangents v of dx, a of dw, c of db, with means over the row:
//             d_dy = w T(v) + a xhat + c
//             d_w  = sum dy T(v)
//             d_x  = T(a dy) - r^2 [mean(v xhat) (g - mean g) + mean(g xhat) (v - mean v)
//                    + xhat (mean(v g) - mean g mean v - 3 mean(g xhat) mean(v xhat))]
//
// Not centered, the plain means of g, v and a dy do not occur. What is left per number is linear in
// dy, v and xhat, so a row's whole second order is eight coefficients.
#pragma once

#include "../common/macros.h"

namespace ganops {

template <class T>
struct NormMeans {  // over a row
  T g, v, gx, vx, vg;
  T ad, adx;  // of a dy and a dy xhat
};

template <class T>
struct NormRow {
  T r;
  T tv, tx, t1;      // T(v) = tv v + tx xhat + t1
  T kg, kv, kx, k1;  // d_x = kg g + kv v + r a dy + kx xhat + k1
};

template <class T>
GANOPS_HD GANOPS_INLINE NormRow<T> norm_row(NormMeans<T> s, T r, bool centered) {
  if (!centered) s.g = s.v = s.ad = T(0);
  const T rr = r * r;
  return {r,
          r,
          -r * s.vx,
          -r * s.v,
          -rr * s.vx,
          -rr * s.gx,
          -rr * (s.vg - s.g * s.v - T(3) * s.gx * s.vx) - r * s.adx,
          rr * (s.vx * s.g + s.gx * s.v) - r * s.ad};
}

// A cell: numbers of one row that share one w, a and c as well. Its sums need none of them.
constexpr int kNormSums = 5;
template <class T>
struct NormSums {
  T d, v, dx, vx, vd;  // over a cell: dy, v, dy xhat, v xhat, v dy
};

template <class T>
GANOPS_HD GANOPS_INLINE void norm_add(NormMeans<T>& row, const NormSums<T>& s, T w, T a) {
  row.g += w * s.d;
  row.v += s.v;
  row.gx += w * s.dx;
  row.vx += s.vx;
  row.vg += w * s.vd;
  row.ad += a * s.d;
  row.adx += a * s.dx;
}

template <class T>
GANOPS_HD GANOPS_INLINE NormMeans<T> norm_means(const NormMeans<T>& sums, T n) {
  const T k = T(1) / n;
  return {sums.g * k, sums.v * k, sums.gx * k, sums.vx * k, sums.vg * k, sums.ad * k, sums.adx * k};
}

constexpr int kNormCell = 7;
template <class T>
struct NormCell {
  T ev, ex, e1;      // d_dy = ev v + ex xhat + e1
  T fd, fv, fx, f1;  // d_x = fd dy + fv v + fx xhat + f1
};

template <class T>
GANOPS_HD GANOPS_INLINE NormCell<T> norm_cell(const NormRow<T>& k, T w, T a, T c) {
  return {w * k.tv, w * k.tx + a, w * k.t1 + c, w * k.kg + a * k.r, k.kv, k.kx, k.k1};
}

// d_w of a cell: the sum of dy T(v).
template <class T>
GANOPS_HD GANOPS_INLINE T norm_weight_grad(const NormRow<T>& k, const NormSums<T>& s) {
  return k.tv * s.vd + k.tx * s.dx + k.t1 * s.d;
}

}  // namespace ganops
