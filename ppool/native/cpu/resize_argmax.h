// Half-pixel bilinear resizing of logits fused with the argmax over classes.
#ifndef PPOOL_CPU_RESIZE_ARGMAX_H_
#define PPOOL_CPU_RESIZE_ARGMAX_H_

#include <cstring>

#include "../ppool_jobs.h"
#include "rows.h"

namespace ppool::PPOOL_ISA {

// The two source elements that a resized one lies between, and the share of the second.
struct Between {
  int64_t low, high;
  double share;

  static Between of(int64_t target, int64_t length, int64_t target_length) {
    const double scaled = (static_cast<double>(target) + 0.5) * static_cast<double>(length);
    const double position = scaled / static_cast<double>(target_length) - 0.5;
    const double held = std::min(std::max(position, 0.0), static_cast<double>(length - 1));
    const int64_t low = static_cast<int64_t>(held);
    return {low, std::min(low + 1, length - 1), held - static_cast<double>(low)};
  }
};

// Works in strips of kStrip columns: a source row of every class is widened to the strip once and
// reused by all output rows that lie between it and its neighbour.
template <class V>
class ResizeArgMax {
  using Real = typename V::Real;
  using F = typename V::F;
  static constexpr int kStrip = 4 * 16;
  static constexpr int kVectors = 4;  // enough at a time to hide the latency of comparing

 public:
  ResizeArgMax(const ResizeArgMaxJob& job, const Elements<Real>& elements)
      : job_(job),
        elements_(elements),
        source_(take<Real>(job.w + V::kPicked)),
        rows_{take<Real>(job.classes * kStrip), take<Real>(job.classes * kStrip)},
        low_(take<int32_t>(kStrip)),
        high_(take<int32_t>(kStrip)),
        share_(take<Real>(kStrip)) {}

  // Rows [begin, end) of all images.
  void run(int64_t begin, int64_t end) {
    if (job_.h == job_.out_h && job_.w == job_.out_w) return run_unresized(begin, end);
    for (int64_t first = 0; first < job_.out_w; first += kStrip) {
      place(first);
      held_[0] = held_[1] = -1;
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t image = unit / job_.out_h * job_.h;
        const Between rows = Between::of(unit % job_.out_h, job_.h, job_.out_h);
        const int slot = slot_of(image + rows.low, 0);
        const Real* const upper = rows_[slot];
        const Real* const lower = rows_[slot_of(image + rows.high, 1 - slot)];
        const Real share(rows.share);
        const auto value = [&](int64_t at) {
          const F upper_share = V::load(upper + at) * V::set(1 - share);
          return V::mul_add(V::load(lower + at), V::set(share), upper_share);
        };
        label_row(value, unit * job_.out_w + first);
      }
    }
  }

