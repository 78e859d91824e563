// Half-pixel bilinear resizing of logits, as far as somebody looks at it.
#ifndef PPOOL_CPU_RESIZED_H_
#define PPOOL_CPU_RESIZED_H_

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

// from[index[i]]; with kNear every index is below V::kPicked.
template <class V, bool kNear>
typename V::F pick(const typename V::Real* from, const int32_t* index) {
  if constexpr (kNear) {
    return V::pick(from, index);
  } else {
    typename V::Real lanes[V::kLanes];
    for (int lane = 0; lane < V::kLanes; ++lane) lanes[lane] = from[index[lane]];
    return V::load(lanes);
  }
}

// The class of the largest of a vector of logits for each of `places`; `value` gives them by class
// and place.
template <class V, int kCount, class Value>
void largest(int64_t classes, const Value& value, const int* places, typename V::F* labels) {
  typename V::F best[kCount], label[kCount];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) {
    best[i] = value(0, places[i]);
    label[i] = V::set(0);
  }
  for (int64_t k = 1; k < classes; ++k) {
    const typename V::F mark = V::set(static_cast<typename V::Real>(k));
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      const typename V::F next = value(k, places[i]);
      label[i] = V::if_less(best[i], next, mark, label[i]);  // the first class keeps a tie
      best[i] = V::max(next, best[i]);  // which passes a NaN over
    }
  }
  for (int i = 0; i < kCount; ++i) labels[i] = label[i];
}

// The class of the largest of each of `count` columns of a row, rows of the classes `span` apart;
// room is for whole vectors.
template <class V>
void label_columns(int64_t classes, const typename V::Real* row, int64_t span, int64_t count,
                   typename V::Real* to) {
  for (int64_t first = 0; first < count; first += V::kLanes) {
    const auto value = [=](int64_t k, int at) { return V::load(row + k * span + first + at); };
    const int place[1] = {0};
    typename V::F label[1];
    largest<V, 1>(classes, value, place, label);
    V::store(to + first, label[0]);
  }
}

// The class that all of [first, last] are, or -1.
template <class Label>
int32_t alike(const Label* labels, int64_t first, int64_t last) {
  const Label one = labels[first];
  for (int64_t i = first + 1; i <= last; ++i) {
    if (labels[i] != one) return -1;
  }
  return static_cast<int32_t>(one);
}

// Logits [n, classes, h, w] resized to `last.h` x `last.w`, in strips of their columns, from top to
// bottom. Only what is asked for is interpolated: of every class, V::kLanes columns at a time.
template <class V>
class Resized {
  using Real = typename V::Real;
  using F = typename V::F;
  static constexpr int kHeld = 4;  // two neighbouring rows lie between no more

 public:
  // For who reads `span` columns in a strip at most.
  Resized(const ResizeTwiceJob& job, const Elements<Real>& elements, int64_t span)
      : job_(job),
        elements_(elements),
        span_(std::min(job.w, span * job.w / job.last.w + 3) + V::kPicked),
        labels_(take<uint8_t>(job.last.n * job.h * job.w + V::kLanes)),
        low_(take<int32_t>(span + V::kLanes)),
        high_(take<int32_t>(span + V::kLanes)),
        starts_(take<int32_t>(span / V::kLanes + 1)),
        share_(take<Real>(span + V::kLanes)) {
    for (Row& row : held_) row.copy = take<Real>(job.last.classes * span_ + V::kLanes);
  }

  // Labels all logits that the rows [begin, end) lie between. In the order that they are stored, as
  // planes whose size is a power of two are in each other's way in the caches.
  void label(int64_t begin, int64_t end) {
    const int64_t classes = job_.last.classes, plane = job_.h * job_.w;
    Real* const row = take<Real>(classes * job_.w + V::kLanes);
    Real* const labels = take<Real>(job_.w + V::kLanes);
    enter(end - 1);
    const int64_t last = lower_;
    enter(begin);
    for (int64_t number = upper_; number <= last; ++number) {
      const int64_t start = number / job_.h * classes * plane + number % job_.h * job_.w;
      for (int64_t k = 0; k < classes; ++k) {
        elements_.load(job_.last.logits, start + k * plane, job_.w, row + k * job_.w);
      }
      label_columns<V>(classes, row, job_.w, job_.w, labels);
      for (int64_t i = 0; i < job_.w; ++i) {
        labels_[number * job_.w + i] = static_cast<uint8_t>(labels[i]);
      }
    }
  }

