// The kernels' entries: plain pointers to device memory, an element type and a stream; knows no
// runtime. Nothing is allocated and nothing waits, so calls may be captured in a CUDA graph.
#ifndef PPOOL_CUDA_LAUNCH_H_
#define PPOOL_CUDA_LAUNCH_H_

#include "../ppool_jobs.h"

#if defined(_WIN32)
#define PPOOL_CUDA_ENTRY extern "C" __declspec(dllexport)
#else
#define PPOOL_CUDA_ENTRY extern "C" __attribute__((visibility("default")))
#endif

// Each returns a cudaError, 0 for success; cudaErrorInvalidValue for sizes that do not fit or an
// element type other than float32, float16 and bfloat16. `dtype` is a ppool::DType and `stream` a
// cudaStream_t, null for the default one. The kernels may still be running on return.
PPOOL_CUDA_ENTRY int ppool_cuda_forward(const ppool::ForwardJob* job, int32_t dtype, void* stream);
PPOOL_CUDA_ENTRY int ppool_cuda_unit(const ppool::UnitJob* job, int32_t dtype, void* stream);
PPOOL_CUDA_ENTRY int ppool_cuda_backward(const ppool::BackwardJob* job, int32_t dtype,
                                         void* stream);
PPOOL_CUDA_ENTRY int ppool_cuda_resize_argmax(const ppool::ResizeArgMaxJob* job, int32_t dtype,
                                              void* stream);

// Whether the kernels run on the host, on host memory, because no CUDA compiler built them.
PPOOL_CUDA_ENTRY int ppool_cuda_is_emulated();

// What a cudaError means, in words.
PPOOL_CUDA_ENTRY const char* ppool_cuda_error(int error);

#endif  // PPOOL_CUDA_LAUNCH_H_
