// The side branch that predicts the exponents of one channel (Figure 1, Eq. 5).
#ifndef PPOOL_CPU_BRANCH_H_
#define PPOOL_CPU_BRANCH_H_

#include "../ppool_jobs.h"
#include "elements.h"

namespace ppool::PPOOL_ISA {

// What follows the depthwise convolution, for a vector of windows: PReLU, depthwise 1x1
// convolution, clip.
template <class V>
struct Branch {
  using Real = typename V::Real;
  using F = typename V::F;

  F slope, scale, bias, lowest, highest;

  F activated(F h) const { return V::if_less(h, V::set(0), h * slope, h); }
  F unclipped(F h) const { return V::mul_add(activated(h), scale, bias); }

  // The exponents from the convolution's result; NaN stays NaN.
  F exponent(F h) const { return V::min(highest, V::max(lowest, unclipped(h))); }

  // The gradients of b_point, w_point, prelu_slope and the convolution's result, from alpha's.
  struct Gradients {
    F bias, scale, slope, h;
  };

  Gradients differentiate(F h, F grad) const {
    const F zero = V::set(0);
    grad = V::if_less(unclipped(h), lowest, zero, grad);
    grad = V::if_less(highest, unclipped(h), zero, grad);
    const F d_activated = grad * scale;
    return {grad, grad * activated(h), V::if_less(zero, h, zero, d_activated * h),
            V::if_less(zero, h, d_activated, d_activated * slope)};
  }
};

// Reads one channel's parameters; `weights` receives the convolution's, times the input scale.
template <class V, class Job>
Branch<V> read_channel(const Job& job, const Elements<typename V::Real>& elements, int64_t channel,
                       typename V::Real* weights) {
  using Real = typename V::Real;
  const int64_t taps = job.pool.kernel[0] * job.pool.kernel[1];
  elements.load(job.w_region, channel * taps, taps, weights);
  for (int64_t k = 0; k < taps; ++k) weights[k] *= Real(job.branch.input_scale);
  const auto read = [&](const void* parameter) {
    Real value;
    elements.load(parameter, channel, 1, &value);
    return V::set(value);
  };
  return {read(job.prelu_slope), read(job.w_point), read(job.b_point),
          V::set(Real(job.branch.alpha_min)), V::set(Real(job.branch.alpha_max))};
}

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_BRANCH_H_
