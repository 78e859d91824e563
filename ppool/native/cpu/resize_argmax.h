// Half-pixel bilinear resizing of logits fused with the argmax over classes.
#ifndef PPOOL_CPU_RESIZE_ARGMAX_H_
#define PPOOL_CPU_RESIZE_ARGMAX_H_

#include <algorithm>
#include <vector>

#include "block.h"
#include "launch.h"

namespace ppool {

// The two source elements that a resized one lies between, and the share of the second.
struct Between {
  int64_t low, high;
  double share;

  Between(int64_t target, int64_t length, int64_t target_length) {
    const double scaled = (static_cast<double>(target) + 0.5) * static_cast<double>(length);
    const double position = scaled / static_cast<double>(target_length) - 0.5;
    const double held = std::min(std::max(position, 0.0), static_cast<double>(length - 1));
    low = static_cast<int64_t>(held);
    high = std::min(low + 1, length - 1);
    share = held - static_cast<double>(low);
  }
};

// Works in strips of kLanes columns: a source row of every class is widened to the strip once and
// reused by all output rows that lie between it and its neighbour.
template <class Storage>
class ResizeArgMax {
 public:
  using Real = Compute<Storage>;

  explicit ResizeArgMax(const ResizeArgMaxJob& job)
      : job_(job), upper_(job.classes * kLanes), lower_(job.classes * kLanes) {}

  // Rows [begin, end) of all images.
  PPOOL_HOST_DEVICE void run(int64_t begin, int64_t end) {
    for (int64_t first = 0; first < job_.out_w; first += kLanes) {
      columns_.clear();
      for (int64_t x = first; x < std::min(first + kLanes, job_.out_w); ++x) {
        columns_.emplace_back(x, job_.w, job_.out_w);
      }
      int64_t image = -1, upper = -1, lower = -1;
      for (int64_t unit = begin; unit < end; ++unit) {
        const Between rows(unit % job_.out_h, job_.h, job_.out_h);
        if (image != unit / job_.out_h || upper != rows.low || lower != rows.high) {
          image = unit / job_.out_h;
          upper = rows.low;
          lower = rows.high;
          widen_row(image, upper, upper_.data());
          widen_row(image, lower, lower_.data());
        }
        label_row(Real(rows.share), job_.labels + unit * job_.out_w + first);
      }
    }
  }

 private:
  // One source row of every class, interpolated at the strip's columns.
  PPOOL_HOST_DEVICE void widen_row(int64_t image, int64_t row, Real* lanes) const {
    const Storage* source = static_cast<const Storage*>(job_.logits);
    source += (image * job_.classes * job_.h + row) * job_.w;
    for (int64_t k = 0; k < job_.classes; ++k, source += job_.h * job_.w, lanes += kLanes) {
      for (size_t i = 0; i < columns_.size(); ++i) {
        const Between& column = columns_[i];
        const Real share = Real(column.share);
        lanes[i] = widen(source[column.low]) * (1 - share) + widen(source[column.high]) * share;
      }
    }
  }

  PPOOL_HOST_DEVICE void label_row(Real share, uint8_t* labels) const {
    const int count = static_cast<int>(columns_.size());
    alignas(64) Real best[kLanes];
    alignas(64) int32_t label[kLanes] = {};
    for (int64_t k = 0; k < job_.classes; ++k) {
      const Real* upper = upper_.data() + k * kLanes;
      const Real* lower = lower_.data() + k * kLanes;
      for (int i = 0; i < count; ++i) {
        const Real value = upper[i] * (1 - share) + lower[i] * share;
        const bool wins = (k == 0) | (value > best[i]);  // strictly: the first class keeps a tie
        best[i] = wins ? value : best[i];
        label[i] = wins ? static_cast<int32_t>(k) : label[i];
      }
    }
    for (int i = 0; i < count; ++i) labels[i] = static_cast<uint8_t>(label[i]);
  }

  const ResizeArgMaxJob& job_;
  std::vector<Real> upper_, lower_;
  std::vector<Between> columns_;
};

}  // namespace ppool

#endif  // PPOOL_CPU_RESIZE_ARGMAX_H_
