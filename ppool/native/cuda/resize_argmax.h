// Half-pixel bilinear resizing of logits fused with the argmax over classes.
#ifndef PPOOL_CUDA_RESIZE_ARGMAX_H_
#define PPOOL_CUDA_RESIZE_ARGMAX_H_

#include "../ppool_jobs.h"
#include "element.h"

namespace ppool::cuda {

// The two source elements that a resized one lies between, and the share of the second; in
// integers, because a GPU divides doubles slowly.
struct Between {
  int64_t low, high;
  float share;

  static PPOOL_HOST_DEVICE Between of(int64_t target, int64_t length, int64_t target_length) {
    const int64_t whole = 2 * target_length, most = (length - 1) * whole;
    int64_t position = (2 * target + 1) * length - target_length;  // in 1 / whole of an element
    position = position < 0 ? 0 : (position > most ? most : position);
    const int64_t low = divide(position, whole);
    const float share = static_cast<float>(position - low * whole) / static_cast<float>(whole);
    return {low, low + 1 < length ? low + 1 : low, share};
  }
};

// Each thread labels kRows elements, one above the other, and meets every class once. While they
// lie between three neighbouring source rows, as when enlarging, each class costs six reads.
template <class Storage>
struct ResizeArgMax {
  struct Shared {};
  static constexpr int kBlocks = 0, kPhases = 1, kRows = 4;

  ResizeArgMaxJob job;
  const Storage* logits;
  int64_t strips;  // of kRows rows

  explicit ResizeArgMax(const ResizeArgMaxJob& j)
      : job(j),
        logits(static_cast<const Storage*>(j.logits)),
        strips((j.out_h + kRows - 1) / kRows) {}

  PPOOL_HOST_DEVICE int64_t items() const { return job.n * strips * job.out_w; }
  PPOOL_HOST_DEVICE int64_t units() const { return (items() + kThreads - 1) / kThreads; }
  PPOOL_HOST_DEVICE bool runs(int) const { return true; }

  PPOOL_HOST_DEVICE void run(int, Shared&, int64_t unit, int thread) const {
    const int64_t item = unit * kThreads + thread;
    if (item >= items()) return;
    const int64_t line = divide(item, job.out_w), image = divide(line, strips);
    const int64_t top = (line - image * strips) * kRows, column = item - line * job.out_w;
    const Columns across = columns_of(Between::of(column, job.w, job.out_w));
    Between down[kRows];
    PPOOL_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const int64_t row = top + i < job.out_h ? top + i : job.out_h - 1;
      down[i] = Between::of(row, job.h, job.out_h);
    }
    int label[kRows];
    const Storage* source = logits + image * job.classes * job.h * job.w;
    if (down[kRows - 1].high <= down[0].low + 2) {
      label_near(source, across, down, label);
    } else {
      label_any(source, across, down, label);
    }
    const int64_t first = (image * job.out_h + top) * job.out_w + column;
    const int rows = static_cast<int>(job.out_h - top < kRows ? job.out_h - top : kRows);
    if (job.is_wide()) {
      store(static_cast<uint16_t*>(job.labels) + first, label, rows);
    } else {
      store(static_cast<uint8_t*>(job.labels) + first, label, rows);
    }
  }

 private:
  template <class Label>
  PPOOL_HOST_DEVICE void store(Label* labels, const int (&label)[kRows], int rows) const {
    PPOOL_UNROLL
    for (int i = 0; i < kRows; ++i) {
      if (i < rows) labels[i * job.out_w] = static_cast<Label>(label[i]);
    }
  }

  // Where the thread's column of a plane is read: two places in each row, and the second's share.
  struct Columns {
    int64_t low, high;
    float share;
  };

  PPOOL_HOST_DEVICE Columns columns_of(const Between& across) const {
    return {place(across.low, 1), place(across.high, 1), across.share};
  }

  PPOOL_HOST_DEVICE int64_t line_of(int64_t row) const { return place(row, job.w); }

  // How far a row or column is from the first, by the length of one; those of blocks are stored
  // apart, the rows of a block further than its columns.
  PPOOL_HOST_DEVICE int64_t place(int64_t index, int64_t length) const {
    if (job.side <= 1) return index * length;
    const int64_t cell = divide(index, job.side), inside = index - cell * job.side;
    const int64_t apart = divide(job.h, job.side) * divide(job.w, job.side);
    if (length == 1) return inside * apart + cell;
    return inside * job.side * apart + cell * divide(length, job.side);
  }

  // A source row at the thread's column.
  static PPOOL_HOST_DEVICE float at(const Storage* line, const Columns& columns) {
    const float left = to_float(line[columns.low]), right = to_float(line[columns.high]);
    return left * (1 - columns.share) + right * columns.share;
  }

  static PPOOL_HOST_DEVICE void keep_larger(float value, int64_t k, float* best, int* label) {
    const bool wins = k == 0 || value > *best;  // strictly: the first class keeps a tie
    *best = wins ? value : *best;
    *label = wins ? static_cast<int>(k) : *label;
  }

  PPOOL_HOST_DEVICE void label_near(const Storage* source, const Columns& columns,
                                    const Between (&down)[kRows], int (&label)[kRows]) const {
    const int64_t low = down[0].low, middle = low + 1 < job.h ? low + 1 : low;
    const int64_t high = middle + 1 < job.h ? middle + 1 : middle;
    const int64_t lines[3] = {line_of(low), line_of(middle), line_of(high)};
    float best[kRows] = {};
    for (int64_t k = 0; k < job.classes; ++k) {
      const Storage* plane = source + k * job.h * job.w;
      const float rows[3] = {at(plane + lines[0], columns), at(plane + lines[1], columns),
                             at(plane + lines[2], columns)};
      PPOOL_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const bool upper = down[i].low == low;
        const float first = upper ? rows[0] : (down[i].low == middle ? rows[1] : rows[2]);
        const float second = upper ? rows[1] : rows[2];
        keep_larger(first * (1 - down[i].share) + second * down[i].share, k, &best[i], &label[i]);
      }
    }
  }

  PPOOL_HOST_DEVICE void label_any(const Storage* source, const Columns& columns,
                                   const Between (&down)[kRows], int (&label)[kRows]) const {
    int64_t above[kRows], below[kRows];
    PPOOL_UNROLL
    for (int i = 0; i < kRows; ++i) {
      above[i] = line_of(down[i].low);
      below[i] = line_of(down[i].high);
    }
    float best[kRows] = {};
    for (int64_t k = 0; k < job.classes; ++k) {
      const Storage* plane = source + k * job.h * job.w;
      PPOOL_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const float first = at(plane + above[i], columns);
        const float second = at(plane + below[i], columns);
        keep_larger(first * (1 - down[i].share) + second * down[i].share, k, &best[i], &label[i]);
      }
    }
  }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_RESIZE_ARGMAX_H_
