// Reading a block's windows and summing them: what forward and backward share.
#ifndef PPOOL_CPU_WINDOWS_H_
#define PPOOL_CPU_WINDOWS_H_

#include <vector>

#include "block.h"

namespace ppool {

// The values of a block's windows, a row of lanes for each tap, and each window's maximum.
template <class Real>
struct Windows {
  std::vector<Real> values;
  Real largest[kLanes];

  explicit Windows(int64_t taps) : values(taps * kLanes) {}

  PPOOL_HOST_DEVICE const Real* tap(int64_t index) const { return values.data() + index * kLanes; }

  // Reads x less `offset` (Eq. 2), a plane of storage elements.
  template <class Storage>
  PPOOL_HOST_DEVICE void read(const Plane& plane, Block block, const Storage* x, Real offset) {
    for (int i = 0; i < block.count; ++i) largest[i] = 0;
    for (int64_t index = 0; index < plane.taps(); ++index) {
      Real* lanes = values.data() + index * kLanes;
      const Gather<Storage, Shifted<Real>> gather{
          x, plane.pool.stride[1], {offset}, Real(kOutside), lanes};
      for_each_run(plane, block, index, gather);
      for (int i = 0; i < block.count; ++i) largest[i] = larger(largest[i], lanes[i]);
    }
  }
};

// One plane of input and where its pooled elements start in the whole tensor.
template <class Storage>
struct Input {
  const Storage* x;
  int64_t pooled_start;
  Compute<Storage> offset;

  PPOOL_HOST_DEVICE Input(const Plane& plane, const void* tensor, int64_t index)
      : x(static_cast<const Storage*>(tensor) + index * plane.size()),
        pooled_start(index * plane.pooled()),
        offset(plane.pool.is_signed ? negative_minimum(x, plane.size()) : 0) {}
};

// Calls enter(plane index) and visit(block) for pooled rows [begin, end) of all planes.
template <class Visitor>
PPOOL_HOST_DEVICE void for_each_block(const Plane& plane, int64_t begin, int64_t end,
                                      Visitor& visitor) {
  while (begin < end) {
    const int64_t row = begin % plane.out_height;
    const int64_t rows = std::min(plane.out_height - row, end - begin);
    const int64_t last = (row + rows) * plane.out_width;
    visitor.enter(begin / plane.out_height);
    for (int64_t first = row * plane.out_width; first < last; first += kLanes) {
      visitor.visit(Block{first, static_cast<int>(std::min<int64_t>(kLanes, last - first))});
    }
    begin += rows;
  }
}

template <class Storage, class Real>
PPOOL_HOST_DEVICE void load(const void* tensor, int64_t start, int count, Real* lanes) {
  const Storage* from = static_cast<const Storage*>(tensor) + start;
  for (int i = 0; i < count; ++i) lanes[i] = widen(from[i]);
}

template <class Storage, class Real>
PPOOL_HOST_DEVICE void store(const Real* lanes, int count, void* tensor, int64_t start) {
  Storage* to = static_cast<Storage*>(tensor) + start;
  for (int i = 0; i < count; ++i) narrow(lanes[i], &to[i]);
}

}  // namespace ppool

#endif  // PPOOL_CPU_WINDOWS_H_
