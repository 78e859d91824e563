// A pooling's sizes and the layout in which the kernels read image rows.
#ifndef PPOOL_CPU_GRID_H_
#define PPOOL_CPU_GRID_H_

#include <algorithm>

#include "../ppool_params.h"

namespace ppool::PPOOL_ISA {

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

inline int64_t floor_divide(int64_t value, int64_t by) {
  return value >= 0 ? value / by : -((by - 1 - value) / by);
}

// A pooling's sizes, and the layout of a split row. Columns q, q + stride, q + 2 stride, ... are
// neighbours in phase q, which starts at q * length and has `lead` zeros before the image.
struct Grid {
  const Pool2d& pool;
  int64_t out_h, out_w, taps, reach, lead, length;

  explicit Grid(const Pool2d& p)
      : pool(p),
        out_h(pooled_size(p, 0)),
        out_w(pooled_size(p, 1)),
        taps(p.kernel[0] * p.kernel[1]),
        reach(p.dilation[0] * (p.kernel[0] - 1) + 1) {
    // A narrow image may have many phases: those are packed, as no load can be aligned.
    const int64_t step = out_w < 16 ? 1 : 16;
    lead = round_up(-shift(0), step);
    length = round_up(lead + std::max<int64_t>(out_w + shift(p.kernel[1] - 1), 0), step);
  }

  int64_t size() const { return pool.h * pool.w; }
  int64_t pooled() const { return out_h * out_w; }

  // Elements of a split row. A vector that starts at the last window reads beyond its phase.
  int64_t row_length() const { return pool.stride[1] * length + 16; }

  // Elements of one value for each window of a row, in whole vectors.
  int64_t pooled_length() const { return round_up(out_w, 16); }

  // Row of the image that tap row `k` of pooled row `row` is at, inside or not.
  int64_t image_row(int64_t row, int64_t k) const {
    return row * pool.stride[0] - pool.padding[0] + k * pool.dilation[0];
  }
  int64_t image_column(int64_t column, int64_t k) const {
    return column * pool.stride[1] - pool.padding[1] + k * pool.dilation[1];
  }
  bool has_row(int64_t y) const { return y >= 0 && y < pool.h; }
  bool has_column(int64_t x) const { return x >= 0 && x < pool.w; }

  // Where tap column `k` of the first window is in a split row: its phase, and its distance from
  // the phase's first column.
  int64_t phase(int64_t k) const { return image_column(0, k) - shift(k) * pool.stride[1]; }
  int64_t shift(int64_t k) const { return floor_divide(image_column(0, k), pool.stride[1]); }
  int64_t offset(int64_t k) const { return phase(k) * length + lead + shift(k); }

  // Columns of a phase that the image has and a window reads.
  int64_t columns(int64_t phase) const {
    const int64_t in_image = (pool.w - phase + pool.stride[1] - 1) / pool.stride[1];
    return std::min(std::max<int64_t>(in_image, 0), length - lead);
  }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_GRID_H_
