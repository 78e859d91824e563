// One pooling window on a GPU: Eq. 1, 3 and 4 with the device's fast log2, exp2 and reciprocal.
//
// The formula is that of ppool_math.h, ratios to the maximum. Tensors of 16-bit elements arrive so
// fast that polynomials and exact divisions, not memory, would set the pace. The instructions'
// errors hardly reach y: a relative error in a weight counts only times its ratio's distance from
// the mean ratio, which is about 1 / alpha where weights matter.
//
// A tap outside the image holds 0, whose weight is 0 as well; only where alpha is 0 must it be told
// from an element that is 0, and there the sum of weights is the number of taps inside.
#ifndef PPOOL_CUDA_WINDOW_H_
#define PPOOL_CUDA_WINDOW_H_

#include <cmath>
#include <limits>

#include "../ppool_math.h"
#include "grid.h"

namespace ppool::cuda {

#if defined(__CUDA_ARCH__)
// Of a normal number: a denormal counts as 0.
PPOOL_HOST_DEVICE float fast_log2(float v) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
}
PPOOL_HOST_DEVICE float fast_exp2(float z) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(z));
  return result;
}
PPOOL_HOST_DEVICE float reciprocal(float v) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
}
#else
// The host adds the worst errors that the PTX manual grants those instructions, with either sign.
PPOOL_HOST_DEVICE float off(float value, float error) {
  return bit_cast<uint32_t>(value) % 2 == 0 ? value + error : value - error;
}
PPOOL_HOST_DEVICE float fast_log2(float v) {
  const float exact = std::log2(v);
  return v == 1.0f ? 0.0f : off(exact, 0x1p-22f * std::fmax(1.0f, std::fabs(exact)));
}
PPOOL_HOST_DEVICE float fast_exp2(float z) {
  const float exact = std::exp2(z);
  return z == 0.0f ? 1.0f : off(exact, 0x1p-22f * exact);
}
PPOOL_HOST_DEVICE float reciprocal(float v) { return off(1.0f / v, 0x1p-23f / v); }
#endif

PPOOL_HOST_DEVICE float smaller_of(float a, float b) { return a < b ? a : b; }
constexpr float kLargestFloat = std::numeric_limits<float>::max();
PPOOL_HOST_DEVICE bool is_infinite(float v) { return v > kLargestFloat; }

// Ratios to a window's maximum. `shift` brings a maximum near the ends of float's range to where
// its reciprocal is a normal number.
struct Ratios {
  float largest, shift, inverse;

  static PPOOL_HOST_DEVICE Ratios to(float m) {
    const float shift = m < 0x1p-64f ? 0x1p64f : (m > 0x1p64f ? 0x1p-64f : 1.0f);
    return {m, shift, reciprocal(m * shift)};
  }

  // At most 1, and exactly 1 for the maximum, so that y never exceeds it.
  PPOOL_HOST_DEVICE float of(float v) const {
    return v == largest ? 1.0f : smaller_of(v * shift * inverse, 1.0f);
  }

  // log2(v / m) for v > 0. The quotient may be below float's range; 92 binary orders more, and
  // without the shift, it is in it. One logarithm either way: a second would be worked out always.
  PPOOL_HOST_DEVICE float log2_of(float v, float ratio) const {
    const bool tiny = ratio < 0x1p-100f;
    const float orders = tiny ? (shift < 1 ? 156.0f : 92.0f) : 0.0f;
    return fast_log2(tiny ? v * 0x1p92f * inverse : ratio) - orders;
  }
};

// `values` answers count() and operator[] with elements of a window, none negative.
template <int taps>
struct Values {
  float at[taps];
  PPOOL_HOST_DEVICE int count() const { return taps; }
  PPOOL_HOST_DEVICE float operator[](int tap) const { return at[tap]; }
};

template <class Taps>
PPOOL_HOST_DEVICE float largest_of(const Taps& values) {
  float m = 0;
  PPOOL_UNROLL
  for (int tap = 0; tap < values.count(); ++tap) m = larger(m, values[tap]);
  return m;
}

// Taps are summed in blocks of so many: a thousand in one row would round off more than 1e-5 of y.
constexpr int kBlock = 64;

// alpha as the kernels use it: beyond kLargestAlpha nothing changes any more.
PPOOL_HOST_DEVICE float bounded(float alpha) {
  return alpha > static_cast<float>(kLargestAlpha) ? static_cast<float>(kLargestAlpha) : alpha;
}

// y of Eq. 1 from its sums; `m` may be 0, infinite or NaN.
PPOOL_HOST_DEVICE float pooled_from(float m, float alpha, float sum_w, float sum_wr) {
  float y = m * smaller_of(sum_wr * reciprocal(sum_w), 1.0f);
  y = m > 0 && !is_infinite(m) ? y : m;
  return alpha == alpha ? y : alpha;
}

