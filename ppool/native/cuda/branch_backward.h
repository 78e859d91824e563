// Gradients of the side branch's parameters (Eq. 5) from those of its exponents.
//
// A block does one plane: each thread sums over some of its windows, then one thread a parameter
// adds up the threads' sums in order, so that results repeat to the bit.
#ifndef PPOOL_CUDA_BRANCH_BACKWARD_H_
#define PPOOL_CUDA_BRANCH_BACKWARD_H_

#include "forward.h"

namespace ppool::cuda {

template <class Storage>
struct BranchGradients {
  const Storage* x;
  BranchAlpha<Storage> alpha;
  const float* d_alpha;
  float d_alpha_scale;
  float* d_parameters;  // [planes, taps + 3]
};

// The parameters of one channel's branch behind its convolution.
struct BranchPoint {
  float slope, point, bias, least, most;

  template <class Storage>
  static PPOOL_HOST_DEVICE BranchPoint of(const BranchAlpha<Storage>& alpha, int64_t channel) {
    return {to_float(alpha.prelu_slope[channel]), to_float(alpha.w_point[channel]),
            to_float(alpha.b_point[channel]), alpha.branch.alpha_min, alpha.branch.alpha_max};
  }
};

// One window's gradients: of the convolution's result, then of the three parameters behind it.
struct BranchSlopes {
  float d_h, behind[3];

  static PPOOL_HOST_DEVICE BranchSlopes of(const BranchPoint& at, float h, float d_alpha) {
    const float activated = h < 0 ? h * at.slope : h;
    const float unclipped = activated * at.point + at.bias;
    const bool clipped = unclipped < at.least || unclipped > at.most;
    const float d_bias = clipped ? 0.0f : d_alpha, d_activated = d_bias * at.point;
    const bool through = h > 0;
    return {through ? d_activated : d_activated * at.slope,
            {through ? 0.0f : d_activated * h, d_bias * activated, d_bias}};
  }
};

template <int count>
struct BranchSums {
  float of[count][kThreads];

  PPOOL_HOST_DEVICE float total(int which) const {
    float sum = 0;
    for (int thread = 0; thread < kThreads; ++thread) sum += of[which][thread];
    return sum;
  }
};

// A window known to the compiler.
template <class Storage, class Window>
struct BranchBackwardSquare {
  using Group = Patch<Storage, Window>;
  static constexpr int kBlocks = 0, kPhases = 2;
  static constexpr int kOut = Group::kOut, kTaps = Group::kTaps, kSums = kTaps + 3;
  using Shared = BranchSums<kSums>;

  Problem problem;
  BranchGradients<Storage> at;
  bool whole_x, whole_y;
  int64_t groups;  // in a pooled row

  BranchBackwardSquare(const Problem& p, const BranchGradients<Storage>& gradients)
      : problem(p),
        at(gradients),
        whole_x(rows_aligned(at.x, p.pool.w, 16)),
        whole_y(rows_aligned(at.d_alpha, p.out_w, kOut * sizeof(float))),
        groups((p.out_w + kOut - 1) / kOut) {}

  PPOOL_HOST_DEVICE int64_t units() const { return problem.planes; }
  PPOOL_HOST_DEVICE bool runs(int) const { return true; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t plane, int thread) const {
    if (phase == 0) {
      add_up(shared, plane, thread);
    } else if (thread < kSums) {
      const float scale = thread < kTaps ? at.alpha.branch.input_scale : 1.0f;
      at.d_parameters[plane * kSums + thread] = shared.total(thread) * scale;
    }
  }

