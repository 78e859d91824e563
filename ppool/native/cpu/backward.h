// Backward kernels: the gradients of Eq. 3 and 4, and of the side branch (Eq. 5) with them; a plane
// at a time because windows may overlap.
#ifndef PPOOL_CPU_BACKWARD_H_
#define PPOOL_CPU_BACKWARD_H_

#include <optional>
#include <type_traits>

#include "../ppool_jobs.h"
#include "branch.h"
#include "window.h"

namespace ppool::PPOOL_ISA {

// The columns of a split row in their order; those that no window reads are 0.
template <class Real>
void join(const Grid& grid, const Real* from, Real* __restrict to) {
  const int64_t stride = grid.pool.stride[1];
  from += grid.lead;
  int64_t first = 0;
  if (stride == 2) {
    const Real* __restrict even = from;
    const Real* __restrict odd = from + grid.length;
    first = std::min(grid.columns(0), grid.columns(1));
    for (int64_t i = 0; i < first; ++i) {
      to[2 * i] = even[i];
      to[2 * i + 1] = odd[i];
    }
  }
  for (int64_t phase = 0; phase < stride; ++phase, from += grid.length) {
    const int64_t count = grid.columns(phase);
    for (int64_t i = first, column = phase + first * stride; column < grid.pool.w;
         ++i, column += stride) {
      to[column] = i < count ? from[i] : Real(0);
    }
  }
}

// The gradient of the image rows that windows still reach, one sum for each tap column: kept apart,
// a store is never read back at another offset, which processors do slowly.
template <class Real>
class RowGradients {
 public:
  // x and dx are whole tensors.
  RowGradients(const Grid& grid, const Elements<Real>& elements, const void* x, void* dx)
      : grid_(grid),
        elements_(elements),
        x_(x),
        dx_(dx),
        columns_(grid.pool.kernel[1]),
        sums_(take<Real>(grid.reach * columns_ * grid.pooled_length())),
        outside_(take<Real>(columns_ * grid.pooled_length())),
        split_(take<Real>(grid.row_length())),
        joined_(take<Real>(grid.pool.w)),
        taps_(take<Real*>(grid.taps)) {}

  void enter(int64_t plane) {
    start_ = plane * grid_.size();
    done_ = 0;
  }

  // Where the gradient of each tap of the windows of a pooled row is added to.
  Real* const* at(int64_t row) {
    finish(grid_.image_row(row, 0));
    Real** tap = taps_;
    for (int64_t i = 0; i < grid_.pool.kernel[0]; ++i) {
      const int64_t y = grid_.image_row(row, i);
      Real* const to = grid_.has_row(y) ? sums_of(y) : outside_;
      for (int64_t j = 0; j < columns_; ++j) *tap++ = to + j * grid_.pooled_length();
    }
    return taps_;
  }

  // Writes every row before `end`, rounded once; a negative input that counted as 0 has none.
  void finish(int64_t end) {
    for (const int64_t stop = std::min(end, grid_.pool.h); done_ < stop; ++done_) {
      Real* const sums = sums_of(done_);
      merge(sums);
      std::fill(sums, sums + columns_ * grid_.pooled_length(), Real(0));
      const int64_t start = start_ + done_ * grid_.pool.w;
      join(grid_, split_, joined_);
      elements_.store_gradient(joined_, grid_.pool.w, x_, !grid_.pool.is_signed, dx_, start);
    }
  }

 private:
  Real* sums_of(int64_t y) const {
    return sums_ + y % grid_.reach * columns_ * grid_.pooled_length();
  }

  // Brings the sums of the tap columns together as a split row.
  void merge(const Real* sums) {
    std::fill(split_, split_ + grid_.row_length(), Real(0));
    for (int64_t k = 0; k < columns_; ++k, sums += grid_.pooled_length()) {
      Real* __restrict to = split_ + grid_.offset(k);
      for (int64_t i = 0; i < grid_.out_w; ++i) to[i] += sums[i];
    }
  }

