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
int run(const Job* job, int32_t threads) noexcept {
  if (!is_valid(job->pool)) return static_cast<int>(Status::kBadArgument);
  return static_cast<int>(run(plan(*job), threads));
}

}  // namespace
}  // namespace ppool

// Each does one job of ppool_jobs.h on up to `threads` threads and returns a ppool::Status.
PPOOL_EXPORT int ppool_forward(const ppool::ForwardJob* job, int32_t threads) {
  return ppool::run(job, threads);
}
PPOOL_EXPORT int ppool_backward(const ppool::BackwardJob* job, int32_t threads) {
  return ppool::run(job, threads);
}
PPOOL_EXPORT int ppool_unit(const ppool::UnitJob* job, int32_t threads) {
  return ppool::run(job, threads);
}
PPOOL_EXPORT int ppool_unit_backward(const ppool::UnitBackwardJob* job, int32_t threads) {
  return ppool::run(job, threads);
}
PPOOL_EXPORT int ppool_resize_pixels(const ppool::ResizePixelsJob* job, int32_t threads) {
  return static_cast<int>(ppool::run(plan(*job), threads));
}

// sizeof of each job, in the order of ppool_jobs.h.
PPOOL_EXPORT const int64_t* ppool_job_sizes() { return ppool::job_sizes(); }

PPOOL_EXPORT const char* ppool_version() { return PPOOL_VERSION; }

PPOOL_EXPORT const char* ppool_instruction_set() { return ppool::instruction_set(); }
