// The unit and its gradients on tensors stored [n, h, w, c], as PyTorch trains convolutions: a
// vector is one window of neighbouring channels.
#ifndef PPOOL_CPU_CHANNELS_LAST_H_
#define PPOOL_CPU_CHANNELS_LAST_H_

#include "../ppool_jobs.h"
#include "branch.h"
#include "pixels.h"

namespace ppool::PPOOL_ISA {

// The branches of a vector of channels at a time.
template <class V>
class Branches {
  using Real = typename V::Real;
  using F = typename V::F;

 public:
  Branches(const Grid& grid)
      : taps_(grid.taps),
        length_(round_up(grid.pool.c, 16)),
        weights_(take<Real>(taps_ * length_)),
        slope_(take<Real>(length_)),
        scale_(take<Real>(length_)),
        bias_(take<Real>(length_)),
        one_channel_(take<Real>(taps_)) {}

  template <class Job>
  void read(const Job& job, const Elements<Real>& elements) {
    for (int64_t c = 0; c < job.pool.c; ++c) {
      read_channel<V>(job, elements, c, one_channel_);
      for (int64_t k = 0; k < taps_; ++k) weights_[k * length_ + c] = one_channel_[k];
    }
    elements.load(job.prelu_slope, 0, job.pool.c, slope_);
    elements.load(job.w_point, 0, job.pool.c, scale_);
    elements.load(job.b_point, 0, job.pool.c, bias_);
    lowest_ = V::set(Real(job.branch.alpha_min));
    highest_ = V::set(Real(job.branch.alpha_max));
  }

  Branch<V> at(int64_t channel) const {
    return {V::load(slope_ + channel), V::load(scale_ + channel), V::load(bias_ + channel), lowest_,
            highest_};
  }

  // The convolution's result for a window.
  PPOOL_HOST_DEVICE F convolve(const Real* const* taps, int64_t count, int64_t channel) const {
    F h = V::set(0);
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) {
      h = V::mul_add(V::load(weights_ + k * length_ + channel), V::load(taps[k] + channel), h);
    }
    return h;
  }

 private:
  int64_t taps_, length_;
  Real* weights_;  // [taps, channels]
  Real* slope_;
  Real* scale_;
  Real* bias_;
  Real* one_channel_;
  F lowest_ = {}, highest_ = {};
};

template <class V, class Job, int kTaps>
class ChannelsLastForward {
  using Real = typename V::Real;
  using F = typename V::F;

 public:
  ChannelsLastForward(const Grid& grid, const Job& job, const Elements<Real>& elements)
      : grid_(grid),
        job_(job),
        elements_(elements),
        x_(grid, elements, job.x),
        branches_(grid),
        lone_(grid),
        y_(take<Real>(grid.out_w * grid.pool.c + 16)),
        alpha_(take<Real>(V::kLanes)),
        values_(take<F>(grid.taps)) {
    branches_.read(job, elements);
  }

  // Pooled rows [begin, end) of all images.
  void run(int64_t begin, int64_t end) {
    int64_t image = -1;
    for (int64_t index = begin; index < end; ++index) {
      const int64_t row = index % grid_.out_h;
      if (index / grid_.out_h != image) x_.enter(image = index / grid_.out_h);
      x_.read(row);
      for (int64_t column = 0; column < grid_.out_w; ++column) pool_window(row, column);
      x_.restore(y_);
      const int64_t count = grid_.out_w * grid_.pool.c;
      elements_.store(y_, count, job_.y, index * count);
    }
  }

 private:
  void pool_window(int64_t row, int64_t column) {
    const int64_t count = kTaps > 0 ? kTaps : grid_.taps;
    const PixelTaps<Real> taps = x_.at(row, column);
    Real* const y = y_ + column * grid_.pool.c;
    for (int64_t channel = 0; channel < grid_.pool.c; channel += V::kLanes) {
      F fixed[kTaps > 0 ? kTaps : 1];
      F* const values = kTaps > 0 ? fixed : values_;
#pragma GCC unroll 9
      for (int64_t k = 0; k < count; ++k) values[k] = V::load(taps.pooled[k] + channel);
      const F h = branches_.convolve(taps.seen, count, channel);
      const F alpha = branches_.at(channel).exponent(h);
      const F held = V::min(V::set(Range<Real>::kLargest), alpha);
      unsigned odd;
      V::store(y + channel, pool_windows<V, kTaps>(values, count, held, odd));
      if (odd == 0) continue;
      V::store(alpha_, alpha);
      for (int lane = 0; lane < V::kLanes && channel + lane < grid_.pool.c; ++lane) {
        if ((odd >> lane & 1) == 0) continue;
        lone_.read(taps.pooled, channel + lane, row, column);
        y[channel + lane] = lone_.pool(alpha_[lane]);
      }
    }
  }

  const Grid& grid_;
  const Job& job_;
  const Elements<Real>& elements_;
  PixelReader<Real> x_;
  Branches<V> branches_;
  LoneWindow<Real> lone_;
  Real* y_;
  Real* alpha_;
  F* values_;
};

template <class V, class Job, int kTaps>
class ChannelsLastBackward {
  using Real = typename V::Real;
  using F = typename V::F;

 public:
  ChannelsLastBackward(const Grid& grid, const Job& job, const Elements<Real>& elements)
      : grid_(grid),
        job_(job),
        elements_(elements),
        x_(grid, elements, job.x),
        dx_(grid),
        branches_(grid),
        lone_(grid),
        vectors_(grid.taps),
        grad_(take<Real>(grid.out_w * grid.pool.c + 16)),
        alpha_(take<Real>(V::kLanes)),
        dalpha_(take<Real>(V::kLanes)),
        sums_(take<Real>((grid.taps + 3) * sum_length())) {
    branches_.read(job, elements);
  }