  const Grid& grid_;
  const Elements<Real>& elements_;
  const void* x_;
  void* dx_;
  int64_t columns_;
  Real* sums_;
  Real* outside_;  // receives what falls outside the image
  Real* split_;
  Real* joined_;
  Real** taps_;
  int64_t start_ = 0, done_ = 0;
};

// Job is BackwardJob or UnitBackwardJob; kTaps the number of taps, or 0 for any.
template <class V, class Job, int kTaps>
class Backward {
  using Real = typename V::Real;
  using F = typename V::F;
  static constexpr bool kIsUnit = std::is_same_v<Job, UnitBackwardJob>;

 public:
  Backward(const Grid& grid, const Job& job, const Elements<Real>& elements)
      : grid_(grid),
        job_(job),
        elements_(elements),
        rows_(grid, elements),
        gradients_(grid, elements, job.x, job.dx),
        lone_(grid),
        grad_(take<Real>(grid.pooled_length())),
        alpha_(take<Real>(grid.pooled_length())),
        dalpha_(take<Real>(grid.pooled_length())),
        columns_inside_(take<Real>(grid.pooled_length())),
        vectors_(grid.taps) {
    if constexpr (kIsUnit) {
      region_ = take<Real>(grid.taps);
      sums_ = take<Real>((grid.taps + 3) * V::kLanes);
      if (job.pool.is_signed) unshifted_.emplace(grid, elements);
    }
    for (int64_t i = 0; i < grid.out_w; ++i) {
      for (int64_t k = 0; k < grid.pool.kernel[1]; ++k) {
        columns_inside_[i] += grid.has_column(grid.image_column(i, k)) ? Real(1) : Real(0);
      }
    }
  }

  // Planes [begin, end).
  void run(int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      enter(plane);
      for (int64_t row = 0; row < grid_.out_h; ++row) differentiate_row(plane, row);
      gradients_.finish(grid_.pool.h);
      if constexpr (kIsUnit) leave(plane);
    }
  }

 private:
  void enter(int64_t plane) {
    const void* const x = elements_.at(job_.x, plane * grid_.size());
    rows_.enter(x, job_.pool.is_signed ? elements_.negative_minimum(x, grid_.size()) : Real(0));
    gradients_.enter(plane);
    if constexpr (kIsUnit) {
      branch_ = read_channel<V>(job_, elements_, plane % job_.pool.c, region_);
      std::fill(sums_, sums_ + (grid_.taps + 3) * V::kLanes, Real(0));
      if (unshifted_) unshifted_->enter(x, 0);
    }
  }

  // The parameters' gradients of one plane.
  void leave(int64_t plane) {
    Real* const to = static_cast<Real*>(job_.d_parameters) + plane * (grid_.taps + 3);
    for (int64_t k = 0; k < grid_.taps + 3; ++k) {
      const Real scale = k < grid_.taps ? Real(job_.branch.input_scale) : Real(1);
      to[k] = scale * V::sum(V::load(sums_ + k * V::kLanes));
    }
  }

  void differentiate_row(int64_t plane, int64_t row) {
    const int64_t start = plane * grid_.pooled() + row * grid_.out_w;
    const Real* const* const taps = rows_.at(row);
    const Real* const* unshifted = taps;
    Real* const* const d_taps = gradients_.at(row);
    elements_.load(job_.grad, start, grid_.out_w, grad_);
    if constexpr (kIsUnit) {
      if (unshifted_) unshifted = unshifted_->at(row);
    } else {
      elements_.load(job_.alpha, start, grid_.out_w, alpha_);
    }
    Real rows_inside = 0;
    for (int64_t i = 0; i < grid_.pool.kernel[0]; ++i) {
      rows_inside += grid_.has_row(grid_.image_row(row, i)) ? Real(1) : Real(0);
    }
    for (int64_t column = 0; column < grid_.out_w; column += V::kLanes) {
      differentiate_vector(Taps{taps, unshifted, d_taps, row, column, V::set(rows_inside)});
    }
    if constexpr (!kIsUnit) elements_.store(dalpha_, grid_.out_w, job_.dalpha, start);
  }

  // Where a vector of windows reads and writes.
  struct Taps {
    const Real* const* values;
    const Real* const* unshifted;
    Real* const* gradients;
    int64_t row, column;
    F rows_inside;
  };

