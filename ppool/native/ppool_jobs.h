// What the kernels of every device are asked to do: plain pointers and numbers, no runtime. Tensors
// are dense. Each struct has a twin in ppool/_jobs.py.
#ifndef PPOOL_JOBS_H_
#define PPOOL_JOBS_H_

#include "ppool_params.h"

namespace ppool {

// Pooling with given exponents. x is [n, c, h, w]; alpha and y are [n, c, out_h, out_w].
struct ForwardJob {
  Pool2d pool;
  const void* x;
  const void* alpha;
  void* y;
};

// Side branch and pooling. w_region is [c, 1, kh, kw], the other parameters [c].
struct UnitJob {
  Pool2d pool;
  SideBranch branch;
  const void* x;
  const void* w_region;
  const void* prelu_slope;
  const void* w_point;
  const void* b_point;
  void* y;
};

// Gradients of the pooling: grad as y; dx as x and dalpha as alpha are overwritten.
struct BackwardJob {
  Pool2d pool;
  const void* grad;
  const void* x;
  const void* alpha;
  void* dx;
  void* dalpha;
};

// Gradients of the unit, its branch detached from x: grad as y; dx as x, and d_parameters
// [n, c, kh * kw + 3], for each plane those of w_region, prelu_slope, w_point and b_point, in the
// type that is computed in: float64 for float64, else float32.
struct UnitBackwardJob {
  Pool2d pool;
  SideBranch branch;
  float alpha_gradient_scale;
  const void* grad;
  const void* x;
  const void* w_region;
  const void* prelu_slope;
  const void* w_point;
  const void* b_point;
  void* dx;
  void* d_parameters;
};

// Bilinear resizing of logits [n, classes, h, w] to [out_h, out_w], and the first largest class:
// uint8, or uint16 where there are more classes than that holds. With a side of blocks above 1 they
// are stored as [n, classes, side, side, h / side, w / side], the pixels of blocks apart.
struct ResizeArgMaxJob {
  int64_t n, classes, h, w, out_h, out_w;
  DType dtype;
  int32_t side;
  const void* logits;
  void* labels;

  PPOOL_HOST_DEVICE bool is_wide() const { return classes > 256; }
};

constexpr int64_t kMostClasses = 65536;

// The same of logits that are resized before: `last` says of them [n, classes, last.h, last.w], and
// they are stored as [n, classes, h, w]. On a CPU only.
struct ResizeTwiceJob {
  ResizeArgMaxJob last;
  int64_t h, w;
};

// How one axis is resized: for each new place the first old one that it covers, how many, and the
// weights of these, in 2^-22, [new places, reach].
struct Taps {
  int64_t reach;
  const int32_t* first;
  const int32_t* count;
  const int32_t* weights;
};

// Pixels, uint8 [h, w, 3], at another size. It has an entry of its own and is none of those below,
// as it is no tensor's job and older libraries do without it; its twin is in ppool/_pixels.py.
struct ResizePixelsJob {
  int64_t h, w, out_h, out_w, down_first;
  const uint8_t* pixels;
  uint8_t* result;
  Taps across, down;
};

// The size of each struct, so that a caller can tell whether it means the same ones.
constexpr int kJobs = 5;
inline const int64_t* job_sizes() {
  static constexpr int64_t kSizes[kJobs] = {
      sizeof(ForwardJob), sizeof(BackwardJob), sizeof(UnitJob), sizeof(UnitBackwardJob),
      sizeof(ResizeArgMaxJob),
  };
  return kSizes;
}

}  // namespace ppool

#endif  // PPOOL_JOBS_H_
