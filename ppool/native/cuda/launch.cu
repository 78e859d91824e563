// Chooses a kernel for each job and launches it. Built by nvcc, or by a C++ compiler to run the
// same kernels on the host (grid.h).
#include "launch.h"

#include <type_traits>

#include "backward.h"
#include "branch_backward.h"
#include "forward.h"
#include "resize_argmax.h"

namespace ppool::cuda {
namespace {

using Square2 = Square<2, 2, 0>;
using Square3By2 = Square<3, 2, 1>;
using Square3By1 = Square<3, 1, 1>;

template <class Storage>
GivenAlpha<Storage> alpha_for(const ForwardJob& job) {
  return {static_cast<const Storage*>(job.alpha), false};
}

// UnitJob and UnitBackwardJob.
template <class Storage, class Job>
BranchAlpha<Storage> alpha_for(const Job& job) {
  return {job.branch, static_cast<const Storage*>(job.w_region),
          static_cast<const Storage*>(job.prelu_slope), static_cast<const Storage*>(job.w_point),
          static_cast<const Storage*>(job.b_point)};
}

template <class Storage, class Window, class Job>
int start_square(const Problem& problem, const Job& job, void* stream) {
  auto alpha = alpha_for<Storage>(job);
  if constexpr (std::is_same_v<Job, ForwardJob>) {
    const int64_t bytes = Patch<Storage, Window>::kOut * sizeof(Storage);
    alpha.whole = rows_aligned(alpha.alpha, problem.out_w, bytes);
  }
  using Body = ForwardSquare<Storage, Window, decltype(alpha)>;
  return launch(Body(problem, job.x, job.y, alpha), stream);
}

// ForwardJob and UnitJob.
template <class Storage, class Job>
int start(const Job& job, void* stream) {
  const Problem problem(job.pool);
  if (Square2::is(job.pool)) return start_square<Storage, Square2>(problem, job, stream);
  if (Square3By2::is(job.pool)) return start_square<Storage, Square3By2>(problem, job, stream);
  if (Square3By1::is(job.pool)) return start_square<Storage, Square3By1>(problem, job, stream);
  auto alpha = alpha_for<Storage>(job);
  return launch(ForwardAny<Storage, decltype(alpha)>(problem, job.x, job.y, alpha), stream);
}

template <class At>
int start_backward(const Problem& problem, const At& at, void* stream) {
  const Pool2d& pool = problem.pool;
  if (Square2::is(pool)) return launch(BackwardApart<At>(problem, at), stream);
  if (pool.is_signed == 0 && Square3By2::is(pool)) {
    return launch(BackwardTiled<At, 2>(problem, at), stream);
  }
  if (pool.is_signed == 0 && Square3By1::is(pool)) {
    return launch(BackwardTiled<At, 1>(problem, at), stream);
  }
  return launch(BackwardAny<At>(problem, at), stream);
}

template <class Storage>
int start(const BackwardJob& job, void* stream) {
  const Problem problem(job.pool);
  GivenAlpha<Storage> alpha{static_cast<const Storage*>(job.alpha), false};
  alpha.whole = rows_aligned(alpha.alpha, problem.out_w, Patch<Storage, Square2>::kOut * sizeof(Storage));
  const Gradients<Storage, GivenAlpha<Storage>, Storage> at{
      static_cast<const Storage*>(job.grad), static_cast<const Storage*>(job.x), alpha,
      static_cast<Storage*>(job.dx), static_cast<Storage*>(job.dalpha)};
  return start_backward(problem, at, stream);
}

template <class Storage>
int start_branch(const Problem& problem, const BranchGradients<Storage>& at, void* stream) {
  const Pool2d& pool = problem.pool;
  if (Square2::is(pool)) return launch(BranchBackwardSquare<Storage, Square2>(problem, at), stream);
  if (Square3By2::is(pool)) {
    return launch(BranchBackwardSquare<Storage, Square3By2>(problem, at), stream);
  }
  if (Square3By1::is(pool)) {
    return launch(BranchBackwardSquare<Storage, Square3By1>(problem, at), stream);
  }
  return launch(BranchBackwardAny<Storage>(problem, at), stream);
}

struct UnitBackward : UnitBackwardJob {
  float* d_alpha;
};

template <class Storage>
int start(const UnitBackward& job, void* stream) {
  const Problem problem(job.pool);
  const auto alpha = alpha_for<Storage>(job);
  const auto* x = static_cast<const Storage*>(job.x);
  const Gradients<Storage, BranchAlpha<Storage>, float> at{
      static_cast<const Storage*>(job.grad), x, alpha, static_cast<Storage*>(job.dx), job.d_alpha};
  if (const int error = start_backward(problem, at, stream)) return error;
  const BranchGradients<Storage> branch{x, alpha, job.d_alpha, job.alpha_gradient_scale,
                                        static_cast<float*>(job.d_parameters)};
  return start_branch(problem, branch, stream);
}

template <class Storage>
int start(const ResizeArgMaxJob& job, void* stream) {
  return launch(ResizeArgMax<Storage>(job), stream);
}

template <class Job>
int start(const Job& job, DType dtype, void* stream) {
  switch (dtype) {
    case DType::kFloat32:
      return start<float>(job, stream);
    case DType::kFloat16:
      return start<Half>(job, stream);
    case DType::kBFloat16:
      return start<BFloat16>(job, stream);
    case DType::kFloat64:
      break;
  }
  return kInvalidValue;
}

template <class Job>
int start_pooling(const Job& job, void* stream) {
  const bool runs = is_valid(job.pool) && !job.pool.channels_last;
  return runs ? start(job, job.pool.dtype, stream) : kInvalidValue;
}

}  // namespace
}  // namespace ppool::cuda

int ppool_cuda_forward(const ppool::ForwardJob* job, void* stream) {
  return ppool::cuda::start_pooling(*job, stream);
}

int ppool_cuda_unit(const ppool::UnitJob* job, void* stream) {
  return ppool::cuda::start_pooling(*job, stream);
}

int ppool_cuda_backward(const ppool::BackwardJob* job, void* stream) {
  return ppool::cuda::start_pooling(*job, stream);
}

int ppool_cuda_unit_backward(const ppool::UnitBackwardJob* job, float* d_alpha, void* stream) {
  return ppool::cuda::start_pooling(ppool::cuda::UnitBackward{*job, d_alpha}, stream);
}

int ppool_cuda_resize_argmax(const ppool::ResizeArgMaxJob* job, void* stream) {
  const bool sizes = job->n >= 0 && job->out_h >= 0 && job->out_w >= 0 && job->h > 0 && job->w > 0;
  if (!sizes || job->classes < 1 || job->classes > ppool::kMostClasses) return ppool::cuda::kInvalidValue;
  return ppool::cuda::start(*job, job->dtype, stream);
}

const int64_t* ppool_job_sizes() { return ppool::job_sizes(); }

#if defined(__CUDACC__)
int ppool_cuda_is_emulated() { return 0; }
const char* ppool_cuda_error(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
#else
int ppool_cuda_is_emulated() { return 1; }
const char* ppool_cuda_error(int error) {
  return error == ppool::cuda::kInvalidValue ? "invalid argument" : "out of memory";
}
#endif
