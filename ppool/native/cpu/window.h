// The arithmetic of vectors of windows, and of the odd window alone in double.
#ifndef PPOOL_CPU_WINDOW_H_
#define PPOOL_CPU_WINDOW_H_

#include <limits>

#include "rows.h"

namespace ppool::PPOOL_ISA {

// What the vectors compute is right for maxima with a normal inverse and for exponents up to
// kLargest. Below kSmall, weights may count whose ratio to the maximum underflows. Lanes outside
// of that, and those with infinities, NaN or alpha = 0, are left to the double arithmetic.
template <class Real>
struct Range {
  static constexpr Real kTiny = std::numeric_limits<Real>::min();
  static constexpr Real kHuge = 1 / (4 * std::numeric_limits<Real>::min());
  static constexpr Real kSmall = Real(0.25);
  static constexpr Real kLargest = Real(1 << 24);  // r^alpha of the float before 1 is 1/e
  static constexpr Real kUnderflow = sizeof(Real) == 4 ? Real(0x1p-100) : Real(0x1p-800);
};

// The lanes, a bit each, that may need a second look: also all-zero windows, which do not.
template <class V>
unsigned suspects(typename V::F largest, typename V::F alpha) {
  using R = Range<typename V::Real>;
  return V::not_at_least(largest, V::set(R::kTiny)) | V::not_at_least(V::set(R::kHuge), largest) |
         V::not_at_least(alpha, V::set(R::kSmall));
}

// The suspects that the vector arithmetic is wrong for; `values` are the taps, negatives as 0.
template <class V>
unsigned odd_lanes(const typename V::F* values, int64_t count, typename V::F largest,
                   typename V::F alpha) {
  using R = Range<typename V::Real>;
  const typename V::F zero = V::set(0);
  const unsigned some = V::not_at_least(zero, largest);
  const unsigned weighed = V::at_least(alpha, zero) & V::not_at_least(zero, alpha);
  unsigned odd = V::not_at_least(V::set(R::kHuge), largest) | ~weighed;
  odd |= some & V::not_at_least(largest, V::set(R::kTiny));
  const unsigned flat = V::not_at_least(alpha, V::set(R::kSmall));
  if ((flat & ~odd) != 0) {
    const typename V::F least = largest * V::set(R::kUnderflow);
    for (int64_t i = 0; i < count; ++i) {
      odd |= flat & V::not_at_least(values[i], least) & V::not_at_least(zero, values[i]);
    }
  }
  return odd & ((1u << V::kLanes) - 1);
}

// One window in double: its taps, kOutside where they are outside the image.
template <class Real>
class LoneWindow {
 public:
  LoneWindow(const Grid& grid, Pieces& pieces)
      : grid_(grid), values_(pieces.take<double>(grid.taps)) {}

  void read(const Real* const* taps, int64_t row, int64_t column) {
    largest_ = 0;
    for (int64_t k = 0; k < grid_.taps; ++k) {
      const double value = static_cast<double>(taps[k][column]);
      values_[k] = inside(row, column, k) ? (value < 0 ? 0 : value) : double(kOutside);
      largest_ = larger(largest_, values_[k]);
    }
  }

  bool inside(int64_t row, int64_t column, int64_t tap) const {
    return grid_.has_row(grid_.image_row(row, tap / grid_.pool.kernel[1])) &&
           grid_.has_column(grid_.image_column(column, tap % grid_.pool.kernel[1]));
  }

  double pool(double alpha) const {
    double sum_w = 0, sum_wr = 0;
    for (int64_t k = 0; k < grid_.taps; ++k) {
      const Tap<double> tap = tap_of<TwoRoundings>(values_[k], largest_, alpha);
      sum_w += tap.weight;
      sum_wr += tap.weight * tap.ratio;
    }
    return pooled(largest_, alpha, sum_w, sum_wr);
  }

  // Adds dy/dx of each tap inside the image, times `grad`, by add(tap, slope); returns dy/dalpha.
  template <class Add>
  double differentiate(double alpha, double grad, const Add& add) const {
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
      add(k, grad * gradient.dx(values_[k], tap, inside, infinite));
      terms += gradient.dalpha_term(values_[k], tap);
    }
    return grad * gradient.dalpha(terms);
  }

 private:
  const Grid& grid_;
  double* values_;
  double largest_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_WINDOW_H_
