// The arithmetic of vectors of windows, and of the odd window alone in double.
#ifndef PPOOL_CPU_WINDOW_H_
#define PPOOL_CPU_WINDOW_H_

#include <limits>

#include "powers.h"
#include "rows.h"

namespace ppool::PPOOL_ISA {

// Where the vectors are right: windows with a maximum from kTiny to kHuge, so that sums of products
// neither overflow nor lose digits, and an exponent from kFlattest. All others, among them those
// with infinities, NaN or alpha = 0, are left to the double arithmetic.
template <class Real>
struct Range {
  static constexpr Real kTiny = sizeof(Real) == 4 ? Real(0x1p-100) : Real(0x1p-800);
  static constexpr Real kHuge = 1 / kTiny;
  static constexpr Real kFlattest = std::numeric_limits<Real>::min();
  // A larger exponent is taken for this one, which changes y by less than 1e-6.
  static constexpr Real kLargest = Real(1 << 22);
};

// Taps are summed in blocks of so many: a thousand in one row would round off more than 1e-5 of y.
constexpr int kBlock = 64;

// The lanes, a bit each, outside of that range, which all-zero windows are as well.
template <class V>
unsigned suspects(typename V::F largest, typename V::F alpha) {
  using R = Range<typename V::Real>;
  return V::not_at_least(largest, V::set(R::kTiny)) | V::not_at_least(V::set(R::kHuge), largest) |
         V::not_at_least(alpha, V::set(R::kFlattest));
}

// The suspects that the vector arithmetic is wrong for: all but all-zero windows.
template <class V>
unsigned odd_lanes(unsigned suspects, typename V::F largest, typename V::F alpha) {
  using R = Range<typename V::Real>;
  const unsigned zeros = V::at_least(V::set(0), largest);
  return suspects & ~(zeros & V::at_least(alpha, V::set(R::kFlattest)));
}

// Eq. 1 for a vector of windows: raw taps in, which are left in no particular order. `odd` receives
// the lanes whose result is wrong.
template <class V, int kTaps>
PPOOL_HOST_DEVICE typename V::F pool_windows(typename V::F* values, int64_t any_count,
                                             typename V::F alpha, unsigned& odd) {
  using F = typename V::F;
  const int64_t count = kTaps > 0 ? kTaps : any_count;
  const F zero = V::set(0);
  // Each comparison keeps the larger value, so that all but the largest remain in `values`.
  F largest = V::max(zero, values[0]);
#pragma GCC unroll 9
  for (int64_t k = 1; k < count; ++k) {
    values[k] = V::max(zero, values[k]);
    V::sort(largest, values[k]);
  }
  const unsigned suspect = suspects<V>(largest, alpha);
  const Power<V> power(alpha, largest);
  F sum_w = V::set(1), sum_wd = zero;
  constexpr int kGroup = kTaps == 4 ? 3 : 4;
  int64_t k = 1;
  if constexpr (kTaps == 0) {
    while (k + kBlock <= count) {
      F block_w = zero, block_wd = zero;
      for (const int64_t stop = k + kBlock; k < stop; k += kGroup) {
        weigh<V, kGroup>(values + k, power, block_w, block_wd);
      }
      sum_w = sum_w + block_w;
      sum_wd = sum_wd + block_wd;
    }
  }
#pragma GCC unroll 2
  for (; k + kGroup <= count; k += kGroup) weigh<V, kGroup>(values + k, power, sum_w, sum_wd);
  for (; k < count; ++k) weigh<V, 1>(values + k, power, sum_w, sum_wd);
  // Taken from the largest, y is exactly that where all taps are equal.
  const F y = largest - sum_wd / sum_w;
  odd = 0;
  if (suspect == 0) return y;
  odd = odd_lanes<V>(suspect, largest, alpha);
  return V::if_less(zero, largest, y, zero);
}

// The lanes, a bit each, of a vector of which only `count` elements exist.
template <class V>
unsigned lanes_of(int64_t count) {
  return (1u << (std::min<int64_t>(count, V::kLanes) - 1) << 1) - 1;
}

// Memory for one vector of each tap of its windows.
template <class V>
struct TapVectors {
  typename V::F* values;
  typename V::F* weights;
  typename V::F* ratios;
  typename V::F* logs;

  explicit TapVectors(int64_t taps)
      : values(take<typename V::F>(taps)),
        weights(take<typename V::F>(taps)),
        ratios(take<typename V::F>(taps)),
        logs(take<typename V::F>(taps)) {}
};

// Finds the logarithms of kCount taps' ratios to the largest, and their weights.
template <class V, int kCount>
PPOOL_HOST_DEVICE void weights_of(const TapVectors<V>& taps, int64_t first, const Power<V>& power) {
  typename V::F logs[kCount], powers[kCount];
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) logs[n] = taps.values[first + n];
  log2_each<V, kCount>(logs, power.largest);
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) {
    taps.logs[first + n] = logs[n] - power.log_largest;
    powers[n] = power.alpha * taps.logs[first + n];
  }
  exp2_each<V, kCount>(powers);
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) {
    taps.weights[first + n] = V::unless_zero(taps.values[first + n], powers[n]);
  }
}

