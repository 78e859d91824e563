// The parameters of every operator and the output-size arithmetic; plain data, no runtime.
#ifndef PPOOL_PARAMS_H_
#define PPOOL_PARAMS_H_

#include <cstdint>

#if defined(__CUDACC__)
#define PPOOL_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// A helper left out of line would be compiled for the baseline instruction set only.
#define PPOOL_HOST_DEVICE inline __attribute__((always_inline))
#else
#define PPOOL_HOST_DEVICE inline
#endif

namespace ppool {

enum class DType : int32_t { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3 };

// Zero is success, as in every C library.
enum class Status : int { kOk = 0, kBadArgument = 1, kOutOfMemory = 2 };

// A pooling of [n, c, h, w]; pairs are (height, width) in elements.
struct Pool2d {
  int64_t n, c, h, w;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int32_t ceil_mode;
  int32_t is_signed;      // Eq. 2: shift each plane by its negative minimum
  DType dtype;            // of every tensor
  int32_t channels_last;  // x, y and their gradients are stored [n, h, w, c]
};

// Constants of the side branch that predicts alpha (Figure 1, Eq. 5).
struct SideBranch {
  float input_scale, alpha_min, alpha_max;
};

// Length of one pooled axis as torch.nn.MaxPool2d computes it; 0 where no window fits.
PPOOL_HOST_DEVICE int64_t pooled_size(const Pool2d& pool, int axis) {
  const int64_t size = axis == 0 ? pool.h : pool.w;
  const int64_t stride = pool.stride[axis], padding = pool.padding[axis];
  const int64_t extent = pool.dilation[axis] * (pool.kernel[axis] - 1) + 1;
  const int64_t free = size + 2 * padding + (pool.ceil_mode ? stride - 1 : 0) - extent;
  if (size < 1 || free < 0) return 0;
  int64_t pooled = free / stride + 1;
  // A window may not start in the right padding.
  if (pool.ceil_mode && (pooled - 1) * stride >= size + padding) --pooled;
  return pooled;
}

// Whether the kernels can run with these numbers.
inline bool is_valid(const Pool2d& pool) {
  if (pool.n < 0 || pool.c < 0 || pool.h < 0 || pool.w < 0) return false;
  for (int axis = 0; axis < 2; ++axis) {
    if (pool.kernel[axis] < 1 || pool.stride[axis] < 1 || pool.dilation[axis] < 1) return false;
    if (pool.padding[axis] < 0 || 2 * pool.padding[axis] > pool.kernel[axis]) return false;
    if (pooled_size(pool, axis) < 1) return false;
  }
  return true;
}

}  // namespace ppool

#endif  // PPOOL_PARAMS_H_
