// The C entries, for callers that hold plain pointers: nothing here aborts or throws.
#include <exception>
#include <thread>
#include <vector>

#include "cpu/launch.h"

#if defined(_WIN32)
#define PPOOL_EXPORT extern "C" __declspec(dllexport)
#else
#define PPOOL_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace ppool {
namespace {

// Runs a task on up to `threads` threads, this one included.
Status run(const Task& task, int threads) noexcept {
  if (task.run == nullptr) return Status::kBadArgument;
  Parts parts(task, std::max(threads, 1));
  std::vector<std::thread> helpers;
  int64_t started = 1;
  try {
    for (; started < parts.count(); ++started) {
      helpers.emplace_back([&parts, started] { parts.run(started); });
    }
  } catch (const std::exception&) {
    // No more threads or memory for them: the remaining parts run here.
  }
  for (int64_t part = started; part < parts.count(); ++part) parts.run(part);
  if (parts.count() > 0) parts.run(0);
  for (std::thread& helper : helpers) helper.join();
  return parts.out_of_memory() ? Status::kOutOfMemory : Status::kOk;
}

template <class Job>
int run_pooling(const Job& job, int32_t dtype, int32_t threads) noexcept {
  if (!is_valid(job.pool)) return static_cast<int>(Status::kBadArgument);
  return static_cast<int>(run(plan(job, static_cast<DType>(dtype)), threads));
}

template <class Job>
int run_unit(const Job& job, int32_t dtype, bool channels_last, int32_t threads) noexcept {
  if (!channels_last) return run_pooling(job, dtype, threads);
  if (!is_valid(job.pool) || job.pool.is_signed) return static_cast<int>(Status::kBadArgument);
  return static_cast<int>(run(plan_channels_last(job, static_cast<DType>(dtype)), threads));
}

}  // namespace
}  // namespace ppool

// Each returns a ppool::Status; tensors are dense, of one element type `dtype` (ppool::DType).

// y [n, c, out_h, out_w] of Eq. 1 from x [n, c, h, w] and alpha shaped as y.
PPOOL_EXPORT int ppool2d_forward(const ppool::Pool2d* pool, int32_t dtype, const void* x,
                                 const void* alpha, void* y, int32_t threads) {
  return ppool::run_pooling(ppool::ForwardJob{*pool, x, alpha, y}, dtype, threads);
}

// dx as x and dalpha as alpha from grad as y (Eq. 3 and 4).
PPOOL_EXPORT int ppool2d_backward(const ppool::Pool2d* pool, int32_t dtype, const void* grad,
                                  const void* x, const void* alpha, void* dx, void* dalpha,
                                  int32_t threads) {
  const ppool::BackwardJob job{*pool, grad, x, alpha, dx, dalpha};
  return ppool::run_pooling(job, dtype, threads);
}

// The unit of Figure 1, with tensors stored [n, h, w, c] where `channels_last`. The job's layout is
// that of ppool_jobs.h.
PPOOL_EXPORT int ppool2d_unit(const ppool::UnitJob* job, int32_t dtype, int32_t channels_last,
                              int32_t threads) {
  return ppool::run_unit(*job, dtype, channels_last, threads);
}

// Its gradients (Eq. 3 to 5), the branch detached from x.
PPOOL_EXPORT int ppool2d_unit_backward(const ppool::UnitBackwardJob* job, int32_t dtype,
                                       int32_t channels_last, int32_t threads) {
  return ppool::run_unit(*job, dtype, channels_last, threads);
}

PPOOL_EXPORT const char* ppool_version() { return PPOOL_VERSION; }

PPOOL_EXPORT const char* ppool_instruction_set() { return ppool::instruction_set(); }
