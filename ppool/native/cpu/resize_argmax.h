// Half-pixel bilinear resizing of logits fused with the argmax over classes.
#ifndef PPOOL_CPU_RESIZE_ARGMAX_H_
#define PPOOL_CPU_RESIZE_ARGMAX_H_

#include <cstring>
#include <optional>

#include "resized.h"

namespace ppool::PPOOL_ISA {

// Works in strips of kStrip columns. What is interpolated is a mean of the logits around it, so where
// one class is the largest of all of these it is the largest of the mean, too, and nothing else is
// looked at: nearly everywhere in most photos. Elsewhere a source row of every class is widened to
// the strip once, as far as it is needed, and serves all output rows between it and its neighbours.
// Of logits that are resized twice a source row is interpolated itself, and only where it is widened.
template <class V>
class ResizeArgMax {
  using Real = typename V::Real;
  using F = typename V::F;
  static constexpr int kStrip = 4 * 16;
  static constexpr int kParts = kStrip / V::kLanes;
  static constexpr int kVectors = 4;  // enough at a time to hide the latency of comparing

 public:
  ResizeArgMax(const ResizeArgMaxJob& job, const Elements<Real>& elements)
      : ResizeArgMax(job, elements, job.h) {}

  ResizeArgMax(const ResizeTwiceJob& job, const Elements<Real>& elements)
      : ResizeArgMax(job.last, elements, job.h) {
    first_.emplace(job, elements, span_);
    for (Row& row : held_) row.is_filled = take<bool>(span_ / V::kLanes + 1);
  }

  // Rows [begin, end) of all images.
  void run(int64_t begin, int64_t end) {
    if (job_.h == job_.out_h && job_.w == job_.out_w) return run_unresized(begin, end);
    if (first_ && looks_ && begin < end) {
      const Between above = rows_of(begin), below = rows_of(end - 1);
      first_->label(above.low, below.high + 1);
    }
    for (int64_t first = 0; first < job_.out_w; first += kStrip) {
      place(first);
      held_[0].row = held_[1].row = -1;
      for (int64_t unit = begin; unit < end; ++unit) {
        const Between rows = rows_of(unit);
        Row& upper = row_of(rows.low, held_[0]);
        Row& lower = row_of(rows.high, &upper == held_ ? held_[1] : held_[0]);
        label_row(unit * job_.out_w + first, [&](auto* labels) {
          label_between(upper, lower, Real(rows.share), labels);
        });
      }
    }
  }

 private:
  // `rows` are those of the logits as they are stored.
  ResizeArgMax(const ResizeArgMaxJob& job, const Elements<Real>& elements, int64_t rows)
      : job_(job),
        elements_(elements),
        looks_(job.classes > 4 && rows < job.out_h),
        side_(std::max<int64_t>(job.side, 1)),
        span_(std::min(job.w, kStrip * job.w / std::max<int64_t>(job.out_w, 1) + 2 + side_) +
              V::kPicked),
        held_{take_row(), take_row()},
        low_(take<int32_t>(kStrip)),
        high_(take<int32_t>(kStrip)),
        share_(take<Real>(kStrip)),
        cells_(take<Real>(span_ + V::kLanes)),
        apart_(take<Real>(side_ > 1 ? std::max<int64_t>(span_, kStrip) + 2 * side_ : 0)) {}

  // A source row, as far as the strip reads it.
  struct Row {
    Real* source;  // [classes, span_]
    Real* wide;    // at the strip's columns, [classes, kStrip], and
    Real* labels;  // the largest class there, where `is_wide`
    bool* is_filled = nullptr;  // which vectors of `source` are, of logits that are resized twice
    int64_t row = -1;
    int32_t alike[kParts] = {};  // the class that is the largest of all that a part reads, or -1
    bool is_wide[kParts] = {};
  };

  Row take_row() {
    return {take<Real>(job_.classes * span_ + V::kLanes), take<Real>(job_.classes * kStrip),
            take<Real>(kStrip)};
  }

  // The source rows of all images that one of all labelled images lies between.
  Between rows_of(int64_t row) const {
    const int64_t image = row / job_.out_h * job_.h;
    const Between rows = Between::of(row % job_.out_h, job_.h, job_.out_h);
    return {image + rows.low, image + rows.high, rows.share};
  }

  // Labels as large as the logits, which then need not be interpolated. Row by row, because memory
  // is what such a run waits for.
  void run_unresized(int64_t begin, int64_t end) {
    Real* const wide = held_[0].wide;
    const auto value = [wide](int64_t k, int at) { return V::load(wide + k * kStrip + at); };
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / job_.h, row = unit % job_.h;
      for (int64_t first = 0; first < job_.w; first += kStrip) {
        count_ = static_cast<int>(std::min<int64_t>(kStrip, job_.w - first));
        for (int64_t k = 0; k < job_.classes; ++k) {
          read(image * job_.classes + k, row, first, count_, wide + k * kStrip);
        }
        int parts[kParts];
        for (int part = 0; part < kParts; ++part) parts[part] = part;
        label_row(unit * job_.w + first,
                  [&](auto* labels) { label_parts(value, parts, parts_of(count_), labels); });
      }
    }
  }

