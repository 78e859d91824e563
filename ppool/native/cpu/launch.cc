// Chooses the kernel for an element type and for the processor's instruction set.
#include "launch.h"

#include "backward.h"
#include "forward.h"
#include "resize_argmax.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define PPOOL_X86_TARGETS 1
#endif

namespace ppool {
namespace {

#if defined(__aarch64__)
using PortableFma = OneRounding;
#else
using PortableFma = TwoRoundings;
#endif

// The ranges below are instantiated once for each instruction set.
template <class Fma, class Storage>
PPOOL_HOST_DEVICE void run_range(const ForwardJob& job, int64_t begin, int64_t end) {
  const Plane plane(job.pool);
  ForwardVisitor<Fma, Storage> visitor(plane, job);
  for_each_block(plane, begin, end, visitor);
}

template <class Fma, class Storage>
PPOOL_HOST_DEVICE void run_range(const UnitJob& job, int64_t begin, int64_t end) {
  const Plane plane(job.pool);
  UnitVisitor<Fma, Storage> visitor(plane, job);
  for_each_block(plane, begin, end, visitor);
}

template <class Fma, class Storage>
PPOOL_HOST_DEVICE void run_range(const BackwardJob& job, int64_t begin, int64_t end) {
  const Plane plane(job.pool);
  BackwardVisitor<Fma, Storage> visitor(plane, job);
  for (int64_t index = begin; index < end; ++index) {
    for_each_block(plane, index * plane.out_height, (index + 1) * plane.out_height, visitor);
    visitor.leave(index);
  }
}

template <class Fma, class Storage>
PPOOL_HOST_DEVICE void run_range(const ResizeArgMaxJob& job, int64_t begin, int64_t end) {
  ResizeArgMax<Storage>(job).run(begin, end);
}

template <class Job, class Storage>
void run_portable(const void* job, int64_t begin, int64_t end) {
  run_range<PortableFma, Storage>(*static_cast<const Job*>(job), begin, end);
}

#if PPOOL_X86_TARGETS
template <class Job, class Storage>
__attribute__((target("avx2,fma"))) void run_avx2(const void* job, int64_t begin, int64_t end) {
  run_range<OneRounding, Storage>(*static_cast<const Job*>(job), begin, end);
}

template <class Job, class Storage>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))) void run_avx512(
    const void* job, int64_t begin, int64_t end) {
  run_range<OneRounding, Storage>(*static_cast<const Job*>(job), begin, end);
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

template <class Job, class Storage>
Task task_for(const Job& job, int64_t units, int64_t cost) {
  Task task{run_portable<Job, Storage>, &job, units, cost};
#if PPOOL_X86_TARGETS
  static const bool avx512 = has_avx512(), avx2 = has_avx2();
  if (avx512) {
    task.run = run_avx512<Job, Storage>;
  } else if (avx2) {
    task.run = run_avx2<Job, Storage>;
  }
#endif
  return task;
}

template <class Job>
Task task_for(const Job& job, DType dtype, int64_t units, int64_t cost) {
  switch (dtype) {
    case DType::kFloat32:
      return task_for<Job, float>(job, units, cost);
    case DType::kFloat64:
      // Each element calls the C library, which no instruction set changes.
      return Task{run_portable<Job, double>, &job, units, cost};
    case DType::kFloat16:
      return task_for<Job, Half>(job, units, cost);
    case DType::kBFloat16:
      return task_for<Job, BFloat16>(job, units, cost);
  }
  return Task{nullptr, &job, 0, 0};
}

// A unit is a pooled row.
template <class Job>
Task pooling_task(const Job& job, DType dtype) {
  const Plane plane(job.pool);
  const int64_t rows = job.pool.n * job.pool.c * plane.out_height;
  return task_for(job, dtype, rows, plane.out_width * plane.taps());
}

}  // namespace

Task plan(const ForwardJob& job, DType dtype) { return pooling_task(job, dtype); }

Task plan(const UnitJob& job, DType dtype) { return pooling_task(job, dtype); }

Task plan(const BackwardJob& job, DType dtype) {
  const Plane plane(job.pool);
  return task_for(job, dtype, job.pool.n * job.pool.c, plane.pooled() * plane.taps());
}

Task plan(const ResizeArgMaxJob& job, DType dtype) {
  return task_for(job, dtype, job.n * job.out_h, job.classes * job.out_w);
}

const char* instruction_set() {
#if PPOOL_X86_TARGETS
  if (has_avx512()) return "avx512";
  if (has_avx2()) return "avx2";
#endif
  return "portable";
}

}  // namespace ppool
