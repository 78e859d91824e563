// What every pooling kernel shares: sizes worked out once, and Eq. 2's shift of each plane.
#ifndef PPOOL_CUDA_PLANE_H_
#define PPOOL_CUDA_PLANE_H_

#include "element.h"
#include "window.h"

namespace ppool::cuda {

// A pooling with its output size and number of planes, plane = sample * c + channel.
struct Problem {
  Pool2d pool;
  int64_t planes, out_h, out_w;

  explicit Problem(const Pool2d& p)
      : pool(p), planes(p.n * p.c), out_h(pooled_size(p, 0)), out_w(pooled_size(p, 1)) {}

  PPOOL_HOST_DEVICE int64_t plane_size() const { return pool.h * pool.w; }
  PPOOL_HOST_DEVICE int64_t pooled_plane_size() const { return out_h * out_w; }

  // Where a window starts and how many of its taps along the axis are in the image.
  PPOOL_HOST_DEVICE int64_t start(int axis, int64_t out) const {
    return out * pool.stride[axis] - pool.padding[axis];
  }
  PPOOL_HOST_DEVICE int64_t inside(int axis, int64_t first) const {
    const int64_t size = axis == 0 ? pool.h : pool.w, step = pool.dilation[axis];
    const int64_t before = first < 0 ? divide(-first + step - 1, step) : 0;
    const int64_t end = first < size ? divide(size - first + step - 1, step) : 0;
    return (end < pool.kernel[axis] ? end : pool.kernel[axis]) - before;
  }
};

// Eq. 2: each plane is shifted by its minimum where that is negative. A block then does one whole
// plane and finds the minimum itself, which needs no second kernel and no memory from the caller.
struct PlaneMinimum {
  float least[kThreads];

  template <class Storage>
  PPOOL_HOST_DEVICE void find(const Storage* plane, int64_t size, int thread) {
    float lowest = 0;
    for (int64_t i = thread; i < size; i += kThreads) {
      const float value = to_float(plane[i]);
      lowest = value < lowest ? value : lowest;  // passes over a NaN
    }
    least[thread] = lowest;
  }

  PPOOL_HOST_DEVICE float offset() const {
    float lowest = 0;
    for (int i = 0; i < kThreads; ++i) lowest = smaller_of(least[i], lowest);
    return lowest;
  }
};

// What is pooled: x less its plane's negative minimum; without one, negatives count as 0.
PPOOL_HOST_DEVICE float shifted(float x, float offset) {
  const float value = x - offset;
  return value < 0 ? 0.0f : value;
}

// Work items shared out to blocks: a run of kThreads * ahead of them each, or, where planes are
// shifted, all items of one plane.
struct Division {
  int64_t items_of_plane, planes;
  int ahead;
  bool by_plane;

  PPOOL_HOST_DEVICE int64_t run() const { return static_cast<int64_t>(kThreads) * ahead; }
  PPOOL_HOST_DEVICE int64_t items() const { return items_of_plane * planes; }
  PPOOL_HOST_DEVICE int64_t units() const {
    return by_plane ? planes : (items() + run() - 1) / run();
  }
  PPOOL_HOST_DEVICE int64_t begin(int64_t unit) const {
    return unit * (by_plane ? items_of_plane : run());
  }
  PPOOL_HOST_DEVICE int64_t end(int64_t unit) const {
    const int64_t next = begin(unit + 1);
    return next < items() ? next : items();
  }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_PLANE_H_