// y of Eq. 1; `inside` is the number of taps in the image, asked for where alpha is 0.
template <class Taps, class Inside>
PPOOL_HOST_DEVICE float pool(const Taps& values, float alpha, const Inside& inside) {
  const Ratios ratios = Ratios::to(largest_of(values));
  const float power = bounded(alpha);
  float sum_w = 0, sum_wr = 0;
  PPOOL_UNROLL
  for (int first = 0; first < values.count(); first += kBlock) {
    const int stop = first + kBlock < values.count() ? first + kBlock : values.count();
    float block_w = 0, block_wr = 0;
    PPOOL_UNROLL
    for (int tap = first; tap < stop; ++tap) {
      const float v = values[tap], r = ratios.of(v);
      const float w = v > 0 ? fast_exp2(power * ratios.log2_of(v, r)) : 0.0f;
      block_w += w;
      block_wr += w * r;
    }
    sum_w += block_w;
    sum_wr += block_wr;
  }
  if (alpha == 0) sum_w = static_cast<float>(inside());
  return pooled_from(ratios.largest, alpha, sum_w, sum_wr);
}

// The same for four taps. Ordered in pairs, the maximum needs no logarithm and no power.
template <class Inside>
PPOOL_HOST_DEVICE float pool(const Values<4>& values, float alpha, const Inside& inside) {
  const float a = values[0], b = values[1], c = values[2], d = values[3];
  const float high = a > b ? a : b, low = a > b ? b : a;
  const float high2 = c > d ? c : d, low2 = c > d ? d : c;
  const float rest[3] = {smaller_of(high, high2), low, low2};
  const Ratios ratios = Ratios::to(high > high2 ? high : high2);
  const float power = bounded(alpha);
  float sum_w = 1, sum_wr = 1;
  PPOOL_UNROLL
  for (int tap = 0; tap < 3; ++tap) {
    const float v = rest[tap], r = ratios.of(v);
    const float w = v > 0 ? fast_exp2(power * ratios.log2_of(v, r)) : 0.0f;
    sum_w += w;
    sum_wr += w * r;
  }
  if (alpha == 0) sum_w = static_cast<float>(inside());
  const float y = pooled_from(ratios.largest, alpha, sum_w, sum_wr);
  const float mark = (a + b) + (c + d);  // the comparisons above lose a NaN
  return mark == mark ? y : mark;
}

// Eq. 3 and 4 for one window, with the limits that ppool_math.h gives for Gradient.
struct Slopes {
  static constexpr float kFlooredLog2 = -9.965784284662087f;  // log2(kSmallestRatio)

  Ratios ratios;
  float alpha, inverse_sum, pooled_ratio, floored_slope;
  // What each of several equal elements gets: all at alpha 0 or maximum 0, else the infinite.
  float share;

  template <class Taps>
  static PPOOL_HOST_DEVICE Slopes of(const Taps& values, float alpha, float inside) {
    Slopes slopes;
    slopes.ratios = Ratios::to(largest_of(values));
    slopes.alpha = bounded(alpha);
    float sum_w = 0, sum_wr = 0, infinite = 0;
    PPOOL_UNROLL
    for (int tap = 0; tap < values.count(); ++tap) {
      const float v = values[tap], r = slopes.ratios.of(v);
      const float w = slopes.weight(v, r);
      sum_w += w;
      sum_wr += w * r;
      infinite += is_infinite(v) ? 1.0f : 0.0f;
    }
    if (alpha == 0) sum_w = inside;
    slopes.inverse_sum = reciprocal(sum_w);
    slopes.pooled_ratio = smaller_of(sum_wr * slopes.inverse_sum, 1.0f);
    slopes.floored_slope = fast_exp2((slopes.alpha - 1) * kFlooredLog2);
    slopes.share = 1.0f / (is_infinite(slopes.ratios.largest) ? infinite : inside);
    return slopes;
  }

  PPOOL_HOST_DEVICE float weight(float v, float r) const {
    return v > 0 ? fast_exp2(alpha * ratios.log2_of(v, r)) : 0.0f;
  }

  // dy/dx_i of an element inside the image.
  PPOOL_HOST_DEVICE float dx(float v) const {
    const float m = ratios.largest, t = pooled_ratio, r = ratios.of(v), w = weight(v, r);
    const float followed = w * (1 + alpha * ((r - t) * reciprocal(r)));
    const float held = w + alpha * (w - t * floored_slope);
    const float at_zero = alpha == 1 ? -t : 0.0f;
    float slope = r >= static_cast<float>(kSmallestRatio) ? followed : held;
    slope = (v > 0 ? slope : at_zero) * inverse_sum;
    slope = alpha == 0 || m == 0 ? share : slope;
    slope = is_infinite(m) ? (is_infinite(v) ? share : 0.0f) : slope;
    return unless_nan(slope);
  }

  template <class Taps>
  PPOOL_HOST_DEVICE float dalpha(const Taps& values) const {
    float sum = 0;
    PPOOL_UNROLL
    for (int tap = 0; tap < values.count(); ++tap) {
      const float v = values[tap], r = ratios.of(v);
      const bool followed = r >= static_cast<float>(kSmallestRatio);
      const float l = followed ? fast_log2(r) : kFlooredLog2;
      sum += v > 0 ? weight(v, r) * (r - pooled_ratio) * l : 0.0f;
    }
    const float m = ratios.largest, ln2 = 0.6931471805599453f;
    return unless_nan(m > 0 && !is_infinite(m) ? m * (ln2 * sum * inverse_sum) : 0.0f);
  }

  // NaN if an element of the window or alpha is.
  PPOOL_HOST_DEVICE float unless_nan(float slope) const {
    const float mark = ratios.largest + alpha;
    return mark == mark ? slope : mark;
  }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_WINDOW_H_
