// Runs a kernel body over a grid of blocks: on the GPU under nvcc, on the host under any other
// compiler. Both run the same body, so all indexing is tested without a GPU.
#ifndef PPOOL_CUDA_GRID_H_
#define PPOOL_CUDA_GRID_H_

#include <cstdint>
#include <limits>

#include "../ppool_params.h"

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#define PPOOL_UNROLL _Pragma("unroll")
#else
#include <cstring>
#include <memory>
#include <new>
#define PPOOL_UNROLL
#endif

namespace ppool::cuda {

constexpr int kThreads = 256;

// cudaErrorInvalidValue and cudaErrorMemoryAllocation; cudaSuccess is 0.
constexpr int kInvalidValue = 1, kOutOfMemory = 2;

// Quotient of numbers that are not negative. Two 32-bit numbers, the usual case, divide several
// times faster on a GPU than two of 64 bits.
PPOOL_HOST_DEVICE int64_t divide(int64_t number, int64_t by) {
  if (((number | by) >> 32) == 0) {
    return static_cast<uint32_t>(number) / static_cast<uint32_t>(by);
  }
  return number / by;
}

// A body has units(), the blocks of work; a type Shared, one for each block; kBlocks, how many a
// multiprocessor is to have registers for, 0 where the compiler may choose; and kPhases. All
// threads of a block finish run(phase, ...) before one begins the next phase. runs(phase) says
// whether a phase is needed, alike for all threads.
#if defined(__CUDACC__)

template <class Body>
__global__ void __launch_bounds__(kThreads, Body::kBlocks)
    run_body(const __grid_constant__ Body body) {
  __shared__ typename Body::Shared shared;
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t unit = blockIdx.x; unit < body.units(); unit += gridDim.x) {
    PPOOL_UNROLL
    for (int phase = 0; phase < Body::kPhases; ++phase) {
      if (!body.runs(phase)) continue;
      body.run(phase, shared, unit, thread);
      if (Body::kPhases > 1) __syncthreads();
    }
  }
}

template <class Body>
int launch(const Body& body, void* stream) {
  const int64_t most = std::numeric_limits<int32_t>::max();
  const int64_t units = body.units() < most ? body.units() : most;
  if (units == 0) return 0;
  run_body<<<static_cast<unsigned>(units), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(body);
  return static_cast<int>(cudaGetLastError());
}

#else

template <class Body>
int launch(const Body& body, void*) {
  const std::unique_ptr<typename Body::Shared> shared(new (std::nothrow) typename Body::Shared);
  if (shared == nullptr) return kOutOfMemory;
  for (int64_t unit = 0; unit < body.units(); ++unit) {
    // What one thread reads before another has written it is NaN, and shows.
    std::memset(static_cast<void*>(shared.get()), 0xff, sizeof(*shared));
    for (int phase = 0; phase < Body::kPhases; ++phase) {
      if (!body.runs(phase)) continue;
      for (int thread = 0; thread < kThreads; ++thread) body.run(phase, *shared, unit, thread);
    }
  }
  return 0;
}

#endif

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_GRID_H_
