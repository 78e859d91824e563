// Backward kernels (Eq. 3 and 4). Each element of dx is summed by one thread in a fixed order, so
// that no atomic is needed and results repeat to the bit.
#ifndef PPOOL_CUDA_BACKWARD_H_
#define PPOOL_CUDA_BACKWARD_H_

#include "forward.h"

namespace ppool::cuda {

// What is differentiated, the exponents given or predicted, and where its gradients go.
template <class Stored, class Exponents, class Slope>
struct Gradients {
  using Storage = Stored;
  using Alpha = Exponents;

  const Storage *grad, *x;
  Alpha alpha;
  Storage* dx;
  Slope* dalpha;
};

// A negative element that counted as 0 has no gradient.
PPOOL_HOST_DEVICE float unless_dropped(float slope, float x, bool is_signed) {
  return !is_signed && x < 0 ? 0.0f : slope;
}

// 2x2 windows at stride 2 share no element: each thread does the whole of a group of windows.
template <class At>
struct BackwardApart {
  using Storage = typename At::Storage;
  using Window = Square<2, 2, 0>;
  using Group = Patch<Storage, Window>;
  using Shared = PlaneMinimum;
  static constexpr int kBlocks = 0, kPhases = 2, kOut = Group::kOut;

  Problem problem;
  At at;
  bool whole_x, whole_y;
  int64_t rows, groups;  // enough for the elements that belong to no window, too
  Division division;

  BackwardApart(const Problem& p, const At& tensors)
      : problem(p),
        at(tensors),
        whole_x(rows_aligned(at.x, p.pool.w, 16) && rows_aligned(at.dx, p.pool.w, 16)),
        whole_y(rows_aligned(at.grad, p.out_w, kOut * sizeof(Storage)) &&
                rows_aligned(at.dalpha, p.out_w, kOut * sizeof(*at.dalpha))),
        rows((p.pool.h + 1) / 2),
        groups((p.pool.w + Group::kMiddle - 1) / Group::kMiddle),
        division{rows * groups, p.planes, 1, p.pool.is_signed != 0} {}

  PPOOL_HOST_DEVICE int64_t units() const { return division.units(); }
  PPOOL_HOST_DEVICE bool runs(int phase) const { return phase == 1 || division.by_plane; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t unit, int thread) const {
    if (phase == 0) {
      shared.find(at.x + unit * problem.plane_size(), problem.plane_size(), thread);
      return;
    }
    const float offset = division.by_plane ? shared.offset() : 0.0f;
    const int64_t end = division.end(unit);
    for (int64_t item = division.begin(unit) + thread; item < end; item += kThreads) {
      const int64_t plane = divide(item, division.items_of_plane);
      const int64_t rest = item - plane * division.items_of_plane, row = divide(rest, groups);
      finish({plane, row, (rest - row * groups) * kOut}, offset);
    }
  }

 private:
  PPOOL_HOST_DEVICE void finish(const Place& place, float offset) const {
    Group x;
    x.read(problem, at.x, place, whole_x);
    const int64_t start = (place.plane * problem.out_h + place.row) * problem.out_w + place.column;
    const int64_t valid = place.row < problem.out_h ? problem.out_w - place.column : 0;
    float grad[kOut], alpha[kOut], dalpha[kOut], dx[2][Group::kMiddle];
    load_run<kOut>(at.grad + start, valid, whole_y, grad);
    at.alpha.of(problem, x, place, start, valid, alpha);
    const int64_t row = place.row * 2, column = place.column * 2;
    const Pooled pooled{row, column, problem.pool.h, problem.pool.w, offset};
    PPOOL_UNROLL
    for (int i = 0; i < kOut; ++i) {
      const Values<4> values = x.window(i, pooled);
      const int64_t inside = problem.inside(0, row) * problem.inside(1, column + 2 * i);
      const Slopes slopes = Slopes::of(values, alpha[i], static_cast<float>(inside));
      dalpha[i] = grad[i] * slopes.dalpha(values);
      PPOOL_UNROLL
      for (int tap = 0; tap < 4; ++tap) {
        const float raw = x.at[tap / 2][i * 2 + tap % 2];
        const float slope = i < valid ? grad[i] * slopes.dx(values[tap]) : 0.0f;
        dx[tap / 2][i * 2 + tap % 2] = unless_dropped(slope, raw, division.by_plane);
      }
    }
    store_run<kOut>(dalpha, valid, whole_y, at.dalpha + start);
    PPOOL_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (row + i >= problem.pool.h) continue;
      Storage* line = at.dx + (place.plane * problem.pool.h + row + i) * problem.pool.w + column;
      store_run<Group::kMiddle>(dx[i], problem.pool.w - column, whole_x, line);
    }
  }
};

