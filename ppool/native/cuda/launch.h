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

// Each does one job and returns a cudaError, 0 for success; cudaErrorInvalidValue for sizes that do
// not fit, channels-last tensors, or an element type other than float32, float16 and bfloat16.
// `stream` is a cudaStream_t, null for the default one. The kernels may still be running on return.
PPOOL_CUDA_ENTRY int ppool_cuda_forward(const ppool::ForwardJob* job, void* stream);
PPOOL_CUDA_ENTRY int ppool_cuda_unit(const ppool::UnitJob* job, void* stream);
PPOOL_CUDA_ENTRY int ppool_cuda_backward(const ppool::BackwardJob* job, void* stream);
// `d_alpha` is room for one float a pooled element.
PPOOL_CUDA_ENTRY int ppool_cuda_unit_backward(const ppool::UnitBackwardJob* job, float* d_alpha,
                                              void* stream);
PPOOL_CUDA_ENTRY int ppool_cuda_resize_argmax(const ppool::ResizeArgMaxJob* job, void* stream);

// sizeof of each job, in the order of ppool_jobs.h.
PPOOL_CUDA_ENTRY const int64_t* ppool_job_sizes();

// Whether the kernels run on the host, on host memory, because no CUDA compiler built them.
PPOOL_CUDA_ENTRY int ppool_cuda_is_emulated();

// What a cudaError means, in words.
PPOOL_CUDA_ENTRY const char* ppool_cuda_error(int error);

#endif  // PPOOL_CUDA_LAUNCH_H_
