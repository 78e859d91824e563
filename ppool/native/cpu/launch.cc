// Chooses the kernel for an element type and for the processor's instruction set.
#include "launch.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "isa.h"
#include "scratch.h"

namespace ppool {
namespace {

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
};

// The best the processor has, or a lesser one that the environment variable PPOOL_ISA names.
InstructionSet choose() {
  const char* const wanted = std::getenv("PPOOL_ISA");
  const auto allows = [wanted](const char* name) {
    return wanted == nullptr || *wanted == '\0' || std::strcmp(wanted, name) == 0;
  };
#if PPOOL_X86_TARGETS
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && allows("avx512")) return {"avx512", &avx512::kernels};
  if (avx2 && allows("avx2")) return {"avx2", &avx2::kernels};
#elif PPOOL_NEON
  if (allows("neon")) return {"neon", &neon::kernels};
#endif
  return {"portable", &portable::kernels};
}

const InstructionSet& chosen() {
  static const InstructionSet set = choose();
  return set;
}

bool is_known(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kFloat16 ||
         dtype == DType::kBFloat16;
}

template <class Job>
Task task(Run Kernels::*kernel, const Job& job, DType dtype, int64_t units, int64_t cost) {
  const bool wide = dtype == DType::kFloat64;
  const Kernels& kernels = wide ? portable::double_kernels : *chosen().kernels;
  return Task{is_known(dtype) ? kernels.*kernel : nullptr, &job, dtype, units, cost};
}

// Element visits of one pooled row.
int64_t row_cost(const Pool2d& pool) {
  return pooled_size(pool, 1) * pool.kernel[0] * pool.kernel[1];
}

int64_t planes(const Pool2d& pool) { return pool.n * pool.c; }

}  // namespace

void* thread_memory(size_t bytes) {
  struct Block {
    std::unique_ptr<char[]> memory;
    size_t bytes = 0;
  };
  thread_local Block block;
  const size_t wanted = bytes + kAlignment;
  if (block.bytes < wanted) {
    block.bytes = 0;
    block.memory.reset();
    block.memory.reset(new char[wanted]);
    block.bytes = wanted;
  }
  void* start = block.memory.get();
  size_t room = block.bytes;
  return std::align(kAlignment, bytes, start, room);
}

Task plan(const ForwardJob& job, DType dtype) {
  const int64_t rows = planes(job.pool) * pooled_size(job.pool, 0);
  return task(&Kernels::forward, job, dtype, rows, row_cost(job.pool));
}

Task plan(const UnitJob& job, DType dtype) {
  const int64_t rows = planes(job.pool) * pooled_size(job.pool, 0);
  return task(&Kernels::unit, job, dtype, rows, row_cost(job.pool));
}

Task plan(const BackwardJob& job, DType dtype) {
  const int64_t cost = pooled_size(job.pool, 0) * row_cost(job.pool);
  return task(&Kernels::backward, job, dtype, planes(job.pool), cost);
}

Task plan(const UnitBackwardJob& job, DType dtype) {
  const int64_t cost = pooled_size(job.pool, 0) * row_cost(job.pool);
  return task(&Kernels::unit_backward, job, dtype, planes(job.pool), cost);
}

Task plan_channels_last(const UnitJob& job, DType dtype) {
  const int64_t rows = job.pool.n * pooled_size(job.pool, 0);
  const int64_t cost = job.pool.c * row_cost(job.pool);
  return task(&Kernels::channels_last_unit, job, dtype, rows, cost);
}

Task plan_channels_last(const UnitBackwardJob& job, DType dtype) {
  const int64_t cost = job.pool.c * pooled_size(job.pool, 0) * row_cost(job.pool);
  return task(&Kernels::channels_last_unit_backward, job, dtype, job.pool.n, cost);
}

Task plan(const ResizeArgMaxJob& job, DType dtype) {
  const int64_t cost = job.classes * job.out_w;
  return task(&Kernels::resize_argmax, job, dtype, job.n * job.out_h, cost);
}

const char* instruction_set() { return chosen().name; }

}  // namespace ppool