// 3x3 windows with padding 1 overlap: a block first works out what the windows that touch its tile
// of dx give each of their elements, then every element gathers. For planes that are not shifted.
template <class At, int stride>
struct BackwardTiled {
  using Storage = typename At::Storage;
  static_assert(stride == 1 || stride == 2, "the windows over an element are counted for these");
  static constexpr int kBlocks = 0, kPhases = 2, kTaps = 9;
  // Two windows a thread, a row of them a warp; nine words, an odd number, put neighbours in
  // different memory banks.
  static constexpr int kWindowRows = 16, kWindowColumns = 32;
  // Window o covers elements o * stride - 1 to o * stride + 1; kBefore start left of the tile.
  static constexpr int kBefore = stride == 1 ? 1 : 0;
  static constexpr int kRows = (kWindowRows - 1 - kBefore) * stride;
  static constexpr int kColumns = (kWindowColumns - 1 - kBefore) * stride;

  struct Shared {
    float gives[kWindowRows][kWindowColumns][kTaps];
  };

  Problem problem;
  At at;
  int64_t tiles_down, tiles_across;

  BackwardTiled(const Problem& p, const At& tensors)
      : problem(p),
        at(tensors),
        tiles_down((p.pool.h + kRows - 1) / kRows),
        tiles_across((p.pool.w + kColumns - 1) / kColumns) {}

  PPOOL_HOST_DEVICE int64_t units() const { return problem.planes * tiles_down * tiles_across; }
  PPOOL_HOST_DEVICE bool runs(int) const { return true; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t unit, int thread) const {
    const int64_t line = divide(unit, tiles_across), plane = divide(line, tiles_down);
    const int64_t top = (line - plane * tiles_down) * kRows;
    const int64_t left = (unit - line * tiles_across) * kColumns;
    if (phase == 0) {
      for (int i = thread; i < kWindowRows * kWindowColumns; i += kThreads) {
        const int row = i / kWindowColumns, column = i % kWindowColumns;
        const Place place{plane, top / stride - kBefore + row, left / stride - kBefore + column};
        give(place, top, left, shared.gives[row][column]);
      }
    } else {
      for (int i = thread; i < kRows * kColumns; i += kThreads) {
        const int row = i / kColumns, column = i % kColumns;
        if (top + row >= problem.pool.h || left + column >= problem.pool.w) continue;
        const int64_t element = (plane * problem.pool.h + top + row) * problem.pool.w + left + column;
        const float raw = to_float(at.x[element]);
        from_float(unless_dropped(gather(shared, row, column), raw, false), &at.dx[element]);
      }
    }
  }

 private:
  // What one window gives each of its elements, 0 where there is no such window.
  PPOOL_HOST_DEVICE void give(const Place& place, int64_t top, int64_t left,
                              float (&gives)[kTaps]) const {
    const bool in_rows = place.row >= 0 && place.row < problem.out_h;
    if (!in_rows || place.column < 0 || place.column >= problem.out_w) {
      PPOOL_UNROLL
      for (int tap = 0; tap < kTaps; ++tap) gives[tap] = 0;
      return;
    }
    const int64_t index = (place.plane * problem.out_h + place.row) * problem.out_w + place.column;
    const int64_t first_row = place.row * stride - 1, first_column = place.column * stride - 1;
    Values<kTaps> raw, values;
    const float inside = read(place.plane, first_row, first_column, &raw);
    PPOOL_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) values.at[tap] = shifted(raw[tap], 0.0f);
    const float exponent = alpha_of(at.alpha, problem, raw, place.plane, index);
    const Slopes slopes = Slopes::of(values, exponent, inside);
    const float grad = to_float(at.grad[index]);
    PPOOL_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) gives[tap] = grad * slopes.dx(values[tap]);
    // dalpha is left to the tile that holds the window's first element.
    const int64_t row = first_row < 0 ? 0 : first_row, column = first_column < 0 ? 0 : first_column;
    const bool own_row = row >= top && row < top + kRows;
    if (own_row && column >= left && column < left + kColumns) {
      from_float(grad * slopes.dalpha(values), &at.dalpha[index]);
    }
  }

  // The elements of a window, 0 outside the image; returns how many are inside.
  PPOOL_HOST_DEVICE float read(int64_t plane, int64_t first_row, int64_t first_column,
                               Values<kTaps>* raw) const {
    const int64_t height = problem.pool.h, width = problem.pool.w;
    const Storage* source = at.x + plane * problem.plane_size();
    int rows = 0, columns = 0;
    PPOOL_UNROLL
    for (int i = 0; i < 3; ++i) {
      const int64_t y = first_row + i;
      const bool row_inside = y >= 0 && y < height;
      const Storage* line = source + (row_inside ? y : 0) * width;
      rows += row_inside;
      columns = 0;
      PPOOL_UNROLL
      for (int j = 0; j < 3; ++j) {
        const int64_t x = first_column + j;
        const bool column_inside = x >= 0 && x < width;
        columns += column_inside;
        raw->at[i * 3 + j] = row_inside && column_inside ? to_float(line[x]) : 0.0f;
      }
    }
    return static_cast<float>(rows * columns);
  }

  // The first and last of the tile's windows that cover its row or column `element`.
  static PPOOL_HOST_DEVICE int first(int element) { return element / stride; }
  static PPOOL_HOST_DEVICE int last(int element) {
    return stride == 1 ? element + 2 : (element + 1) / 2;
  }
  // Which of a window's rows or columns the element is.
  static PPOOL_HOST_DEVICE int tap(int element, int window) {
    return element + 1 - (window - kBefore) * stride;
  }

  PPOOL_HOST_DEVICE float gather(const Shared& shared, int row, int column) const {
    float sum = 0;
    for (int i = first(row); i <= last(row); ++i) {
      for (int j = first(column); j <= last(column); ++j) {
        sum += shared.gives[i][j][tap(row, i) * 3 + tap(column, j)];
      }
    }
    return sum;
  }
};

