// Backward kernel: the gradients of Eq. 3 and 4, a plane at a time because windows may overlap.
#ifndef PPOOL_CPU_BACKWARD_H_
#define PPOOL_CPU_BACKWARD_H_

#include <optional>

#include "launch.h"
#include "windows.h"

namespace ppool {

template <class Fma, class Storage>
class BackwardVisitor {
 public:
  using Real = Compute<Storage>;

  BackwardVisitor(const Plane& plane, const BackwardJob& job)
      : plane_(plane),
        job_(job),
        windows_(plane.taps()),
        ratios_(plane.taps() * kLanes),
        logs_(plane.taps() * kLanes),
        weights_(plane.taps() * kLanes),
        dx_(plane.size()) {}

  PPOOL_HOST_DEVICE void enter(int64_t index) { input_.emplace(plane_, job_.x, index); }

  PPOOL_HOST_DEVICE void visit(Block block) {
    alignas(64) Real grad[kLanes], alpha[kLanes];
    const int64_t start = input_->pooled_start + block.first;
    load<Storage>(job_.grad, start, block.count, grad);
    load<Storage>(job_.alpha, start, block.count, alpha);
    windows_.read(plane_, block, input_->x, input_->offset);
    weigh(block.count, alpha);

    alignas(64) Real dalpha[kLanes] = {}, slope[kLanes];
    const Scatter<Real> scatter{dx_.data(), job_.pool.stride[1], slope};
    for (int64_t index = 0; index < plane_.taps(); ++index) {
      const Real* values = windows_.tap(index);
      const int64_t row = index * kLanes;
      for (int i = 0; i < block.count; ++i) {
        const Tap<Real> tap{ratios_[row + i], logs_[row + i], weights_[row + i]};
        const Gradient<Real> gradient = gradient_of(i);
        slope[i] = grad[i] * gradient.dx(values[i], tap, inside_[i], infinite_[i]);
        dalpha[i] += gradient.dalpha_term(values[i], tap);
      }
      for_each_run(plane_, block, index, scatter);
    }
    for (int i = 0; i < block.count; ++i) dalpha[i] = grad[i] * gradient_of(i).dalpha(dalpha[i]);
    store<Storage>(dalpha, block.count, job_.dalpha, start);
  }

  // Hands over the plane's dx, rounded once; a negative input that counted as 0 has none.
  PPOOL_HOST_DEVICE void leave(int64_t index) {
    Storage* to = static_cast<Storage*>(job_.dx) + index * plane_.size();
    const bool clamped = !job_.pool.is_signed;
    for (int64_t i = 0; i < plane_.size(); ++i) {
      const bool dropped = clamped & (widen(input_->x[i]) < 0);
      narrow(dropped ? Real(0) : dx_[i], &to[i]);
      dx_[i] = 0;
    }
  }

 private:
  // First pass: each tap's weight, and the sums over each window.
  PPOOL_HOST_DEVICE void weigh(int count, const Real* alpha) {
    for (int i = 0; i < count; ++i) sum_w_[i] = sum_wr_[i] = inside_[i] = infinite_[i] = 0;
    for (int64_t index = 0; index < plane_.taps(); ++index) {
      const Real* values = windows_.tap(index);
      const int64_t row = index * kLanes;
      for (int i = 0; i < count; ++i) {
        const Tap<Real> tap = tap_of<Fma>(values[i], windows_.largest[i], alpha[i]);
        ratios_[row + i] = tap.ratio;
        logs_[row + i] = tap.log2_ratio;
        weights_[row + i] = tap.weight;
        sum_w_[i] += tap.weight;
        sum_wr_[i] += tap.weight * tap.ratio;
        inside_[i] += values[i] >= 0 ? Real(1) : Real(0);
        infinite_[i] += values[i] > std::numeric_limits<Real>::max() ? Real(1) : Real(0);
      }
    }
    for (int i = 0; i < count; ++i) {
      const Gradient<Real> gradient =
          Gradient<Real>::template of<Fma>(windows_.largest[i], alpha[i], sum_w_[i], sum_wr_[i]);
      alpha_[i] = gradient.alpha;
      pooled_ratio_[i] = gradient.pooled_ratio;
      floored_slope_[i] = gradient.floored_slope;
    }
  }

  PPOOL_HOST_DEVICE Gradient<Real> gradient_of(int i) const {
    return {windows_.largest[i], alpha_[i], sum_w_[i], pooled_ratio_[i], floored_slope_[i]};
  }

  const Plane& plane_;
  const BackwardJob& job_;
  Windows<Real> windows_;
  std::vector<Real> ratios_, logs_, weights_;
  alignas(64) Real sum_w_[kLanes], sum_wr_[kLanes], inside_[kLanes], infinite_[kLanes];
  alignas(64) Real alpha_[kLanes], pooled_ratio_[kLanes], floored_slope_[kLanes];
  std::vector<Real> dx_;  // in the computing type, so that overlapping windows add up unrounded
  std::optional<Input<Storage>> input_;
};

}  // namespace ppool

#endif  // PPOOL_CPU_BACKWARD_H_
