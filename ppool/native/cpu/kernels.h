// Every kernel for one instruction set, which PPOOL_ISA names, as the table that launch.cc chooses.
#ifndef PPOOL_CPU_KERNELS_H_
#define PPOOL_CPU_KERNELS_H_

#include "backward.h"
#include "channels_last.h"
#include "forward.h"
#include "resize_argmax.h"
#include "resize_pixels.h"

namespace ppool::PPOOL_ISA {

// Lays a kernel out in this thread's memory and runs its units [begin, end).
template <class Kernel, class... Context>
void run_kernel(int64_t begin, int64_t end, const Context&... context) {
  begin_scratch();
  Kernel(context...).run(begin, end);
}

template <class Real>
const Elements<Real>& elements_of(DType dtype) {
  if constexpr (std::is_same_v<Real, double>) {
    static constexpr auto elements = Elements<double>::of<double>();
    return elements;
  } else {
    static constexpr auto float32 = Elements<float>::of<float>();
    static constexpr auto float16 = Elements<float>::of<Half>();
    static constexpr auto bfloat16 = Elements<float>::of<BFloat16>();
    return dtype == DType::kFloat32 ? float32 : dtype == DType::kFloat16 ? float16 : bfloat16;
  }
}

template <template <class, class, int> class Kernel, class V, class Job>
void run_pooling(const void* pointer, int64_t begin, int64_t end) {
  const Job& job = *static_cast<const Job*>(pointer);
  const auto& elements = elements_of<typename V::Real>(job.pool.dtype);
  const Grid grid(job.pool);
  if (grid.taps == 4) {
    run_kernel<Kernel<V, Job, 4>>(begin, end, grid, job, elements);
  } else if (grid.taps == 9) {
    run_kernel<Kernel<V, Job, 9>>(begin, end, grid, job, elements);
  } else {
    run_kernel<Kernel<V, Job, 0>>(begin, end, grid, job, elements);
  }
}

template <class V>
void run_resize_argmax(const void* pointer, int64_t begin, int64_t end) {
  const ResizeArgMaxJob& job = *static_cast<const ResizeArgMaxJob*>(pointer);
  run_kernel<ResizeArgMax<V>>(begin, end, job, elements_of<typename V::Real>(job.dtype));
}

template <class V>
void run_resize_twice(const void* pointer, int64_t begin, int64_t end) {
  const ResizeTwiceJob& job = *static_cast<const ResizeTwiceJob*>(pointer);
  run_kernel<ResizeArgMax<V>>(begin, end, job, elements_of<typename V::Real>(job.last.dtype));
}

template <class V>
constexpr Kernels kernels_with() {
  return {run_pooling<Forward, V, ForwardJob>, run_pooling<Forward, V, UnitJob>,
          run_pooling<Backward, V, BackwardJob>, run_pooling<Backward, V, UnitBackwardJob>,
          run_pooling<ChannelsLastForward, V, UnitJob>,
          run_pooling<ChannelsLastBackward, V, UnitBackwardJob>, run_resize_argmax<V>,
          run_resize_twice<V>, resize_pixels<V>()};
}

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_KERNELS_H_
