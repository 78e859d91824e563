// Forward kernels: pooling with given exponents (Eq. 1), and fused with its side branch (Eq. 5).
#ifndef PPOOL_CUDA_FORWARD_H_
#define PPOOL_CUDA_FORWARD_H_

#include "../ppool_jobs.h"
#include "patch.h"

namespace ppool::cuda {

// Exponents that the caller gives, one for each pooled element.
template <class Storage>
struct GivenAlpha {
  const Storage* alpha;
  bool whole;

  template <class Group>
  PPOOL_HOST_DEVICE void of(const Problem&, const Group&, const Place&, int64_t start,
                            int64_t valid, float (&out)[Group::kOut]) const {
    load_run<Group::kOut>(alpha + start, valid, whole, out);
  }
};

// Exponents that the side branch predicts from the same elements (Figure 1).
template <class Storage>
struct BranchAlpha {
  SideBranch branch;
  const Storage *w_region, *prelu_slope, *w_point, *b_point;

  // The depthwise convolution at one window.
  template <class Taps>
  PPOOL_HOST_DEVICE float convolve(const Taps& raw, int64_t channel) const {
    const Storage* region = w_region + channel * raw.count();
    float sum = 0;
    PPOOL_UNROLL
    for (int tap = 0; tap < raw.count(); ++tap) {
      sum += to_float(region[tap]) * branch.input_scale * raw[tap];
    }
    return sum;
  }

  // PReLU, depthwise 1x1 convolution and clip of the depthwise convolution's result.
  PPOOL_HOST_DEVICE float finish(float value, int64_t channel) const {
    value = value < 0 ? value * to_float(prelu_slope[channel]) : value;
    value = value * to_float(w_point[channel]) + to_float(b_point[channel]);
    value = value < branch.alpha_min ? branch.alpha_min : value;  // a NaN passes both
    return value > branch.alpha_max ? branch.alpha_max : value;
  }

  template <class Group>
  PPOOL_HOST_DEVICE void of(const Problem& problem, const Group& group, const Place& place,
                            int64_t, int64_t, float (&out)[Group::kOut]) const {
    const int64_t channel = place.plane - divide(place.plane, problem.pool.c) * problem.pool.c;
    const Storage* region = w_region + channel * Group::kTaps;
    float weights[Group::kTaps];
    PPOOL_UNROLL
    for (int tap = 0; tap < Group::kTaps; ++tap) {
      weights[tap] = to_float(region[tap]) * branch.input_scale;
    }
    PPOOL_UNROLL
    for (int i = 0; i < Group::kOut; ++i) {
      const Values<Group::kTaps> raw = group.window(i, [](float v, int, int) { return v; });
      float sum = 0;
      PPOOL_UNROLL
      for (int tap = 0; tap < Group::kTaps; ++tap) sum += weights[tap] * raw[tap];
      out[i] = finish(sum, channel);
    }
  }
};

// A window known to the compiler: each thread pools groups of neighbours, reading ahead.
template <class Storage, class Window, class Alpha>
struct ForwardSquare {
  using Group = Patch<Storage, Window>;
  using Shared = PlaneMinimum;
  // As many as the registers allow without spilling: threads that wait for memory hide each other.
  static constexpr bool kIsSmall =
      Window::kKernel == 3 && Window::kStride == 2 && sizeof(Storage) == 4;
  static constexpr int kBlocks = kIsSmall ? 4 : 3;
  static constexpr int kPhases = 2;
  // Reads in flight: three rows of a 3x3 window are enough.
  static constexpr int kAhead = Window::kKernel == 2 ? 2 : 1;

  Problem problem;
  const Storage* x;
  Storage* y;
  Alpha alpha;
  bool whole_x, whole_y;
  int64_t groups;  // in a pooled row
  Division division;

  ForwardSquare(const Problem& p, const void* input, void* output, const Alpha& exponents)
      : problem(p),
        x(static_cast<const Storage*>(input)),
        y(static_cast<Storage*>(output)),
        alpha(exponents),
        whole_x(rows_aligned(x, p.pool.w, 16)),
        whole_y(rows_aligned(y, p.out_w, Group::kOut * sizeof(Storage))),
        groups((p.out_w + Group::kOut - 1) / Group::kOut),
        division{p.out_h * groups, p.planes, kAhead, p.pool.is_signed != 0} {}