// Eq. 3 and 4 for a vector of windows: raw taps in, dy/dx of each left in `weights`; returns
// dy/dalpha. `average` is dy/dx where all taps are zero. `odd` receives the lanes that are wrong.
template <class V, int kTaps>
PPOOL_HOST_DEVICE typename V::F differentiate_windows(const TapVectors<V>& taps,
                                                      int64_t any_count, typename V::F alpha,
                                                      typename V::F average, unsigned& odd) {
  using Real = typename V::Real;
  using F = typename V::F;
  const int64_t count = kTaps > 0 ? kTaps : any_count;
  const F zero = V::set(0), one = V::set(1);
  const F least_ratio = V::set(Real(kSmallestRatio));
  const F least_log = V::set(Gradient<Real>::kFlooredLog2);
  F largest = zero;
#pragma GCC unroll 9
  for (int64_t k = 0; k < count; ++k) {
    taps.values[k] = V::max(zero, taps.values[k]);
    largest = V::max(largest, taps.values[k]);
  }
  const F inverse = V::inverse(largest);
  F sum_w = zero, sum_wr = zero;
  for (int64_t k = 0; k < count; ++k) {
    taps.ratios[k] = V::ratio(taps.values[k], largest, inverse);
  }
  const Power<V> power(alpha, largest);
  constexpr int kGroup = kTaps == 9 ? 3 : 4;
  int64_t done = 0;
#pragma GCC unroll 3
  for (; done + kGroup <= count; done += kGroup) weights_of<V, kGroup>(taps, done, power);
  for (; done < count; ++done) weights_of<V, 1>(taps, done, power);
#pragma GCC unroll 9
  for (int64_t k = 0; k < count; ++k) {
    sum_w = sum_w + taps.weights[k];
    sum_wr = V::mul_add(taps.weights[k], taps.ratios[k], sum_wr);
  }
  const F per_weight = one / sum_w, pooled_ratio = sum_wr * per_weight;
  F floored = V::min((alpha - one) * least_log, V::set(126));
  exp2_each<V, 1>(&floored);
  const F held_share = alpha * pooled_ratio * floored;
  const F at_least_one = V::if_less(one, alpha, zero, zero - pooled_ratio);
  const F at_zero = V::if_less(alpha, one, zero, at_least_one);
  F terms = zero;
#pragma GCC unroll 9
  for (int64_t k = 0; k < count; ++k) {
    const F weight = taps.weights[k], ratio = taps.ratios[k], difference = ratio - pooled_ratio;
    const F per_ratio = one / V::max(least_ratio, ratio);
    const F followed = weight * V::mul_add(alpha, difference * per_ratio, one);
    const F held = V::mul_add(alpha, weight, weight) - held_share;
    F slope = V::if_less(ratio, least_ratio, held, followed);
    slope = V::if_less(zero, taps.values[k], slope, at_zero) * per_weight;
    taps.weights[k] = V::if_less(zero, largest, slope, average);
    terms = V::mul_add(weight * difference, V::max(least_log, taps.logs[k]), terms);
  }
  odd = odd_lanes<V>(suspects<V>(largest, alpha), largest, alpha);
  const F slope = largest * (V::set(Real(0.6931471805599453)) * terms * per_weight);
  return V::if_less(zero, largest, slope, zero);
}

// One window in double: its taps, kOutside where they are outside the image.
template <class Real>
class LoneWindow {
 public:
  LoneWindow(const Grid& grid)
      : grid_(grid), values_(take<double>(grid.taps)) {}

  // Reads element `lane` of each tap, which belongs to the window of pooled (row, column).
  void read(const Real* const* taps, int64_t lane, int64_t row, int64_t column) {
    largest_ = 0;
    for (int64_t k = 0; k < grid_.taps; ++k) {
      const double value = static_cast<double>(taps[k][lane]);
      values_[k] = inside(row, column, k) ? (value < 0 ? 0 : value) : double(kOutside);
      largest_ = larger(largest_, values_[k]);
    }
  }

  bool inside(int64_t row, int64_t column, int64_t tap) const {
    return grid_.has_row(grid_.image_row(row, tap / grid_.pool.kernel[1])) &&
           grid_.has_column(grid_.image_column(column, tap % grid_.pool.kernel[1]));
  }

  Real pool(Real exponent) const {
    const double alpha = static_cast<double>(exponent);
    double sum_w = 0, sum_wr = 0;
    for (int64_t k = 0; k < grid_.taps; ++k) {
      const Tap<double> tap = tap_of<TwoRoundings>(values_[k], largest_, alpha);
      sum_w += tap.weight;
      sum_wr += tap.weight * tap.ratio;
    }
    return static_cast<Real>(pooled(largest_, alpha, sum_w, sum_wr));
  }

  // Adds dy/dx of each tap inside the image, times `grad`, to element `lane` of its `gradients`;
  // returns dy/dalpha, times `grad`.
  Real differentiate(Real exponent, Real grad, Real* const* gradients, int64_t lane) const {
    const double alpha = static_cast<double>(exponent);
    double sum_w = 0, sum_wr = 0, inside = 0, infinite = 0, terms = 0;
    for (int64_t k = 0; k < grid_.taps; ++k) {
      const Tap<double> tap = tap_of<TwoRoundings>(values_[k], largest_, alpha);
      sum_w += tap.weight;
      sum_wr += tap.weight * tap.ratio;
      inside += values_[k] == double(kOutside) ? 0 : 1;
      infinite += values_[k] > std::numeric_limits<double>::max() ? 1 : 0;
    }
    const auto gradient = Gradient<double>::of<TwoRoundings>(largest_, alpha, sum_w, sum_wr);
    for (int64_t k = 0; k < grid_.taps; ++k) {
      if (values_[k] == double(kOutside)) continue;
      const Tap<double> tap = tap_of<TwoRoundings>(values_[k], largest_, alpha);
      const double slope = gradient.dx(values_[k], tap, inside, infinite);
      gradients[k][lane] += static_cast<Real>(grad * slope);
      terms += gradient.dalpha_term(values_[k], tap);
    }
    return static_cast<Real>(grad * gradient.dalpha(terms));
  }

 private:
  const Grid& grid_;
  double* values_;
  double largest_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_WINDOW_H_
