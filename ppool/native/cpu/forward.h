// Forward kernels: pooling with given exponents (Eq. 1), and fused with its side branch (Eq. 5).
#ifndef PPOOL_CPU_FORWARD_H_
#define PPOOL_CPU_FORWARD_H_

#include <optional>
#include <type_traits>

#include "../ppool_jobs.h"
#include "branch.h"
#include "window.h"

namespace ppool::PPOOL_ISA {

// Asks for the image rows that the next pooled row reads, a piece with each vector of this one:
// memory then works while the arithmetic does.
class Prefetch {
 public:
  Prefetch(const Grid& grid, const void* plane, int64_t element, int64_t row, int lanes) {
    const int64_t y = grid.image_row(row, 0) + grid.reach;
    const int64_t rows = std::min(grid.pool.stride[0], grid.pool.h - y);
    if (row + 1 >= grid.out_h || y < 0 || rows < 1) return;
    const int64_t bytes = rows * grid.pool.w * element;
    next_ = static_cast<const char*>(plane) + y * grid.pool.w * element;
    end_ = next_ + bytes;
    step_ = round_up(bytes * lanes / grid.out_w, kLine);
  }

  void step() {
    const char* const stop = end_ - next_ > step_ ? next_ + step_ : end_;
    for (; next_ < stop; next_ += kLine) prefetch(next_);
  }

 private:
  static constexpr int64_t kLine = 64;

  static void prefetch(const char* address) {
#if defined(__GNUC__)
    __builtin_prefetch(address);
#else
    static_cast<void>(address);
#endif
  }

  const char* next_ = nullptr;
  const char* end_ = nullptr;
  int64_t step_ = 0;
};

// Job is ForwardJob or UnitJob; kTaps the number of taps, or 0 for any.
template <class V, class Job, int kTaps>
class Forward {
  using Real = typename V::Real;
  using F = typename V::F;
  static constexpr bool kIsUnit = std::is_same_v<Job, UnitJob>;

 public:
  Forward(const Grid& grid, const Job& job, const Elements<Real>& elements)
      : grid_(grid),
        job_(job),
        elements_(elements),
        rows_(grid, elements),
        lone_(grid),
        alpha_(take<Real>(grid.pooled_length())),
        y_(take<Real>(grid.pooled_length())),
        values_(take<Real>(grid.taps * V::kLanes)) {
    if constexpr (kIsUnit) {
      weights_ = take<Real>(grid.taps);
      if (job.pool.is_signed) unshifted_.emplace(grid, elements);
    }
  }

  // Pooled rows [begin, end) of all planes.
  void run(int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t plane = begin / grid_.out_h, first = plane * grid_.out_h;
      enter(plane);
      for (const int64_t stop = std::min(end, first + grid_.out_h); begin < stop; ++begin) {
        pool_row(plane, begin - first);
      }
    }
  }

 private:
  void enter(int64_t plane) {
    x_ = elements_.at(job_.x, plane * grid_.size());
    offset_ = job_.pool.is_signed ? elements_.negative_minimum(x_, grid_.size()) : Real(0);
    rows_.enter(x_, offset_);
    if constexpr (kIsUnit) {
      branch_ = read_channel<V>(job_, elements_, plane % job_.pool.c, weights_);
      if (unshifted_) unshifted_->enter(x_, 0);
    }
  }

  void pool_row(int64_t plane, int64_t row) {
    const int64_t start = plane * grid_.pooled() + row * grid_.out_w;
    const Real* const* taps = rows_.at(row);
    const Real* const* unshifted = taps;
    if constexpr (kIsUnit) {
      if (unshifted_) unshifted = unshifted_->at(row);
    } else {
      elements_.load(job_.alpha, start, grid_.out_w, alpha_);
    }
    Prefetch prefetch(grid_, x_, elements_.bytes, row, V::kLanes);
    for (int64_t column = 0; column < grid_.out_w; column += V::kLanes) {
      prefetch.step();
      pool_vector(taps, unshifted, row, column);
    }
    if (offset_ != 0) {
      for (int64_t i = 0; i < grid_.out_w; ++i) y_[i] += offset_;
    }
    elements_.store(y_, grid_.out_w, job_.y, start);
  }

  int64_t tap_count() const { return kTaps > 0 ? kTaps : grid_.taps; }

  PPOOL_HOST_DEVICE void pool_vector(const Real* const* taps, const Real* const* unshifted,
                                     int64_t row, int64_t column) {
    const int64_t count = tap_count();
    F fixed[kTaps > 0 ? kTaps : 1];
    F* const values = kTaps > 0 ? fixed : reinterpret_cast<F*>(values_);
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) values[k] = V::load(taps[k] + column);
    const F alpha = exponents(values, unshifted, column);

    unsigned odd;
    V::store(y_ + column, pool_windows<V, kTaps>(values, count, alpha, odd));
    if (odd != 0) pool_alone(taps, row, column, odd);
  }

  F exponents(const F* values, const Real* const* unshifted, int64_t column) {
    const int64_t count = tap_count();
    if constexpr (kIsUnit) {
      const bool shifted = unshifted_.has_value();
      F h = V::set(0);
#pragma GCC unroll 9
      for (int64_t k = 0; k < count; ++k) {
        const F value = shifted ? V::load(unshifted[k] + column) : values[k];
        h = V::mul_add(V::set(weights_[k]), value, h);
      }
      const F alpha = branch_.exponent(h);
      V::store(alpha_ + column, alpha);
      return V::min(V::set(Range<Real>::kLargest), alpha);
    } else {
      // An infinite or NaN value makes the exponent NaN, which marks the lane as odd.
      F sum = values[0];
#pragma GCC unroll 9
      for (int64_t k = 1; k < count; ++k) sum = sum + values[k];
      const F alpha = V::load(alpha_ + column);
      return V::min(V::set(Range<Real>::kLargest), alpha + (sum - sum));
    }
  }

  // The lanes of a vector that have their bit set, one after the other.
  void pool_alone(const Real* const* taps, int64_t row, int64_t column, unsigned lanes) {
    for (int lane = 0; lane < V::kLanes && column + lane < grid_.out_w; ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      lone_.read(taps, column + lane, row, column + lane);
      y_[column + lane] = lone_.pool(alpha_[column + lane]);
    }
  }

  const Grid& grid_;
  const Job& job_;
  const Elements<Real>& elements_;
  Rows<Real> rows_;
  LoneWindow<Real> lone_;
  Real* alpha_;
  Real* y_;
  Real* values_;
  Real* weights_ = nullptr;
  Branch<V> branch_ = {};
  std::optional<Rows<Real>> unshifted_;  // where Eq. 2 shifts what is pooled, but not the branch
  const void* x_ = nullptr;
  Real offset_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_FORWARD_H_
