// A block of neighbouring pooled elements of one plane, and how a window tap reaches the image.
#ifndef PPOOL_CPU_BLOCK_H_
#define PPOOL_CPU_BLOCK_H_

#include <algorithm>
#include <type_traits>

#include "../ppool_storage.h"

namespace ppool {

// Pooled elements worked on together: enough to outweigh each loop's start, few enough for L1.
constexpr int kLanes = 256;

// Pooled elements [first, first + count) of a plane, in row-major order.
struct Block {
  int64_t first;
  int count;
};

// What a plane's blocks share.
struct Plane {
  const Pool2d& pool;
  int64_t out_height, out_width;

  explicit Plane(const Pool2d& p)
      : pool(p), out_height(pooled_size(p, 0)), out_width(pooled_size(p, 1)) {}

  int64_t taps() const { return pool.kernel[0] * pool.kernel[1]; }
  int64_t size() const { return pool.h * pool.w; }
  int64_t pooled() const { return out_height * out_width; }
};

// Lanes [begin, end) of a block lie in one pooled row; tap `offset` of lane i is the image element
// `start + i * stride`, valid for lanes [inside, outside).
struct Run {
  int begin, end, inside, outside;
  int64_t start;
};

// Calls visit(run) for each pooled row that the block touches, for one tap of the window.
template <class Visit>
PPOOL_HOST_DEVICE void for_each_run(const Plane& plane, Block block, int64_t tap,
                                    const Visit& visit) {
  const Pool2d& pool = plane.pool;
  const int64_t tap_row = tap / pool.kernel[1], tap_column = tap % pool.kernel[1];
  int64_t row = block.first / plane.out_width, column = block.first % plane.out_width;
  for (int lane = 0; lane < block.count; ++row, column = 0) {
    const int64_t length = std::min<int64_t>(plane.out_width - column, block.count - lane);
    const int64_t y = row * pool.stride[0] - pool.padding[0] + tap_row * pool.dilation[0];
    const int64_t left = column * pool.stride[1] - pool.padding[1] + tap_column * pool.dilation[1];
    // The first and one past the last of the run's columns that are in the image.
    const int64_t stride = pool.stride[1];
    int64_t inside = left < 0 ? (-left + stride - 1) / stride : 0;
    int64_t outside = left < pool.w ? (pool.w - left + stride - 1) / stride : 0;
    const bool row_inside = y >= 0 && y < pool.h;
    outside = row_inside ? std::min(outside, length) : 0;
    inside = std::min(inside, outside);
    visit(Run{lane, lane + static_cast<int>(length), lane + static_cast<int>(inside),
              lane + static_cast<int>(outside), y * pool.w + left - lane * stride});
    lane += static_cast<int>(length);
  }
}

// Eq. 2: what is pooled is x less its plane's negative minimum; without one, negatives count as 0.
template <class Real>
struct Shifted {
  Real offset;
  PPOOL_HOST_DEVICE Real operator()(Real x) const {
    const Real value = x - offset;
    return value < 0 ? Real(0) : value;
  }
};

template <class Real>
struct Unchanged {
  PPOOL_HOST_DEVICE Real operator()(Real x) const { return x; }
};

// Reads one tap into lanes, `fill` where it is outside the image.
template <class Storage, class Change>
struct Gather {
  const Storage* plane;
  int64_t stride;
  Change change;
  Compute<Storage> fill;
  Compute<Storage>* lanes;

  PPOOL_HOST_DEVICE void operator()(const Run& run) const {
    for (int i = run.begin; i < run.inside; ++i) lanes[i] = fill;
    // A stride known to the compiler makes the loads vectors.
    if (stride == 1) {
      copy(run, std::integral_constant<int64_t, 1>());
    } else if (stride == 2) {
      copy(run, std::integral_constant<int64_t, 2>());
    } else {
      copy(run, stride);
    }
    for (int i = run.outside; i < run.end; ++i) lanes[i] = fill;
  }

  template <class Stride>
  PPOOL_HOST_DEVICE void copy(const Run& run, Stride step) const {
    const Storage* source = plane + run.start;
    for (int i = run.inside; i < run.outside; ++i) lanes[i] = change(widen(source[i * step]));
  }
};

// Adds lanes to the image elements they were read from.
template <class Real>
struct Scatter {
  Real* plane;
  int64_t stride;
  const Real* lanes;

  PPOOL_HOST_DEVICE void operator()(const Run& run) const {
    for (int i = run.inside; i < run.outside; ++i) plane[run.start + i * stride] += lanes[i];
  }
};

// Eq. 2: the plane's minimum where it is negative, else 0; a NaN is passed over.
template <class Storage>
PPOOL_HOST_DEVICE Compute<Storage> negative_minimum(const Storage* plane, int64_t size) {
  Compute<Storage> least = 0;
  for (int64_t i = 0; i < size; ++i) {
    const Compute<Storage> value = widen(plane[i]);
    least = value < least ? value : least;
  }
  return least;
}

}  // namespace ppool

#endif  // PPOOL_CPU_BLOCK_H_