// Any window: a thread for each element of dx works out again all windows that cover it, and one
// for each pooled element its dalpha.
template <class At>
struct BackwardAny {
  using Storage = typename At::Storage;
  using Shared = PlaneMinimum;
  static constexpr int kBlocks = 0, kPhases = 2;

  Problem problem;
  At at;
  Division division;

  BackwardAny(const Problem& p, const At& tensors)
      : problem(p),
        at(tensors),
        division{p.plane_size() + p.pooled_plane_size(), p.planes, 1, p.pool.is_signed != 0} {}

  PPOOL_HOST_DEVICE int64_t units() const { return division.units(); }
  PPOOL_HOST_DEVICE bool runs(int phase) const { return phase == 1 || division.by_plane; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t unit, int thread) const {
    if (phase == 0) {
      shared.find(at.x + unit * problem.plane_size(), problem.plane_size(), thread);
      return;
    }
    const float offset = division.by_plane ? shared.offset() : 0.0f;
    const int64_t end = division.end(unit), size = problem.plane_size();
    for (int64_t item = division.begin(unit) + thread; item < end; item += kThreads) {
      const int64_t plane = divide(item, division.items_of_plane);
      const int64_t rest = item - plane * division.items_of_plane;
      if (rest < size) {
        find_dx(plane, rest, offset);
      } else {
        find_dalpha(plane, rest - size, offset);
      }
    }
  }

 private:
  PPOOL_HOST_DEVICE Reader<Storage> reader(int64_t plane, int64_t row, int64_t column,
                                           float offset) const {
    return {problem.pool, at.x + plane * problem.plane_size(), problem.start(0, row),
            problem.start(1, column), offset};
  }

  PPOOL_HOST_DEVICE Slopes slopes(const Reader<Storage>& window, int64_t plane,
                                  int64_t index) const {
    const float alpha = alpha_of(at.alpha, problem, RawTaps<Storage>{window}, plane, index);
    const int64_t inside = problem.inside(0, window.row) * problem.inside(1, window.column);
    return Slopes::of(window, alpha, static_cast<float>(inside));
  }

  PPOOL_HOST_DEVICE void find_dalpha(int64_t plane, int64_t rest, float offset) const {
    const int64_t index = plane * problem.pooled_plane_size() + rest;
    const int64_t row = divide(rest, problem.out_w);
    const Reader<Storage> window = reader(plane, row, rest - row * problem.out_w, offset);
    const float slope = slopes(window, plane, index).dalpha(window);
    from_float(to_float(at.grad[index]) * slope, &at.dalpha[index]);
  }

  // The windows that cover an element are those that it is at distance tap * dilation into.
  PPOOL_HOST_DEVICE bool covered(int axis, int64_t element, int64_t tap, int64_t* out) const {
    const Pool2d& pool = problem.pool;
    const int64_t first = element + pool.padding[axis] - tap * pool.dilation[axis];
    if (first < 0) return false;
    *out = divide(first, pool.stride[axis]);
    const int64_t count = axis == 0 ? problem.out_h : problem.out_w;
    return *out * pool.stride[axis] == first && *out < count;
  }

  PPOOL_HOST_DEVICE void find_dx(int64_t plane, int64_t rest, float offset) const {
    const int64_t y = divide(rest, problem.pool.w), x = rest - y * problem.pool.w;
    const float raw = to_float(at.x[plane * problem.plane_size() + rest]);
    float sum = 0;
    for (int64_t i = 0; i < problem.pool.kernel[0]; ++i) {
      int64_t row;
      if (!covered(0, y, i, &row)) continue;
      for (int64_t j = 0; j < problem.pool.kernel[1]; ++j) {
        int64_t column;
        if (!covered(1, x, j, &column)) continue;
        const int64_t index = plane * problem.pooled_plane_size() + row * problem.out_w + column;
        const Slopes found = slopes(reader(plane, row, column, offset), plane, index);
        sum += to_float(at.grad[index]) * found.dx(shifted(raw, offset));
      }
    }
    const float kept = unless_dropped(sum, raw, division.by_plane);
    from_float(kept, &at.dx[plane * problem.plane_size() + rest]);
  }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_BACKWARD_H_
