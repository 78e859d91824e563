// Image rows as the kernels read them: widened, split by column, so that each tap of neighbouring
// windows is a run of neighbouring elements, with zeros where a window leaves the image.
#ifndef PPOOL_CPU_ROWS_H_
#define PPOOL_CPU_ROWS_H_

#include "elements.h"
#include "scratch.h"

namespace ppool::PPOOL_ISA {

// The split rows that the windows of one pooled row reach, each split once.
template <class Real>
class Rows {
 public:
  Rows(const Grid& grid, const Elements<Real>& elements)
      : grid_(grid),
        elements_(elements),
        rows_(take<Real>(grid.row_length() * grid.reach)),
        outside_(take<Real>(grid.row_length())),
        held_(take<int64_t>(grid.reach)),
        offsets_(take<int64_t>(grid.pool.kernel[1])),
        taps_(take<const Real*>(grid.taps)) {
    for (int64_t k = 0; k < grid.pool.kernel[1]; ++k) offsets_[k] = grid.offset(k);
  }

  // Goes on to another plane, of which `less` is to be subtracted (Eq. 2).
  void enter(const void* plane, Real less) {
    plane_ = plane;
    less_ = less;
    std::fill(held_, held_ + grid_.reach, int64_t{-1});
  }

  // Where each tap of the windows of a pooled row starts.
  const Real* const* at(int64_t row) {
    const Real** tap = taps_;
    for (int64_t i = 0; i < grid_.pool.kernel[0]; ++i) {
      const int64_t y = grid_.image_row(row, i);
      const Real* from = grid_.has_row(y) ? at_image_row(y) : outside_;
      for (int64_t j = 0; j < grid_.pool.kernel[1]; ++j) *tap++ = from + offsets_[j];
    }
    return taps_;
  }

 private:
  const Real* at_image_row(int64_t y) {
    const int64_t slot = y % grid_.reach;
    Real* row = rows_ + slot * grid_.row_length();
    if (held_[slot] != y) {
      elements_.split(grid_, elements_.at(plane_, y * grid_.pool.w), row);
      if (less_ != 0) shift(row);
      held_[slot] = y;
    }
    return row;
  }

  void shift(Real* row) const {
    for (int64_t phase = 0; phase < grid_.pool.stride[1]; ++phase) {
      Real* const first = row + phase * grid_.length + grid_.lead;
      const int64_t count = grid_.columns(phase);
      for (int64_t i = 0; i < count; ++i) first[i] -= less_;
    }
  }

  const Grid& grid_;
  const Elements<Real>& elements_;
  Real* rows_;
  Real* outside_;
  int64_t* held_;
  int64_t* offsets_;
  const Real** taps_;
  const void* plane_ = nullptr;
  Real less_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_ROWS_H_