  PPOOL_HOST_DEVICE int64_t units() const { return division.units(); }
  PPOOL_HOST_DEVICE bool runs(int phase) const { return phase == 1 || division.by_plane; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t unit, int thread) const {
    if (phase == 0) {
      shared.find(x + unit * problem.plane_size(), problem.plane_size(), thread);
      return;
    }
    const float offset = division.by_plane ? shared.offset() : 0.0f;
    const int64_t end = division.end(unit);
    for (int64_t item = division.begin(unit) + thread; item < end; item += kThreads * kAhead) {
      Group group[kAhead];
      Place place[kAhead];
      PPOOL_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        if (item + i * kThreads >= end) break;
        place[i] = place_of(item + i * kThreads);
        group[i].read(problem, x, place[i], whole_x);
      }
      PPOOL_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        if (item + i * kThreads >= end) break;
        finish(group[i], place[i], offset);
      }
    }
  }

 private:
  PPOOL_HOST_DEVICE Place place_of(int64_t item) const {
    const int64_t plane = divide(item, division.items_of_plane);
    const int64_t rest = item - plane * division.items_of_plane, row = divide(rest, groups);
    return {plane, row, (rest - row * groups) * Group::kOut};
  }

  PPOOL_HOST_DEVICE void finish(const Group& group, const Place& place, float offset) const {
    const int64_t start = (place.plane * problem.out_h + place.row) * problem.out_w + place.column;
    const int64_t valid = problem.out_w - place.column;
    const int64_t row = Group::first_row(place), column = Group::first_column(place);
    const Pooled pooled{row, column, problem.pool.h, problem.pool.w, offset};
    float exponents[Group::kOut], result[Group::kOut];
    alpha.of(problem, group, place, start, valid, exponents);
    PPOOL_UNROLL
    for (int i = 0; i < Group::kOut; ++i) {
      const auto inside = [&] {
        return problem.inside(0, row) * problem.inside(1, column + i * Window::kStride);
      };
      result[i] = pool(group.window(i, pooled), exponents[i], inside) + offset;
    }
    store_run<Group::kOut>(result, valid, whole_y, y + start);
  }
};

// The exponent of one pooled element; `raw` answers count() and operator[] with the elements of its
// window as they are in memory.
template <class Storage, class Taps>
PPOOL_HOST_DEVICE float alpha_of(const GivenAlpha<Storage>& given, const Problem&, const Taps&,
                                 int64_t, int64_t start) {
  return to_float(given.alpha[start]);
}

template <class Storage, class Taps>
PPOOL_HOST_DEVICE float alpha_of(const BranchAlpha<Storage>& branch, const Problem& problem,
                                 const Taps& raw, int64_t plane, int64_t) {
  const int64_t channel = plane - divide(plane, problem.pool.c) * problem.pool.c;
  return branch.finish(branch.convolve(raw, channel), channel);
}

// Any window: one pooled element a thread.
template <class Storage, class Alpha>
struct ForwardAny {
  using Shared = PlaneMinimum;
  static constexpr int kBlocks = 0, kPhases = 2;

  Problem problem;
  const Storage* x;
  Storage* y;
  Alpha alpha;
  Division division;

  ForwardAny(const Problem& p, const void* input, void* output, const Alpha& exponents)
      : problem(p),
        x(static_cast<const Storage*>(input)),
        y(static_cast<Storage*>(output)),
        alpha(exponents),
        division{p.out_h * p.out_w, p.planes, 1, p.pool.is_signed != 0} {}

  PPOOL_HOST_DEVICE int64_t units() const { return division.units(); }
  PPOOL_HOST_DEVICE bool runs(int phase) const { return phase == 1 || division.by_plane; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t unit, int thread) const {
    if (phase == 0) {
      shared.find(x + unit * problem.plane_size(), problem.plane_size(), thread);
      return;
    }
    const float offset = division.by_plane ? shared.offset() : 0.0f;
    const int64_t end = division.end(unit);
    for (int64_t item = division.begin(unit) + thread; item < end; item += kThreads) {
      const int64_t plane = divide(item, division.items_of_plane);
      const int64_t rest = item - plane * division.items_of_plane;
      const int64_t row = divide(rest, problem.out_w);
      const int64_t top = problem.start(0, row);
      const int64_t left = problem.start(1, rest - row * problem.out_w);
      const Storage* source = x + plane * problem.plane_size();
      const Reader<Storage> reader{problem.pool, source, top, left, offset};
      const RawTaps<Storage> raw{reader};
      const float exponent = alpha_of(alpha, problem, raw, plane, item);
      const auto inside = [&] { return problem.inside(0, top) * problem.inside(1, left); };
      from_float(pool(reader, exponent, inside) + offset, &y[item]);
    }
  }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_FORWARD_H_