  // Columns [first, first + count) of a row of a plane; of blocks of two, up to one more.
  void read(int64_t plane, int64_t row, int64_t first, int64_t count, Real* __restrict to) const {
    if (side_ == 1) {
      elements_.load(job_.logits, (plane * job_.h + row) * job_.w + first, count, to);
      return;
    }
    const int64_t across = job_.w / side_, cell = first / side_;
    const int64_t cells = (first + count - 1) / side_ - cell + 1;
    const int64_t apart = job_.h / side_ * across;
    const int64_t start = (plane * side_ + row % side_) * side_ * apart + row / side_ * across + cell;
    if (side_ == 2 && first % 2 == 0 && elements_.bytes == sizeof(Real)) {
      const Real* const even = static_cast<const Real*>(job_.logits) + start;
      return weave(even, even + apart, cells, to);
    }
    for (int64_t phase = 0; phase < side_; ++phase) {
      elements_.load(job_.logits, start + phase * apart, cells, apart_ + phase * cells);
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t column = first + i;
      to[i] = apart_[column % side_ * cells + column / side_ - cell];
    }
  }

  static void weave(const Real* __restrict even, const Real* __restrict odd, int64_t count,
                    Real* __restrict to) {
    constexpr int kAtOnce = 8;  // known to the compiler, which makes vectors of it
    int64_t i = 0;
    for (; i + kAtOnce <= count; i += kAtOnce) {
#pragma GCC unroll 8
      for (int n = 0; n < kAtOnce; ++n) {
        to[2 * (i + n)] = even[i + n];
        to[2 * (i + n) + 1] = odd[i + n];
      }
    }
    for (; i < count; ++i) {
      to[2 * i] = even[i];
      to[2 * i + 1] = odd[i];
    }
  }

  static int parts_of(int count) { return (count + V::kLanes - 1) / V::kLanes; }

  // Finds the source elements of the strip's columns, counted from the first that it reads for the
  // load, and for each part from its own first.
  void place(int64_t first) {
    count_ = static_cast<int>(std::min<int64_t>(kStrip, job_.out_w - first));
    begin_ = Between::of(first, job_.w, job_.out_w).low / side_ * side_;
    end_ = Between::of(first + count_ - 1, job_.w, job_.out_w).high + 1;
    near_ = true;
    for (int i = 0; i < kStrip; ++i) {
      // Lanes past the last column repeat it.
      const Between column = Between::of(first + std::min(i, count_ - 1), job_.w, job_.out_w);
      const int part = i / V::kLanes;
      if (i == part * V::kLanes) starts_[part] = column.low - begin_;
      stops_[part] = column.high - begin_;
      low_[i] = static_cast<int32_t>(column.low - begin_ - starts_[part]);
      high_[i] = static_cast<int32_t>(column.high - begin_ - starts_[part]);
      share_[i] = Real(column.share);
      near_ = near_ && high_[i] < V::kPicked;
    }
    if (first_) first_->place(begin_, end_);
  }

  // Where the source row is held; `spare` gives way if it is not yet.
  Row& row_of(int64_t row, Row& spare) {
    if (held_[0].row == row) return held_[0];
    if (held_[1].row == row) return held_[1];
    load(row, spare);
    return spare;
  }

  void load(int64_t row, Row& to) {
    to.row = row;
    std::fill_n(to.is_wide, kParts, false);
    std::fill_n(to.alike, kParts, -1);
    const int64_t image = row / job_.h, y = row % job_.h, columns = end_ - begin_;
    if (first_) {
      first_->enter(row);
      std::fill_n(to.is_filled, columns / V::kLanes + 1, false);
    } else {
      for (int64_t k = 0; k < job_.classes; ++k) {
        read(image * job_.classes + k, y, begin_, columns, to.source + k * span_);
      }
    }
    if (!looks_) return;
    if (!first_) label_columns<V>(job_.classes, to.source, span_, columns, cells_);
    for (int part = 0; part < parts_of(count_); ++part) {
      const int64_t from = starts_[part], last = stops_[part];
      to.alike[part] = first_ ? first_->alike(from, last) : alike(cells_, from, last);
    }
  }

  // A part of a source row, every class interpolated at its columns.
  void widen(Row& row, int part) {
    if (row.is_wide[part]) return;
    row.is_wide[part] = true;
    if (first_) fill(row, part);
    near_ ? widen_from<true>(row, part) : widen_from<false>(row, part);
    if (!looks_) return;
    const Real* const wide = row.wide;
    const auto value = [wide](int64_t k, int at) { return V::load(wide + k * kStrip + at); };
    const int place[1] = {part * V::kLanes};
    F label[1];
    largest<V, 1>(job_.classes, value, place, label);
    V::store(row.labels + place[0], label[0]);
  }

