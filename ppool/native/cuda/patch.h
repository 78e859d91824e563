// The elements of windows: a few neighbours' read once into registers, or any window's in memory.
#ifndef PPOOL_CUDA_PATCH_H_
#define PPOOL_CUDA_PATCH_H_

#include "plane.h"
#include "window.h"

namespace ppool::cuda {

// A square window known to the compiler, not dilated.
template <int kernel, int stride, int padding>
struct Square {
  static constexpr int kKernel = kernel, kStride = stride, kPadding = padding;

  static bool is(const Pool2d& pool) {
    for (int axis = 0; axis < 2; ++axis) {
      if (pool.kernel[axis] != kernel || pool.stride[axis] != stride) return false;
      if (pool.padding[axis] != padding || pool.dilation[axis] != 1) return false;
    }
    return true;
  }
};

// The place of a group of kOut windows, neighbours in one pooled row.
struct Place {
  int64_t plane, row, column;
};

// The elements under the group: per row 16 bytes in the middle, which one access brings, and the
// few to the left and right that its windows share with the neighbouring groups'.
template <class Storage, class Window>
struct Patch {
  static constexpr int kRows = Window::kKernel;
  static constexpr int kMiddle = 16 / static_cast<int>(sizeof(Storage));
  static constexpr int kOut = kMiddle / Window::kStride;
  static constexpr int kLeft = Window::kPadding;
  static constexpr int kRight = Window::kKernel - Window::kStride - Window::kPadding;
  static constexpr int kColumns = kLeft + kMiddle + kRight;
  static constexpr int kTaps = Window::kKernel * Window::kKernel;
  static_assert(kRight >= 0, "the middle must reach under the last window's end");

  float at[kRows][kColumns];  // 0 outside the image

  static PPOOL_HOST_DEVICE int64_t first_row(const Place& place) {
    return place.row * Window::kStride - Window::kPadding;
  }
  static PPOOL_HOST_DEVICE int64_t first_column(const Place& place) {
    return place.column * Window::kStride - Window::kPadding;
  }

  // `whole`: the middle of a row may be read in one access.
  PPOOL_HOST_DEVICE void read(const Problem& problem, const Storage* x, const Place& place,
                              bool whole) {
    const Storage* plane = x + place.plane * problem.plane_size();
    const int64_t height = problem.pool.h, width = problem.pool.w;
    const int64_t middle = place.column * Window::kStride;
    PPOOL_UNROLL
    for (int row = 0; row < kRows; ++row) {
      const int64_t y = first_row(place) + row;
      const bool in_image = y >= 0 && y < height;
      const Storage* line = plane + (in_image ? y : 0) * width;
      const int64_t valid = in_image ? width - middle : 0;
      load_run<kMiddle>(line + middle, valid, whole, &at[row][kLeft]);
      PPOOL_UNROLL
      for (int i = 0; i < kLeft; ++i) {
        const int64_t column = middle - kLeft + i;
        at[row][i] = in_image && column >= 0 ? to_float(line[column]) : 0.0f;
      }
      PPOOL_UNROLL
      for (int i = 0; i < kRight; ++i) {
        const bool exists = kMiddle + i < valid;
        at[row][kLeft + kMiddle + i] = exists ? to_float(line[middle + kMiddle + i]) : 0.0f;
      }
    }
  }

  // The window `out` of the group, each element put through `change(value, row, column)`.
  template <class Change>
  PPOOL_HOST_DEVICE Values<kTaps> window(int out, const Change& change) const {
    Values<kTaps> values;
    PPOOL_UNROLL
    for (int row = 0; row < kRows; ++row) {
      PPOOL_UNROLL
      for (int column = 0; column < kRows; ++column) {
        const int place = out * Window::kStride + column;
        values.at[row * kRows + column] = change(at[row][place], row, place);
      }
    }
    return values;
  }
};

// Makes elements of a patch what is pooled: 0 outside the image, whatever the plane's shift.
struct Pooled {
  int64_t row, column, height, width;
  float offset;

  PPOOL_HOST_DEVICE float operator()(float x, int r, int c) const {
    const float value = shifted(x, offset);
    if (offset == 0) return value;
    const int64_t y = row + r, place = column + c;
    return y >= 0 && y < height && place >= 0 && place < width ? value : 0.0f;
  }
};

// The elements of any window, read from memory each time they are asked for; 0 outside the image.
template <class Storage>
struct Reader {
  const Pool2d& pool;
  const Storage* plane;
  int64_t row, column;
  float offset;

  PPOOL_HOST_DEVICE int count() const { return static_cast<int>(pool.kernel[0] * pool.kernel[1]); }

  // The element as it is in memory; outside the image it is `outside`.
  PPOOL_HOST_DEVICE float raw_at(int tap_row, int tap_column, float outside) const {
    const int64_t y = row + tap_row * pool.dilation[0];
    const int64_t place = column + tap_column * pool.dilation[1];
    const bool inside = y >= 0 && y < pool.h && place >= 0 && place < pool.w;
    return inside ? to_float(plane[y * pool.w + place]) : outside;
  }
  PPOOL_HOST_DEVICE float raw(int tap, float outside) const {
    const int wide = static_cast<int>(pool.kernel[1]), tap_row = tap / wide;
    return raw_at(tap_row, tap - tap_row * wide, outside);
  }
  PPOOL_HOST_DEVICE float operator[](int tap) const { return shifted(raw(tap, offset), offset); }
};

// The same elements as they are in memory, 0 outside the image.
template <class Storage>
struct RawTaps {
  const Reader<Storage>& reader;
  PPOOL_HOST_DEVICE int count() const { return reader.count(); }
  PPOOL_HOST_DEVICE float operator[](int tap) const { return reader.raw(tap, 0.0f); }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_PATCH_H_