 private:
  // Labels as large as the logits, which then need not be interpolated. Row by row, because memory
  // is what such a run waits for.
  void run_unresized(int64_t begin, int64_t end) {
    const auto value = [this](int64_t at) { return V::load(rows_[0] + at); };
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / job_.h, row = unit % job_.h;
      for (int64_t first = 0; first < job_.w; first += kStrip) {
        count_ = static_cast<int>(std::min<int64_t>(kStrip, job_.w - first));
        for (int64_t k = 0; k < job_.classes; ++k) {
          const int64_t start = ((image * job_.classes + k) * job_.h + row) * job_.w + first;
          elements_.load(job_.logits, start, count_, rows_[0] + k * kStrip);
        }
        label_row(value, unit * job_.w + first);
      }
    }
  }

  // Finds the source elements of the strip's columns, counted from the first that it reads for the
  // load, and for each vector from its own first.
  void place(int64_t first) {
    count_ = static_cast<int>(std::min<int64_t>(kStrip, job_.out_w - first));
    begin_ = Between::of(first, job_.w, job_.out_w).low;
    end_ = Between::of(first + count_ - 1, job_.w, job_.out_w).high + 1;
    near_ = true;
    for (int i = 0; i < kStrip; ++i) {
      // Lanes past the last column repeat it.
      const Between column = Between::of(first + std::min(i, count_ - 1), job_.w, job_.out_w);
      const int vector = i / V::kLanes, leader = vector * V::kLanes;
      if (i == leader) starts_[vector] = column.low - begin_;
      low_[i] = static_cast<int32_t>(column.low - begin_ - starts_[vector]);
      high_[i] = static_cast<int32_t>(column.high - begin_ - starts_[vector]);
      share_[i] = Real(column.share);
      near_ = near_ && high_[i] < V::kPicked;
    }
  }

  // Where the source row is held, widened; `spare` gives way if it is not yet.
  int slot_of(int64_t row, int spare) {
    if (held_[0] == row) return 0;
    if (held_[1] == row) return 1;
    held_[spare] = row;
    widen_row(row / job_.h, row % job_.h, rows_[spare]);
    return spare;
  }

  // One source row of every class, interpolated at the strip's columns.
  void widen_row(int64_t image, int64_t row, Real* lanes) const {
    for (int64_t k = 0; k < job_.classes; ++k, lanes += kStrip) {
      const int64_t start = ((image * job_.classes + k) * job_.h + row) * job_.w + begin_;
      elements_.load(job_.logits, start, end_ - begin_, source_);
      near_ ? widen<true>(lanes) : widen<false>(lanes);
    }
  }

  template <bool kNear>
  void widen(Real* lanes) const {
    // A vector's store may change any member, for all the compiler knows, but no local.
    const Real* const source = source_;
    const int32_t *const lows = low_, *const highs = high_;
    const Real* const shares = share_;
    const int count = count_;
    for (int first = 0; first < count; first += V::kLanes) {
      const Real* const from = source + starts_[first / V::kLanes];
      const F low = pick<kNear>(from, lows + first), high = pick<kNear>(from, highs + first);
      const F share = V::load(shares + first);
      V::store(lanes + first, V::mul_add(high, share, low * (V::set(1) - share)));
    }
  }

  template <bool kNear>
  static F pick(const Real* from, const int32_t* index) {
    if constexpr (kNear) {
      return V::pick(from, index);
    } else {
      Real lanes[V::kLanes];
      for (int lane = 0; lane < V::kLanes; ++lane) lanes[lane] = from[index[lane]];
      return V::load(lanes);
    }
  }

  // `value` gives a vector of logits by its place among the widened ones, [classes, kStrip]; the
  // labels go to place `at` and on.
  template <class Value>
  void label_row(const Value& value, int64_t at) const {
    if (job_.is_wide()) {
      label_strip(value, static_cast<uint16_t*>(job_.labels) + at);
    } else {
      label_strip(value, static_cast<uint8_t*>(job_.labels) + at);
    }
  }

  template <class Value, class Label>
  void label_strip(const Value& value, Label* labels) const {
    constexpr int kStep = kVectors * V::kLanes;
    for (int first = 0; first < count_; first += kStep) {
      F best[kVectors], label[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        best[i] = value(first + i * V::kLanes);
        label[i] = V::set(0);
      }
      for (int64_t k = 1; k < job_.classes; ++k) {
        const F mark = V::set(static_cast<Real>(k));
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) {
          const F next = value(k * kStrip + first + i * V::kLanes);
          label[i] = V::if_less(best[i], next, mark, label[i]);  // the first class keeps a tie
          best[i] = V::max(next, best[i]);  // which passes a NaN over
        }
      }
      Label narrow[kStep];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) store(narrow + i * V::kLanes, label[i]);
      std::memcpy(labels + first, narrow, sizeof(Label) * std::min(kStep, count_ - first));
    }
  }

  static void store(uint8_t* to, F label) { V::store_bytes(to, label); }
  static void store(uint16_t* to, F label) {
    Real lanes[V::kLanes];
    V::store(lanes, label);
    for (int lane = 0; lane < V::kLanes; ++lane) to[lane] = static_cast<uint16_t>(lanes[lane]);
  }

  const ResizeArgMaxJob& job_;
  const Elements<Real>& elements_;
  Real* source_;  // what the strip reads of one row
  Real* rows_[2];
  int32_t* low_;
  int32_t* high_;
  Real* share_;
  int64_t held_[2];
  int64_t starts_[kStrip / V::kLanes];
  int64_t begin_ = 0, end_ = 0;
  int count_ = 0;
  bool near_ = false;  // every vector reads fewer neighbours than V::pick takes
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_RESIZE_ARGMAX_H_
