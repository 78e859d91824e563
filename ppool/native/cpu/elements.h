// Rows of tensors in and out of the type they are computed in, for every element type.
#ifndef PPOOL_CPU_ELEMENTS_H_
#define PPOOL_CPU_ELEMENTS_H_

#include "../ppool_storage.h"
#include "grid.h"

namespace ppool::PPOOL_ISA {

// Widens the columns of an image row to their places in a split row.
template <class Storage>
void split(const Grid& grid, const void* row, Compute<Storage>* __restrict to) {
  using Real = Compute<Storage>;
  const Storage* __restrict from = static_cast<const Storage*>(row);
  const int64_t stride = grid.pool.stride[1];
  to += grid.lead;
  // A stride known to the compiler makes the loads vectors.
  if (stride == 1) {
    const int64_t count = grid.columns(0);
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
    return;
  }
  if (stride == 2) {
    Real* __restrict odd = to + grid.length;
    const int64_t evens = grid.columns(0), odds = grid.columns(1), both = std::min(evens, odds);
    for (int64_t i = 0; i < both; ++i) {
      to[i] = widen(from[2 * i]);
      odd[i] = widen(from[2 * i + 1]);
    }
    for (int64_t i = both; i < evens; ++i) to[i] = widen(from[2 * i]);
    for (int64_t i = both; i < odds; ++i) odd[i] = widen(from[2 * i + 1]);
    return;
  }
  for (int64_t phase = 0; phase < stride; ++phase, to += grid.length) {
    const int64_t count = grid.columns(phase);
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[phase + i * stride]);
  }
}

// Eq. 2: the plane's minimum where it is negative, else 0; a NaN is passed over.
template <class Storage>
Compute<Storage> negative_minimum(const void* tensor, int64_t size) {
  const Storage* plane = static_cast<const Storage*>(tensor);
  Compute<Storage> least = 0;
  for (int64_t i = 0; i < size; ++i) {
    const Compute<Storage> value = widen(plane[i]);
    least = value < least ? value : least;
  }
  return least;
}

template <class Storage>
void load(const void* tensor, int64_t start, int64_t count, Compute<Storage>* __restrict to) {
  const Storage* __restrict from = static_cast<const Storage*>(tensor) + start;
  for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}

template <class Storage>
void store(const Compute<Storage>* __restrict from, int64_t count, void* tensor, int64_t start) {
  Storage* __restrict to = static_cast<Storage*>(tensor) + start;
  for (int64_t i = 0; i < count; ++i) narrow(from[i], &to[i]);
}

// Stores the gradient of elements of x, rounded once. With `clamped`, a negative element counted as
// 0 and has none.
template <class Storage>
void store_gradient(const Compute<Storage>* __restrict from, int64_t count, const void* tensor,
                    bool clamped, void* gradient, int64_t start) {
  using Real = Compute<Storage>;
  const Storage* __restrict x = static_cast<const Storage*>(tensor) + start;
  Storage* __restrict to = static_cast<Storage*>(gradient) + start;
  for (int64_t i = 0; i < count; ++i) {
    narrow((clamped & (widen(x[i]) < 0)) ? Real(0) : from[i], &to[i]);
  }
}

// What a kernel does with its tensors' element type: chosen at run time, a row at a time, so that
// the arithmetic is compiled once for all types.
template <class Real>
struct Elements {
  int64_t bytes;
  void (*split)(const Grid&, const void* row, Real* to);
  Real (*negative_minimum)(const void* plane, int64_t size);
  void (*load)(const void* tensor, int64_t start, int64_t count, Real* to);
  void (*store)(const Real* from, int64_t count, void* tensor, int64_t start);
  void (*store_gradient)(const Real* from, int64_t count, const void* x, bool clamped,
                         void* gradient, int64_t start);

  template <class Storage>
  static constexpr Elements of() {
    return {sizeof(Storage), PPOOL_ISA::split<Storage>, PPOOL_ISA::negative_minimum<Storage>,
            PPOOL_ISA::load<Storage>, PPOOL_ISA::store<Storage>,
            PPOOL_ISA::store_gradient<Storage>};
  }

  const void* at(const void* tensor, int64_t index) const {
    return static_cast<const char*>(tensor) + index * bytes;
  }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_ELEMENTS_H_