 private:
  PPOOL_HOST_DEVICE void add_up(Shared& shared, int64_t plane, int thread) const {
    const int64_t channel = plane - divide(plane, problem.pool.c) * problem.pool.c;
    const BranchPoint point = BranchPoint::of(at.alpha, channel);
    float weights[kTaps], sums[kSums];
    PPOOL_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
      weights[tap] = to_float(at.alpha.w_region[channel * kTaps + tap]) * at.alpha.branch.input_scale;
    }
    PPOOL_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = 0;
    const int64_t end = problem.out_h * groups;
    for (int64_t item = thread; item < end; item += kThreads) {
      const int64_t row = divide(item, groups);
      const Place place{plane, row, (item - row * groups) * kOut};
      const int64_t start = (plane * problem.out_h + row) * problem.out_w + place.column;
      const int64_t valid = problem.out_w - place.column;
      Group group;
      group.read(problem, at.x, place, whole_x);
      float d_alpha[kOut];
      load_run<kOut>(at.d_alpha + start, valid, whole_y, d_alpha);
      PPOOL_UNROLL
      for (int i = 0; i < kOut; ++i) {
        if (i >= valid) continue;
        const Values<kTaps> raw = group.window(i, [](float v, int, int) { return v; });
        float h = 0;
        PPOOL_UNROLL
        for (int tap = 0; tap < kTaps; ++tap) h += weights[tap] * raw[tap];
        const BranchSlopes slopes = BranchSlopes::of(point, h, d_alpha[i] * at.d_alpha_scale);
        PPOOL_UNROLL
        for (int tap = 0; tap < kTaps; ++tap) sums[tap] += slopes.d_h * raw[tap];
        PPOOL_UNROLL
        for (int j = 0; j < 3; ++j) sums[kTaps + j] += slopes.behind[j];
      }
    }
    PPOOL_UNROLL
    for (int i = 0; i < kSums; ++i) shared.of[i][thread] = sums[i];
  }
};

// Any window: a block does kSums of a plane's parameters.
template <class Storage>
struct BranchBackwardAny {
  static constexpr int kBlocks = 0, kPhases = 2, kSums = 16;
  using Shared = BranchSums<kSums>;

  Problem problem;
  BranchGradients<Storage> at;
  int taps;
  int64_t parts;

  BranchBackwardAny(const Problem& p, const BranchGradients<Storage>& gradients)
      : problem(p),
        at(gradients),
        taps(static_cast<int>(p.pool.kernel[0] * p.pool.kernel[1])),
        parts((taps + 3 + kSums - 1) / kSums) {}

  PPOOL_HOST_DEVICE int64_t units() const { return problem.planes * parts; }
  PPOOL_HOST_DEVICE bool runs(int) const { return true; }

  PPOOL_HOST_DEVICE void run(int phase, Shared& shared, int64_t unit, int thread) const {
    const int64_t plane = divide(unit, parts);
    const int first = static_cast<int>(unit - plane * parts) * kSums;
    if (phase == 0) {
      add_up(shared, plane, first, thread);
    } else if (thread < kSums && first + thread < taps + 3) {
      const float scale = first + thread < taps ? at.alpha.branch.input_scale : 1.0f;
      at.d_parameters[plane * (taps + 3) + first + thread] = shared.total(thread) * scale;
    }
  }

 private:
  PPOOL_HOST_DEVICE void add_up(Shared& shared, int64_t plane, int first, int thread) const {
    const int64_t channel = plane - divide(plane, problem.pool.c) * problem.pool.c;
    const BranchPoint point = BranchPoint::of(at.alpha, channel);
    const Storage* source = at.x + plane * problem.plane_size();
    float sums[kSums];
    PPOOL_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = 0;
    for (int64_t item = thread; item < problem.pooled_plane_size(); item += kThreads) {
      const int64_t row = divide(item, problem.out_w), column = item - row * problem.out_w;
      const Reader<Storage> reader{problem.pool, source, problem.start(0, row),
                                   problem.start(1, column), 0.0f};
      const RawTaps<Storage> raw{reader};
      const float d_alpha = at.d_alpha[plane * problem.pooled_plane_size() + item];
      const float h = at.alpha.convolve(raw, channel);
      const BranchSlopes slopes = BranchSlopes::of(point, h, d_alpha * at.d_alpha_scale);
      PPOOL_UNROLL
      for (int i = 0; i < kSums; ++i) {
        const int tap = first + i;
        if (tap < taps) sums[i] += slopes.d_h * raw[tap];
        PPOOL_UNROLL
        for (int j = 0; j < 3; ++j) sums[i] += tap == taps + j ? slopes.behind[j] : 0.0f;
      }
    }
    PPOOL_UNROLL
    for (int i = 0; i < kSums; ++i) shared.of[i][thread] = sums[i];
  }
};

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_BRANCH_BACKWARD_H_