  // Begins a strip of the columns [begin, end).
  void place(int64_t begin, int64_t end) {
    for (Row& row : held_) row.number = -1;
    begin_ = Between::of(begin, job_.w, job_.last.w).low;
    end_ = Between::of(end - 1, job_.w, job_.last.w).high + 1;
    near_ = true;
    int32_t start = 0;
    for (int64_t i = 0; i < end - begin + V::kLanes - 1; ++i) {
      // Lanes past the last column repeat it.
      const Between column = Between::of(std::min(begin + i, end - 1), job_.w, job_.last.w);
      if (i % V::kLanes == 0) {
        start = starts_[i / V::kLanes] = static_cast<int32_t>(column.low - begin_);
      }
      low_[i] = static_cast<int32_t>(column.low - begin_) - start;
      high_[i] = static_cast<int32_t>(column.high - begin_) - start;
      share_[i] = Real(column.share);
      near_ = near_ && high_[i] < V::kPicked;
    }
  }

  // Goes on to a row, counted through all images.
  void enter(int64_t row) {
    const int64_t image = row / job_.last.h * job_.h;
    const Between rows = Between::of(row % job_.last.h, job_.h, job_.last.h);
    upper_ = image + rows.low;
    lower_ = image + rows.high;
    down_ = Real(rows.share);
  }

  // The class that is the largest of all logits that columns [first, last] of the row lie between,
  // counted from the strip's first; or -1.
  int32_t alike(int64_t first, int64_t last) const {
    const int64_t from = begin_ + starts_[first / V::kLanes] + low_[first];
    const int64_t to = begin_ + starts_[last / V::kLanes] + high_[last];
    const int32_t above = PPOOL_ISA::alike(labels_ + upper_ * job_.w, from, to);
    return PPOOL_ISA::alike(labels_ + lower_ * job_.w, from, to) == above ? above : -1;
  }

  // Interpolates V::kLanes columns of the row from `first` on, which is a multiple of that, of all
  // classes, `span` apart.
  void fill(int64_t first, int64_t span, Real* to) {
    near_ ? fill_from<true>(first, span, to) : fill_from<false>(first, span, to);
  }

 private:
  // A row of the logits as they are, as far as the strip reads it.
  struct Row {
    Real* copy;  // [classes, span_]
    const Real* source = nullptr;  // the copy, or where they lie; rows of classes are `apart`
    int64_t apart = 0;
    int64_t number = -1;
  };

  const Row& held(int64_t number) {
    Row* oldest = held_;
    for (Row& row : held_) {
      if (row.number == number) return row;
      if (row.number < oldest->number) oldest = &row;
    }
    read(number, *oldest);
    oldest->number = number;
    return *oldest;
  }

  void read(int64_t number, Row& to) const {
    const int64_t classes = job_.last.classes, plane = job_.h * job_.w;
    const int64_t start = number / job_.h * classes * plane + number % job_.h * job_.w + begin_;
    const int64_t last = start + (classes - 1) * plane;
    // Whole vectors are read, which must not end behind the last element.
    if (elements_.bytes == sizeof(Real) && last + span_ <= job_.last.n * classes * plane) {
      to.source = static_cast<const Real*>(job_.last.logits) + start;
      to.apart = plane;
      return;
    }
    for (int64_t k = 0; k < classes; ++k) {
      elements_.load(job_.last.logits, start + k * plane, end_ - begin_, to.copy + k * span_);
    }
    to.source = to.copy;
    to.apart = span_;
  }

  template <bool kNear>
  void fill_from(int64_t first, int64_t span, Real* __restrict to) {
    const Row &upper = held(upper_), &lower = held(lower_);
    const int32_t start = starts_[first / V::kLanes];
    const Real *above = upper.source + start, *below = lower.source + start;
    const int64_t above_apart = upper.apart, below_apart = lower.apart;
    const int32_t *const low = low_ + first, *const high = high_ + first;
    const F share = V::load(share_ + first), rest = V::set(1) - share;
    const F down = V::set(down_), up = V::set(1) - down;
    const auto between = [&](const int32_t* at) {
      return V::mul_add(pick<V, kNear>(below, at), down, pick<V, kNear>(above, at) * up);
    };
    for (int64_t k = 0; k < job_.last.classes; ++k, to += span) {
      V::store(to, V::mul_add(between(high), share, between(low) * rest));
      above += above_apart;
      below += below_apart;
    }
  }

  const ResizeTwiceJob& job_;
  const Elements<Real>& elements_;
  int64_t span_;  // columns of the logits that a strip reads at most, and what V::pick reads beyond
  Row held_[kHeld];
  uint8_t* labels_;  // the largest class of every logit
  int32_t* low_;
  int32_t* high_;
  int32_t* starts_;  // of each vector of columns, which low_ and high_ are counted from
  Real* share_;
  int64_t begin_ = 0, end_ = 0;
  int64_t upper_ = 0, lower_ = 0;  // rows of logits that the row lies between
  Real down_ = 0;                  // the share of the lower one
  bool near_ = false;  // every vector reads fewer neighbours than V::pick takes
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_RESIZED_H_
