// Rows of a tensor stored [n, h, w, c], in the computing type, and the taps of a window in them.
#ifndef PPOOL_CPU_PIXELS_H_
#define PPOOL_CPU_PIXELS_H_

#include <optional>

#include "window.h"

namespace ppool::PPOOL_ISA {

// Rows of an image that the windows of one pooled row reach, of `Real` [w, c] each.
template <class Real>
class PixelRows {
 public:
  PixelRows(const Grid& grid)
      : grid_(grid),
        length_(grid.pool.w * grid.pool.c + 16),
        rows_(take<Real>(length_ * grid.reach)),
        outside_(take<Real>(round_up(grid.pool.c, 16))),
        taps_(take<Real*>(grid.taps)) {}

  Real* row(int64_t y) const { return rows_ + y % grid_.reach * length_; }

  // Where each tap of a window starts; all that is outside the image is one place.
  Real* const* at(int64_t row_index, int64_t column) {
    Real** tap = taps_;
    for (int64_t i = 0; i < grid_.pool.kernel[0]; ++i) {
      const int64_t y = grid_.image_row(row_index, i);
      Real* const from = grid_.has_row(y) ? row(y) : nullptr;
      for (int64_t j = 0; j < grid_.pool.kernel[1]; ++j) {
        const int64_t x = grid_.image_column(column, j);
        const bool inside = from != nullptr && grid_.has_column(x);
        *tap++ = inside ? from + x * grid_.pool.c : outside_;
      }
    }
    return taps_;
  }

 private:
  const Grid& grid_;
  int64_t length_;
  Real* rows_;
  Real* outside_;
  Real** taps_;
};

// Where the taps of a window start: as they are pooled, and as the branch sees them, which Eq. 2 does
// not shift.
template <class Real>
struct PixelTaps {
  const Real* const* pooled;
  const Real* const* seen;
};

// Keeps the rows of x that windows reach.
template <class Real>
class PixelReader {
 public:
  PixelReader(const Grid& grid, const Elements<Real>& elements, const void* x)
      : grid_(grid), elements_(elements), x_(x), rows_(grid) {
    if (!grid.pool.is_signed) return;
    shifted_.emplace(grid);
    least_ = take<Real>(grid.pool.c);
  }

  void enter(int64_t image) {
    image_ = image;
    next_ = 0;
    if (shifted_) find_minima();
  }

  // Reads on to the last row of the windows of a pooled row.
  void read(int64_t row) {
    const int64_t first = std::max(grid_.image_row(row, 0), next_);
    const int64_t end = std::min(grid_.image_row(row, 0) + grid_.reach, grid_.pool.h);
    for (int64_t y = first; y < end; ++y) {
      load(y);
      if (shifted_) each_pixel(grid_.pool.w, rows_.row(y), shifted_->row(y), Subtract());
    }
    next_ = std::max(end, next_);
  }

  PixelTaps<Real> at(int64_t row, int64_t column) {
    const Real* const* const seen = rows_.at(row, column);
    return {shifted_ ? shifted_->at(row, column) : seen, seen};
  }

  // Gives the pooled row `y` back what was subtracted.
  void restore(Real* y) const {
    if (shifted_) each_pixel(grid_.out_w, y, y, Add());
  }

 private:
  struct Subtract {
    Real operator()(Real value, Real least) const { return value - least; }
  };
  struct Add {
    Real operator()(Real value, Real least) const { return value + least; }
  };

  void load(int64_t y) {
    const int64_t count = grid_.pool.w * grid_.pool.c;
    elements_.load(x_, (image_ * grid_.pool.h + y) * count, count, rows_.row(y));
  }

  // Eq. 2: each channel's minimum where it is negative, else 0; a NaN is passed over.
  void find_minima() {
    Real* __restrict const least = least_;
    std::fill(least, least + grid_.pool.c, Real(0));
    for (int64_t y = 0; y < grid_.pool.h; ++y) {
      load(y);
      const Real* pixel = rows_.row(y);
      for (int64_t x = 0; x < grid_.pool.w; ++x, pixel += grid_.pool.c) {
        for (int64_t c = 0; c < grid_.pool.c; ++c) {
          least[c] = pixel[c] < least[c] ? pixel[c] : least[c];
        }
      }
    }
  }

  template <class Change>
  void each_pixel(int64_t pixels, const Real* from, Real* to, Change change) const {
    for (int64_t x = 0; x < pixels; ++x, from += grid_.pool.c, to += grid_.pool.c) {
      for (int64_t c = 0; c < grid_.pool.c; ++c) to[c] = change(from[c], least_[c]);
    }
  }

  const Grid& grid_;
  const Elements<Real>& elements_;
  const void* x_;
  PixelRows<Real> rows_;
  std::optional<PixelRows<Real>> shifted_;
  Real* least_ = nullptr;
  int64_t image_ = 0, next_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_PIXELS_H_
