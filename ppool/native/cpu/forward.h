// Forward kernels: pooling with given exponents (Eq. 1), and fused with its side branch (Eq. 5).
#ifndef PPOOL_CPU_FORWARD_H_
#define PPOOL_CPU_FORWARD_H_

#include <optional>

#include "launch.h"
#include "windows.h"

namespace ppool {

// Eq. 1 for the windows of a block.
template <class Fma, class Real>
PPOOL_HOST_DEVICE void pool_block(const Windows<Real>& windows, int64_t taps, int count,
                                  const Real* alpha, Real* y) {
  alignas(64) Real sum_w[kLanes] = {}, sum_wr[kLanes] = {};
  for (int64_t index = 0; index < taps; ++index) {
    const Real* values = windows.tap(index);
    for (int i = 0; i < count; ++i) {
      const Tap<Real> tap = tap_of<Fma>(values[i], windows.largest[i], alpha[i]);
      sum_w[i] += tap.weight;
      sum_wr[i] += tap.weight * tap.ratio;
    }
  }
  for (int i = 0; i < count; ++i) y[i] = pooled(windows.largest[i], alpha[i], sum_w[i], sum_wr[i]);
}

template <class Fma, class Storage>
class ForwardVisitor {
 public:
  using Real = Compute<Storage>;

  ForwardVisitor(const Plane& plane, const ForwardJob& job)
      : plane_(plane), job_(job), windows_(plane.taps()) {}

  PPOOL_HOST_DEVICE void enter(int64_t index) { input_.emplace(plane_, job_.x, index); }

  PPOOL_HOST_DEVICE void visit(Block block) {
    alignas(64) Real alpha[kLanes], y[kLanes];
    const int64_t start = input_->pooled_start + block.first;
    load<Storage>(job_.alpha, start, block.count, alpha);
    windows_.read(plane_, block, input_->x, input_->offset);
    pool_block<Fma>(windows_, plane_.taps(), block.count, alpha, y);
    for (int i = 0; i < block.count; ++i) y[i] += input_->offset;
    store<Storage>(y, block.count, job_.y, start);
  }

 private:
  const Plane& plane_;
  const ForwardJob& job_;
  Windows<Real> windows_;
  std::optional<Input<Storage>> input_;
};

// The parameters of one channel's side branch, the input scale folded into its weights.
template <class Real>
class ChannelBranch {
 public:
  ChannelBranch(const UnitJob& job, int64_t taps)
      : weights_(taps), lowest_(job.branch.alpha_min), highest_(job.branch.alpha_max) {}

  template <class Storage>
  PPOOL_HOST_DEVICE void read(const UnitJob& job, int64_t channel) {
    const int64_t taps = static_cast<int64_t>(weights_.size());
    const Storage* region = static_cast<const Storage*>(job.w_region) + channel * taps;
    for (int64_t index = 0; index < taps; ++index) {
      weights_[index] = widen(region[index]) * Real(job.branch.input_scale);
    }
    slope_ = widen(static_cast<const Storage*>(job.prelu_slope)[channel]);
    scale_ = widen(static_cast<const Storage*>(job.w_point)[channel]);
    bias_ = widen(static_cast<const Storage*>(job.b_point)[channel]);
  }

  // The exponents of a block: depthwise convolution, PReLU, depthwise 1x1 convolution, clip.
  template <class Storage>
  PPOOL_HOST_DEVICE void predict(const Plane& plane, Block block, const Storage* x,
                                 Real* alpha) const {
    alignas(64) Real values[kLanes];
    for (int i = 0; i < block.count; ++i) alpha[i] = 0;
    for (int64_t index = 0; index < plane.taps(); ++index) {
      const Gather<Storage, Unchanged<Real>> gather{x, plane.pool.stride[1], {}, Real(0), values};
      for_each_run(plane, block, index, gather);
      const Real weight = weights_[index];
      for (int i = 0; i < block.count; ++i) alpha[i] += weight * values[i];
    }
    for (int i = 0; i < block.count; ++i) {
      Real value = alpha[i] < 0 ? alpha[i] * slope_ : alpha[i];
      value = value * scale_ + bias_;
      value = value < lowest_ ? lowest_ : value;  // a NaN passes both comparisons
      alpha[i] = value > highest_ ? highest_ : value;
    }
  }

 private:
  std::vector<Real> weights_;
  Real slope_ = 0, scale_ = 0, bias_ = 0, lowest_, highest_;
};

template <class Fma, class Storage>
class UnitVisitor {
 public:
  using Real = Compute<Storage>;

  UnitVisitor(const Plane& plane, const UnitJob& job)
      : plane_(plane), job_(job), windows_(plane.taps()), branch_(job, plane.taps()) {}

  PPOOL_HOST_DEVICE void enter(int64_t index) {
    input_.emplace(plane_, job_.x, index);
    branch_.template read<Storage>(job_, index % job_.pool.c);
  }

  PPOOL_HOST_DEVICE void visit(Block block) {
    alignas(64) Real alpha[kLanes], y[kLanes];
    const int64_t start = input_->pooled_start + block.first;
    branch_.predict(plane_, block, input_->x, alpha);
    windows_.read(plane_, block, input_->x, input_->offset);
    pool_block<Fma>(windows_, plane_.taps(), block.count, alpha, y);
    for (int i = 0; i < block.count; ++i) y[i] += input_->offset;
    store<Storage>(y, block.count, job_.y, start);
    if (job_.alpha != nullptr) store<Storage>(alpha, block.count, job_.alpha, start);
  }

 private:
  const Plane& plane_;
  const UnitJob& job_;
  Windows<Real> windows_;
  ChannelBranch<Real> branch_;
  std::optional<Input<Storage>> input_;
};

}  // namespace ppool

#endif  // PPOOL_CPU_FORWARD_H_
