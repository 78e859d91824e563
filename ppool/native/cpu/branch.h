// The side branch that predicts the exponents of one channel (Figure 1, Eq. 5).
#ifndef PPOOL_CPU_BRANCH_H_
#define PPOOL_CPU_BRANCH_H_

#include "../ppool_jobs.h"
#include "elements.h"

namespace ppool::PPOOL_ISA {

// What follows the depthwise convolution: PReLU, depthwise 1x1 convolution, clip.
template <class V>
struct ChannelBranch {
  using Real = typename V::Real;
  using F = typename V::F;

  Real slope, scale, bias, lowest, highest;

  // Reads a channel's parameters; `weights` receives the convolution's, times the input scale.
  template <class Job>
  static ChannelBranch of(const Job& job, const Elements<Real>& elements, int64_t channel,
                          Real* weights) {
    const int64_t taps = job.pool.kernel[0] * job.pool.kernel[1];
    elements.load(job.w_region, channel * taps, taps, weights);
    for (int64_t k = 0; k < taps; ++k) weights[k] *= Real(job.branch.input_scale);
    const auto read = [&](const void* parameter) {
      Real value;
      elements.load(parameter, channel, 1, &value);
      return value;
    };
    return {read(job.prelu_slope), read(job.w_point), read(job.b_point),
            Real(job.branch.alpha_min), Real(job.branch.alpha_max)};
  }

  F activated(F h) const { return V::if_less(h, V::set(0), h * V::set(slope), h); }

  // The exponents from the convolution's result; NaN stays NaN.
  F exponent(F h) const {
    const F alpha = V::mul_add(activated(h), V::set(scale), V::set(bias));
    return V::min(V::set(highest), V::max(V::set(lowest), alpha));
  }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_BRANCH_H_
