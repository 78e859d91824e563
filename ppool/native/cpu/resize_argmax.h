// Half-pixel bilinear resizing of logits fused with the argmax over classes.
#ifndef PPOOL_CPU_RESIZE_ARGMAX_H_
#define PPOOL_CPU_RESIZE_ARGMAX_H_

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
  ResizeArgMax(const ResizeArgMaxJob& job, const Elements<Real>& elements, Pieces& pieces)
      : job_(job),
        elements_(elements),
        source_(pieces.take<Real>(job.w)),
        upper_(pieces.take<Real>(job.classes * kStrip)),
        lower_(pieces.take<Real>(job.classes * kStrip)),
        low_(pieces.take<int64_t>(kStrip)),
        high_(pieces.take<int64_t>(kStrip)),
        share_(pieces.take<Real>(kStrip)) {}

  // Rows [begin, end) of all images.
  void run(int64_t begin, int64_t end) {
    for (int64_t first = 0; first < job_.out_w; first += kStrip) {
      count_ = static_cast<int>(std::min<int64_t>(kStrip, job_.out_w - first));
      for (int i = 0; i < count_; ++i) {
        const Between column = Between::of(first + i, job_.w, job_.out_w);
        low_[i] = column.low;
        high_[i] = column.high;
        share_[i] = Real(column.share);
      }
      int64_t image = -1, upper = -1, lower = -1;
      for (int64_t unit = begin; unit < end; ++unit) {
        const Between rows = Between::of(unit % job_.out_h, job_.h, job_.out_h);
        if (image != unit / job_.out_h || upper != rows.low || lower != rows.high) {
          image = unit / job_.out_h;
          upper = rows.low;
          lower = rows.high;
          widen_row(image, upper, upper_);
          widen_row(image, lower, lower_);
        }
        label_row(Real(rows.share), job_.labels + unit * job_.out_w + first);
      }
    }
  }

 private:
  // One source row of every class, interpolated at the strip's columns.
  void widen_row(int64_t image, int64_t row, Real* lanes) const {
    for (int64_t k = 0; k < job_.classes; ++k, lanes += kStrip) {
      elements_.load(job_.logits, ((image * job_.classes + k) * job_.h + row) * job_.w, job_.w,
                     source_);
      for (int i = 0; i < count_; ++i) {
        const Real share = share_[i];
        lanes[i] = source_[low_[i]] * (1 - share) + source_[high_[i]] * share;
      }
    }
  }

  void label_row(Real share, uint8_t* labels) const {
    constexpr int kStep = kVectors * V::kLanes;
    for (int first = 0; first < count_; first += kStep) {
      F best[kVectors], label[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        best[i] = value(0, first + i * V::kLanes, share);
        label[i] = V::set(0);
      }
      for (int64_t k = 1; k < job_.classes; ++k) {
        const F mark = V::set(static_cast<Real>(k));
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) {
          const F next = value(k, first + i * V::kLanes, share);
          label[i] = V::if_less(best[i], next, mark, label[i]);  // the first class keeps a tie
          best[i] = V::max(next, best[i]);  // which passes a NaN over
        }
      }
      Real lanes[kStep];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) V::store(lanes + i * V::kLanes, label[i]);
      const int stop = std::min(kStep, count_ - first);
      for (int i = 0; i < stop; ++i) labels[first + i] = static_cast<uint8_t>(lanes[i]);
    }
  }

  F value(int64_t k, int column, Real share) const {
    const F upper = V::load(upper_ + k * kStrip + column);
    const F lower = V::load(lower_ + k * kStrip + column);
    return V::mul_add(lower, V::set(share), upper * V::set(1 - share));
  }

  const ResizeArgMaxJob& job_;
  const Elements<Real>& elements_;
  Real* source_;  // one row as it is
  Real* upper_;
  Real* lower_;
  int64_t* low_;
  int64_t* high_;
  Real* share_;
  int count_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_RESIZE_ARGMAX_H_