  // Images [begin, end).
  void run(int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      x_.enter(image);
      done_ = 0;
      std::fill(sums_, sums_ + (grid_.taps + 3) * sum_length(), Real(0));
      for (int64_t row = 0; row < grid_.out_h; ++row) differentiate_row(image, row);
      finish(image, grid_.pool.h);
      leave(image);
    }
  }

 private:
  int64_t sum_length() const { return round_up(grid_.pool.c, 16); }

  // Writes the gradient of every row before `end`.
  void finish(int64_t image, int64_t end) {
    const int64_t count = grid_.pool.w * grid_.pool.c;
    for (const int64_t stop = std::min(end, grid_.pool.h); done_ < stop; ++done_) {
      Real* const row = dx_.row(done_);
      const int64_t start = (image * grid_.pool.h + done_) * count;
      elements_.store_gradient(row, count, job_.x, !grid_.pool.is_signed, job_.dx, start);
      std::fill(row, row + count, Real(0));
    }
  }

  // The parameters' gradients of one image, [c, taps + 3].
  void leave(int64_t image) {
    Real* to = static_cast<Real*>(job_.d_parameters) + image * grid_.pool.c * (grid_.taps + 3);
    for (int64_t c = 0; c < grid_.pool.c; ++c) {
      for (int64_t k = 0; k < grid_.taps + 3; ++k) {
        const Real scale = k < grid_.taps ? Real(job_.branch.input_scale) : Real(1);
        *to++ = scale * sums_[k * sum_length() + c];
      }
    }
  }

  void differentiate_row(int64_t image, int64_t row) {
    const int64_t count = grid_.out_w * grid_.pool.c;
    finish(image, grid_.image_row(row, 0));
    x_.read(row);
    elements_.load(job_.grad, (image * grid_.out_h + row) * count, count, grad_);
    for (int64_t column = 0; column < grid_.out_w; ++column) {
      const Window at{x_.at(row, column), dx_.at(row, column), row, column};
      int64_t inside = 0;
      for (int64_t k = 0; k < grid_.taps; ++k) inside += lone_.inside(row, column, k) ? 1 : 0;
      const F average = V::set(1 / Real(inside));
      for (int64_t channel = 0; channel < grid_.pool.c; channel += V::kLanes) {
        differentiate_vector(at, channel, average);
      }
    }
  }

  struct Window {
    PixelTaps<Real> taps;
    Real* const* gradients;
    int64_t row, column;
  };

  void differentiate_vector(const Window& at, int64_t channel, F average) {
    const int64_t count = kTaps > 0 ? kTaps : grid_.taps;
    F* const values = vectors_.values;
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) values[k] = V::load(at.taps.pooled[k] + channel);
    const Branch<V> branch = branches_.at(channel);
    const F h = branches_.convolve(at.taps.seen, count, channel);
    const F alpha = branch.exponent(h);
    const F held = V::min(V::set(Range<Real>::kLargest), alpha);
    unsigned odd;
    const F slope = differentiate_windows<V, kTaps>(vectors_, count, held, average, odd);
    const unsigned wanted = lanes_of<V>(grid_.pool.c - channel);
    odd &= wanted;
    const Real* const grads = grad_ + at.column * grid_.pool.c + channel;
    const F grad = V::keep(wanted & ~odd, V::load(grads));
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k) {
      add(at.gradients[k] + channel, V::keep(wanted & ~odd, vectors_.weights[k] * grad));
    }
    V::store(dalpha_, V::keep(wanted & ~odd, slope * grad));
    if (odd != 0) {
      V::store(alpha_, alpha);
      differentiate_alone(at, channel, grads, odd);
    }
    const F scale = V::set(Real(job_.alpha_gradient_scale));
    const auto slopes = branch.differentiate(h, V::load(dalpha_) * scale);
    Real* sum = sums_ + channel;
#pragma GCC unroll 9
    for (int64_t k = 0; k < count; ++k, sum += sum_length()) {
      add(sum, V::keep(wanted, slopes.h * V::load(at.taps.seen[k] + channel)));
    }
    add(sum, V::keep(wanted, slopes.slope));
    add(sum + sum_length(), V::keep(wanted, slopes.scale));
    add(sum + 2 * sum_length(), V::keep(wanted, slopes.bias));
  }

  static void add(Real* to, F part) { V::store(to, V::load(to) + part); }

  // The lanes of a vector that have their bit set, one after the other.
  void differentiate_alone(const Window& at, int64_t channel, const Real* grads, unsigned lanes) {
    for (int lane = 0; lane < V::kLanes; ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      const int64_t c = channel + lane;
      lone_.read(at.taps.pooled, c, at.row, at.column);
      dalpha_[lane] = lone_.differentiate(alpha_[lane], grads[lane], at.gradients, c);
    }
  }

  const Grid& grid_;
  const Job& job_;
  const Elements<Real>& elements_;
  PixelReader<Real> x_;
  PixelRows<Real> dx_;  // in the computing type, so that overlapping windows add up unrounded
  Branches<V> branches_;
  LoneWindow<Real> lone_;
  TapVectors<V> vectors_;
  Real* grad_;
  Real* alpha_;
  Real* dalpha_;
  Real* sums_;  // [taps + 3, channels]
  int64_t done_ = 0;
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_CHANNELS_LAST_H_
