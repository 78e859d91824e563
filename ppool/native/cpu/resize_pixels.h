// Photos resized as Pillow does it, to the bit: along rows, rounded, then along columns, or the other
// way around.
#ifndef PPOOL_CPU_RESIZE_PIXELS_H_
#define PPOOL_CPU_RESIZE_PIXELS_H_

#include <cstring>

#include "../ppool_jobs.h"
#include "scratch.h"

namespace ppool::PPOOL_ISA {

constexpr int kTurned = 16;  // rows and columns at a time

#if defined(__GNUC__)

typedef uint8_t Sixteen __attribute__((vector_size(16)));

#if defined(__clang__)
#define PPOOL_INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PPOOL_INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, Sixteen{__VA_ARGS__})
#endif

// Turns rows of bytes into columns, [kTurned, kTurned].
inline void transpose(uint8_t* bytes) {
  Sixteen rows[kTurned];
  std::memcpy(rows, bytes, sizeof(rows));
  for (int step = 0; step < 4; ++step) {
    Sixteen mixed[kTurned];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const Sixteen a = rows[i], b = rows[i + 8];
      mixed[2 * i] =
          PPOOL_INTERLEAVE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      mixed[2 * i + 1] =
          PPOOL_INTERLEAVE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kTurned; ++i) rows[i] = mixed[i];
  }
  std::memcpy(bytes, rows, sizeof(rows));
}

#undef PPOOL_INTERLEAVE

#else

inline void transpose(uint8_t* bytes) {
  for (int i = 0; i < kTurned; ++i) {
    for (int j = 0; j < i; ++j) std::swap(bytes[i * kTurned + j], bytes[j * kTurned + i]);
  }
}

#endif

// Along rows first, rows are resized as the result comes to need them, and kept in a ring that fits the
// processor's caches. Along columns first, each row of the result is a row of the photo's width before.
template <class V>
class ResizePixels {
  using Sum = typename V::Sum;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kRows = kTurned;  // resized at a time along rows, each in a lane of its own
  static constexpr int kVectors = 4;
  static constexpr int kChunk = kVectors * kLanes;
  static constexpr int kPad = 64;  // no less than any of these, and 3 * kRows

 public:
  explicit ResizePixels(const ResizePixelsJob& job)
      : job_(job),
        length_(3 * job.out_w),
        stride_(padded(3 * (job.out_w + kRows))),
        held_(job.down.reach + kRows),
        ring_(take<uint8_t>(held_ * stride_)),
        columns_(take<uint8_t>(kRows * padded(3 * job.w))),
        rows_(take<const uint8_t*>(job.down.reach)),
        wide_(job.down_first ? take<uint8_t>(kRows * padded(3 * job.w)) : nullptr),
        ends_(std::max<int64_t>(job.h - kPad / (3 * job.w) - 1, 0)),
        end_(take<uint8_t>(3 * job.w * (job.h - ends_) + kPad)) {
    // Whole vectors are read of rows: of the last ones in a copy.
    std::memcpy(end_, job.pixels + 3 * job.w * ends_, 3 * job.w * (job.h - ends_));
  }

  // Rows [begin, end) of the result.
  void run(int64_t begin, int64_t end) {
    if (job_.down_first) return run_down_first(begin, end);
    const auto held = [this](int64_t row) { return slot(row); };
    int64_t next = job_.down.first[begin];
    for (int64_t y = begin; y < end; ++y) {
      const int64_t stop = job_.down.first[y] + job_.down.count[y];
      for (; next < stop; next += kRows) {
        across([=](int i) { return row(std::min(next + i, job_.h - 1)); }, next);
      }
      down(y, length_, held, job_.result + y * length_);
    }
  }

 private:
  static int64_t padded(int64_t length) { return (length / kPad + 1) * kPad; }

  uint8_t* slot(int64_t row) const { return ring_ + row % held_ * stride_; }

  const uint8_t* row(int64_t y) const {
    return y < ends_ ? job_.pixels + 3 * job_.w * y : end_ + 3 * job_.w * (y - ends_);
  }

  void run_down_first(int64_t begin, int64_t end) const {
    const int64_t length = 3 * job_.w, stride = padded(length);
    const auto source = [this](int64_t y) { return row(y); };
    for (int64_t y = begin; y < end; y += kRows) {
      const int count = static_cast<int>(std::min<int64_t>(kRows, end - y));
      for (int i = 0; i < count; ++i) down(y + i, length, source, wide_ + i * stride);
      across([=](int i) { return wide_ + std::min(i, count - 1) * stride; }, 0);
      for (int i = 0; i < count; ++i) {
        std::memcpy(job_.result + (y + i) * length_, slot(i), length_);
      }
    }
  }

