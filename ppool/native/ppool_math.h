// The arithmetic of one pooling window (Wei et al., CVPR 2019, Eq. 1, 3, 4), for host and device.
//
// Eq. 1 is evaluated with ratios to the window's maximum m, which cannot overflow at any alpha:
//   r_i = x_i / m,  w_i = r_i^alpha,  y = m * sum(w_i r_i) / sum(w_i)
// Callers visit the taps of a window with `larger`, then `Tap` and sums, then `pooled` or
// `Gradient`. A tap outside the image holds kOutside and counts for nothing.
#ifndef PPOOL_MATH_H_
#define PPOOL_MATH_H_

#include <cmath>
#include <cstring>
#include <limits>

#include "ppool_params.h"

namespace ppool {

// Pooled values are never negative, so a negative one can mark a tap outside the image.
constexpr float kOutside = -1.0f;

// Backward only: below this share of the maximum, ln(r) and r^(alpha-1) are not followed.
constexpr double kSmallestRatio = 1e-3;

// From here on every weight but the maximum's is 0 in float; keeps alpha * log2(1) from inf * 0.
constexpr double kLargestAlpha = 1e30;

// Multiply-add as two roundings, for processors without the fused instruction.
struct TwoRoundings {
  static PPOOL_HOST_DEVICE float mul_add(float a, float b, float c) { return a * b + c; }
};

// Multiply-add as one rounding. Written out, never left to the compiler's contraction, so that
// vector bodies and scalar tails agree to the last bit.
struct OneRounding {
  static PPOOL_HOST_DEVICE float mul_add(float a, float b, float c) {
#if defined(__GNUC__)
    return __builtin_fmaf(a, b, c);
#else
    return std::fma(a, b, c);
#endif
  }
};

template <class To, class From>
PPOOL_HOST_DEVICE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// log2(1+u) and a constant = u * polynomial for 0 <= u < 1, highest power first; differences have
// an absolute error of 3.9e-6 in float. An absolute error e of the logarithms changes y by less
// than e/2 in nine taps, 1.3 e in a thousand, whatever alpha is: where alpha * e is large, r^alpha
// is not.
struct Log2 {
  static constexpr int kCount = 6;
  static constexpr float kFactors[kCount] = {-0.025696635246276855f, 0.12102412432432175f,
                                             -0.27657151222229004f, 0.4565405547618866f,
                                             -0.7177960276603699f, 1.4424958229064941f};
};

// 2^f = 1 + f * polynomial for 0 <= f < 1, highest power first; relative error 3e-6 in float, and
// no more in y.
struct Exp2 {
  static constexpr int kCount = 4;
  static constexpr float kFactors[kCount] = {0.013426181860268116f, 0.05224337801337242f,
                                             0.2412797510623932f, 0.693044900894165f};
};

// log2 of a normal positive float; relative error 1e-7, exactly 0 at 1. Branch-free: other inputs
// give some finite value. Degree-8 minimax polynomial of log2(1+u)/u on [sqrt(1/2), sqrt(2)].
template <class Fma>
PPOOL_HOST_DEVICE float fast_log2(float r) {
  constexpr uint32_t kSqrtHalf = 0x3f3504f3u;
  const uint32_t bits = bit_cast<uint32_t>(r) - kSqrtHalf;
  const float exponent = static_cast<float>(static_cast<int32_t>(bits) >> 23);
  const float u = bit_cast<float>((bits & 0x007fffffu) + kSqrtHalf) - 1.0f;
  float p = 0.125835374f;
  p = Fma::mul_add(p, u, -0.207268938f);
  p = Fma::mul_add(p, u, 0.21571584f);
  p = Fma::mul_add(p, u, -0.238944948f);
  p = Fma::mul_add(p, u, 0.287916243f);
  p = Fma::mul_add(p, u, -0.360703677f);
  p = Fma::mul_add(p, u, 0.480910629f);
  p = Fma::mul_add(p, u, -0.721347332f);
  p = Fma::mul_add(p, u, 1.44269502f);
  return Fma::mul_add(p, u, exponent);
}

// 2^z for z below 127, 0 for z below -125; relative error 2e-7, exactly 1 at 0. Degree-5 minimax
// polynomial on [-1/2, 1/2].
template <class Fma>
PPOOL_HOST_DEVICE float fast_exp2(float z) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = z + kRounder;
  const float g = z - (shifted - kRounder);
  float q = 0.00132647238f;
  q = Fma::mul_add(q, g, 0.00967151299f);
  q = Fma::mul_add(q, g, 0.0555073358f);
  q = Fma::mul_add(q, g, 0.240222424f);
  q = Fma::mul_add(q, g, 0.693147004f);
  q = Fma::mul_add(q, g, 1.0f);
  const uint32_t bits = bit_cast<uint32_t>(q) + (bit_cast<uint32_t>(shifted) << 23);
  return z < -125.0f ? 0.0f : bit_cast<float>(bits);
}

template <class Fma>
PPOOL_HOST_DEVICE float exp2_of(float z) { return fast_exp2<Fma>(z); }
template <class Fma>
PPOOL_HOST_DEVICE double exp2_of(double z) { return std::exp2(z); }