  int64_t tap_count() const { return kTaps > 0 ? kTaps : grid_.taps; }

  void differentiate_vector(const Taps& at) {
    const int64_t count = tap_count();
    F* const values = vectors_.values;
    F h = V::set(0);
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) values[k] = V::load(at.values[k] + at.column);
    const F alpha = exponents(at, values, h);
    const F average = V::set(1) / (at.rows_inside * V::load(columns_inside_ + at.column));
    unsigned odd;
    const F slope = differentiate_windows<V, kTaps>(vectors_, count, alpha, average, odd);
    const unsigned wanted = lanes_of<V>(grid_.out_w - at.column);
    odd &= wanted;
    const F grad = V::keep(wanted & ~odd, V::load(grad_ + at.column));
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) {
      add(at, k, V::keep(wanted & ~odd, vectors_.weights[k] * grad));
    }
    V::store(dalpha_ + at.column, V::keep(wanted & ~odd, slope * grad));
    if (odd != 0) differentiate_alone(at, odd);
    if constexpr (kIsUnit) differentiate_branch(at, h);
  }

  F exponents(const Taps& at, const F* values, F& h) {
    const int64_t count = tap_count();
    const F most = V::set(Range<Real>::kLargest);
    if constexpr (kIsUnit) {
      const bool shifted = unshifted_.has_value();
#pragma GCC unroll 9
      for (int64_t k = 0; k < count; ++k) {
        const F x = shifted ? V::load(at.unshifted[k] + at.column) : values[k];
        h = V::mul_add(V::set(region_[k]), x, h);
      }
      const F alpha = branch_.exponent(h);
      V::store(alpha_ + at.column, alpha);
      return V::min(most, alpha);
    } else {
      // An infinite or NaN value makes the exponent NaN, which marks the lane as odd.
      F sum = values[0];
#pragma GCC unroll 9
      for (int64_t k = 1; k < count; ++k) sum = sum + values[k];
      return V::min(most, V::load(alpha_ + at.column) + (sum - sum));
    }
  }

  static void add(const Taps& at, int64_t k, F slope) {
    Real* const to = at.gradients[k] + at.column;
    V::store(to, V::load(to) + slope);
  }

  // The lanes of a vector that have their bit set, one after the other.
  void differentiate_alone(const Taps& at, unsigned lanes) {
    for (int lane = 0; lane < V::kLanes; ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      const int64_t column = at.column + lane;
      lone_.read(at.values, column, at.row, column);
      dalpha_[column] = lone_.differentiate(alpha_[column], grad_[column], at.gradients, column);
    }
  }

  // Adds the windows' part in the gradients of the branch's parameters, from that of alpha.
  void differentiate_branch(const Taps& at, F h) {
    const int64_t count = tap_count();
    const unsigned wanted = lanes_of<V>(grid_.out_w - at.column);
    const F scale = V::set(Real(job_.alpha_gradient_scale));
    const auto slopes = branch_.differentiate(h, V::load(dalpha_ + at.column) * scale);
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) {
      collect(k, V::keep(wanted, slopes.h * V::load(at.unshifted[k] + at.column)));
    }
    collect(count, V::keep(wanted, slopes.slope));
    collect(count + 1, V::keep(wanted, slopes.scale));
    collect(count + 2, V::keep(wanted, slopes.bias));
  }

  void collect(int64_t index, F part) {
    Real* const sum = sums_ + index * V::kLanes;
    V::store(sum, V::load(sum) + part);
  }

  const Grid& grid_;
  const Job& job_;
  const Elements<Real>& elements_;
  Rows<Real> rows_;
  RowGradients<Real> gradients_;
  LoneWindow<Real> lone_;
  Real* grad_;
  Real* alpha_;
  Real* dalpha_;
  Real* columns_inside_;  // taps of a window that are in the image, by pooled column
  TapVectors<V> vectors_;
  Real* region_ = nullptr;
  Real* sums_ = nullptr;  // by parameter, a vector each
  Branch<V> branch_ = {};
  std::optional<Rows<Real>> unshifted_;  // where Eq. 2 shifts what is pooled, but not the branch
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_BACKWARD_H_