  // Resizes rows, each of which `source` gives, into the ring at `first` and on.
  template <class Source>
  void across(const Source& source, int64_t first) const {
    const Taps& taps = job_.across;
    const uint8_t* from[kRows];
    uint8_t* to[kRows];
    for (int i = 0; i < kRows; ++i) {
      from[i] = source(i);
      to[i] = slot(first + i);
    }
    int64_t turned = 0;  // bytes of each row that are in columns_
    for (int64_t begin = 0; begin < job_.out_w; begin += kRows) {
      uint8_t made[3 * kRows * kRows] = {};
      const int64_t end = std::min<int64_t>(begin + kRows, job_.out_w);
      for (int64_t x = begin; x < end; ++x) {
        const int64_t stop = 3 * (taps.first[x] + taps.count[x]);
        for (; turned < stop; turned += kRows) turn(from, turned);
        weigh(x, made + 3 * kRows * (x - begin));
      }
      for (int part = 0; part < 3; ++part) {
        uint8_t* const square = made + part * kRows * kRows;
        transpose(square);
        for (int i = 0; i < kRows; ++i) {
          std::memcpy(to[i] + 3 * begin + part * kRows, square + i * kRows, kRows);
        }
      }
    }
  }

  void turn(const uint8_t* const* from, int64_t at) const {
    uint8_t* const square = columns_ + kRows * at;
    for (int i = 0; i < kRows; ++i) std::memcpy(square + i * kRows, from[i] + at, kRows);
    transpose(square);
  }

  // A new pixel of kRows rows, [3, kRows].
  void weigh(int64_t x, uint8_t* to) const {
    const Taps& taps = job_.across;
    const int32_t* const weights = taps.weights + x * taps.reach;
    const uint8_t* from = columns_ + 3 * kRows * static_cast<int64_t>(taps.first[x]);
    const int32_t count = taps.count[x];
    constexpr int kSums = 3 * kRows / kLanes;
    Sum sums[kSums];
    for (Sum& sum : sums) sum = V::half();
    for (int32_t tap = 0; tap < count; ++tap, from += 3 * kRows) {
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) {
        sums[i] = V::add_bytes(sums[i], from + i * kLanes, weights[tap]);
      }
    }
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) V::store_levels(to + i * kLanes, sums[i]);
  }

  // Row `y` of the result, of rows that `source` gives.
  template <class Source>
  void down(int64_t y, int64_t length, const Source& source, uint8_t* to) const {
    const Taps& taps = job_.down;
    const int32_t* const weights = taps.weights + y * taps.reach;
    const int32_t count = taps.count[y];
    for (int32_t tap = 0; tap < count; ++tap) rows_[tap] = source(taps.first[y] + tap);
    const uint8_t* const* const rows = rows_;
    for (int64_t first = 0; first < length; first += kChunk) {
      Sum sums[kVectors];
      for (Sum& sum : sums) sum = V::half();
      for (int32_t tap = 0; tap < count; ++tap) {
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) {
          sums[i] = V::add_bytes(sums[i], rows[tap] + first + i * kLanes, weights[tap]);
        }
      }
      uint8_t bytes[kChunk];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) V::store_levels(bytes + i * kLanes, sums[i]);
      std::memcpy(to + first, bytes, std::min<int64_t>(kChunk, length - first));
    }
  }

  const ResizePixelsJob& job_;
  int64_t length_, stride_;  // bytes of a row of the result, and of the ring
  int64_t held_;             // rows of the ring
  uint8_t* ring_;
  uint8_t* columns_;  // of kRows rows, [3 w, kRows]
  const uint8_t** rows_;
  uint8_t* wide_;  // rows of the photo's width
  int64_t ends_;   // the first row of the copy
  uint8_t* end_;
};

template <class V>
void run_resize_pixels(const void* pointer, int64_t begin, int64_t end) {
  begin_scratch();
  ResizePixels<V>(*static_cast<const ResizePixelsJob*>(pointer)).run(begin, end);
}

// None for vectors of doubles, which have no bytes.
template <class V>
constexpr Run resize_pixels() {
  if constexpr (std::is_same_v<typename V::Real, float>) {
    return run_resize_pixels<V>;
  } else {
    return nullptr;
  }
}

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_RESIZE_PIXELS_H_