// log2(v / m) for 0 < v <= m, also where the quotient is below float's normal range: small
// numerator and large denominator are then first brought 152 binary orders together.
template <class Fma>
PPOOL_HOST_DEVICE float log2_ratio(float v, float m) {
  const bool tiny = v < m * 0x1p-100f;
  const float ratio = (tiny ? v * 0x1p92f : v) / (tiny ? m * 0x1p-60f : m);
  return fast_log2<Fma>(ratio) - (tiny ? 152.0f : 0.0f);
}
template <class Fma>
PPOOL_HOST_DEVICE double log2_ratio(double v, double m) { return std::log2(v / m); }

// The larger of a running maximum and one more value; NaN once either is.
template <class Real>
PPOOL_HOST_DEVICE Real larger(Real m, Real v) {
  const Real known = m >= v ? m : v;  // v where it is NaN
  return m == m ? known : m;
}

// One element of a window: its ratio to the maximum, the log2 of that, and its weight. Where the
// maximum is 0, inf or NaN the values are arbitrary and `pooled` and `Gradient` discard them.
template <class Real>
struct Tap {
  Real ratio, log2_ratio, weight;
};

template <class Fma, class Real>
PPOOL_HOST_DEVICE Tap<Real> tap_of(Real v, Real m, Real alpha) {
  alpha = alpha > Real(kLargestAlpha) ? Real(kLargestAlpha) : alpha;
  const Real l = log2_ratio<Fma>(v, m);
  const Real power = exp2_of<Fma>(alpha * l);
  const Real at_zero = std::fabs(v) + alpha == 0 ? Real(1) : Real(0);  // 0^0 = 1
  // A tap outside the image over a denormal maximum would be an infinity times weight 0.
  return {v > 0 ? v / m : Real(0), l, v > 0 ? power : at_zero};
}

// y of Eq. 1 from the maximum and the sums of w and w * r.
template <class Real>
PPOOL_HOST_DEVICE Real pooled(Real m, Real alpha, Real sum_w, Real sum_wr) {
  Real y = m * (sum_wr / sum_w);
  y = m > 0 ? y : m;  // all zeros or NaN
  y = m > std::numeric_limits<Real>::max() ? m : y;
  return alpha == alpha ? y : alpha;
}

// dy/dx_i of Eq. 3 and the terms of dy/dalpha of Eq. 4 for one window; as limits, the average at
// alpha = 0 or an all-zero window and an equal share for each infinity.
template <class Real>
struct Gradient {
  static constexpr Real kFlooredLog2 = Real(-9.965784284662087);  // log2(kSmallestRatio)

  Real m, alpha, sum_w, pooled_ratio, floored_slope;

  template <class Fma>
  static PPOOL_HOST_DEVICE Gradient of(Real m, Real alpha, Real sum_w, Real sum_wr) {
    const Real bounded = alpha > Real(kLargestAlpha) ? Real(kLargestAlpha) : alpha;
    const Real slope = exp2_of<Fma>((bounded - 1) * kFlooredLog2);
    return {m, bounded, sum_w, sum_wr / sum_w, slope};
  }

  // `inside` and `infinite` are the numbers of taps in the image and of infinite ones.
  PPOOL_HOST_DEVICE Real dx(Real v, Tap<Real> tap, Real inside, Real infinite) const {
    const Real r = tap.ratio, t = pooled_ratio, w = tap.weight;
    const Real followed = w * (1 + alpha * ((r - t) / r));
    const Real held = w + alpha * (w - t * floored_slope);
    const Real at_zero = alpha == 1 ? -t : Real(0);
    Real slope = r >= Real(kSmallestRatio) ? followed : held;
    slope = (v > 0 ? slope : at_zero) / sum_w;
    slope = alpha == 0 ? 1 / inside : slope;
    slope = m == 0 ? 1 / inside : slope;
    const Real share = v > std::numeric_limits<Real>::max() ? 1 / infinite : Real(0);
    slope = m > std::numeric_limits<Real>::max() ? share : slope;
    return unless_nan(slope);
  }

  // One tap's term of dy/dalpha; `dalpha` takes their sum.
  PPOOL_HOST_DEVICE Real dalpha_term(Real v, Tap<Real> tap) const {
    const Real l = tap.ratio >= Real(kSmallestRatio) ? tap.log2_ratio : kFlooredLog2;
    return v > 0 ? tap.weight * (tap.ratio - pooled_ratio) * l : Real(0);
  }

  PPOOL_HOST_DEVICE Real dalpha(Real sum_of_terms) const {
    const Real ln2 = Real(0.6931471805599453);
    Real slope = m * (ln2 * sum_of_terms / sum_w);
    slope = m > 0 ? slope : Real(0);
    slope = m > std::numeric_limits<Real>::max() ? Real(0) : slope;
    return unless_nan(slope);
  }

  // NaN if an element of the window or alpha is.
  PPOOL_HOST_DEVICE Real unless_nan(Real slope) const {
    const Real mark = m + alpha;
    return mark == mark ? slope : mark;
  }
};

}  // namespace ppool

#endif  // PPOOL_MATH_H_