  // What a part reads of a source row that is interpolated itself.
  void fill(Row& row, int part) {
    first_->enter(row.row);
    const int64_t begin = starts_[part] / V::kLanes, end = stops_[part] / V::kLanes;
    for (int64_t vector = begin; vector <= end; ++vector) {
      const int64_t first = vector * V::kLanes;
      if (!row.is_filled[vector]) first_->fill(first, span_, row.source + first);
      row.is_filled[vector] = true;
    }
  }

  template <bool kNear>
  void widen_from(const Row& row, int part) const {
    const int first = part * V::kLanes;
    const Real* from = row.source + starts_[part];
    Real* __restrict to = row.wide + first;
    const int32_t *const low = low_ + first, *const high = high_ + first;
    const F share = V::load(share_ + first), rest = V::set(1) - share;
    const int64_t classes = job_.classes, span = span_;
    for (int64_t k = 0; k < classes; ++k, from += span, to += kStrip) {
      const F right = pick<V, kNear>(from, high), left = pick<V, kNear>(from, low);
      V::store(to, V::mul_add(right, share, left * rest));
    }
  }

  template <class Label>
  void label_between(Row& upper, Row& lower, Real lower_share, Label* labels) {
    int open[kParts], count = 0;
    for (int part = 0; part < parts_of(count_); ++part) {
      const int first = part * V::kLanes;
      const int32_t one = upper.alike[part];
      if (one >= 0 && one == lower.alike[part]) {
        std::fill_n(labels + first, V::kLanes, static_cast<Label>(one));
        continue;
      }
      widen(upper, part);
      widen(lower, part);
      if (!looks_) {
        open[count++] = part;
        continue;
      }
      const F above = V::load(upper.labels + first), below = V::load(lower.labels + first);
      if ((V::not_at_least(above, below) | V::not_at_least(below, above)) == 0) {
        store(labels + first, above);
      } else {
        open[count++] = part;
      }
    }
    const F share = V::set(lower_share), rest = V::set(1 - lower_share);
    const Real *const high = upper.wide, *const low = lower.wide;
    const auto value = [=](int64_t k, int at) {
      const int64_t place = k * kStrip + at;
      return V::mul_add(V::load(low + place), share, V::load(high + place) * rest);
    };
    label_parts(value, open, count, labels);
  }

  // Labels kStrip columns of a row, of which count_ are written at place `at` and on.
  template <class Fill>
  void label_row(int64_t at, const Fill& fill) const {
    if (job_.is_wide()) {
      uint16_t labels[kStrip];
      fill(labels);
      std::memcpy(static_cast<uint16_t*>(job_.labels) + at, labels, sizeof(uint16_t) * count_);
    } else {
      uint8_t labels[kStrip];
      fill(labels);
      std::memcpy(static_cast<uint8_t*>(job_.labels) + at, labels, count_);
    }
  }

  // `value` gives a vector of logits by class and column.
  template <class Value, class Label>
  void label_parts(const Value& value, const int* parts, int count, Label* labels) const {
    for (; count >= kVectors; count -= kVectors, parts += kVectors) {
      label_vectors<kVectors>(value, parts, labels);
    }
    for (; count >= 2; count -= 2, parts += 2) label_vectors<2>(value, parts, labels);
    if (count > 0) label_vectors<1>(value, parts, labels);
  }

  template <int kCount, class Value, class Label>
  void label_vectors(const Value& value, const int* parts, Label* labels) const {
    int places[kCount];
    for (int i = 0; i < kCount; ++i) places[i] = parts[i] * V::kLanes;
    F label[kCount];
    largest<V, kCount>(job_.classes, value, places, label);
    for (int i = 0; i < kCount; ++i) store(labels + places[i], label[i]);
  }

  static void store(uint8_t* to, F label) { V::store_bytes(to, label); }
  static void store(uint16_t* to, F label) {
    Real lanes[V::kLanes];
    V::store(lanes, label);
    for (int lane = 0; lane < V::kLanes; ++lane) to[lane] = static_cast<uint16_t>(lanes[lane]);
  }

  const ResizeArgMaxJob& job_;
  const Elements<Real>& elements_;
  std::optional<Resized<V>> first_;  // of logits that are resized twice
  bool looks_;    // at what need not be interpolated; of few classes or rows that takes longer
  int64_t side_;  // of blocks whose pixels are stored apart
  int64_t span_;  // source columns that a strip reads at most, and what V::pick reads beyond
  Row held_[2];
  int32_t* low_;
  int32_t* high_;
  Real* share_;
  Real* cells_;  // the largest class of a source row's columns
  Real* apart_;  // those of each column in a block, before they are put side by side
  int64_t starts_[kParts], stops_[kParts];
  int64_t begin_ = 0, end_ = 0;
  int count_ = 0;
  bool near_ = false;  // every part reads fewer neighbours than V::pick takes
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_RESIZE_ARGMAX_H_
