// Chooses the kernel for an element type and for the processor's instruction set.
#include "launch.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

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

Task task(const Run Kernels::*kernel, const void* job, DType dtype, int64_t units, int64_t cost) {
  const bool wide = dtype == DType::kFloat64;
  const Kernels& kernels = wide ? portable::double_kernels : *chosen().kernels;
  const bool exists = kernel != nullptr && is_known(dtype);
  return Task{exists ? kernels.*kernel : nullptr, job, units, cost};
}

// Element visits of one pooled row.
int64_t row_cost(const Pool2d& pool) {
  return pooled_size(pool, 1) * pool.kernel[0] * pool.kernel[1];
}

int64_t planes(const Pool2d& pool) { return pool.n * pool.c; }

// Most labels are copied, and every part has to find its columns and label its first rows again, so
// one in so many elements is counted as visited.
constexpr int64_t kVisited = 32;

// What a thread keeps: blocks, the last of which has `room` bytes from `start`, `used` handed out.
struct Scratch {
  std::vector<std::unique_ptr<char[]>> blocks;
  char* start = nullptr;
  size_t room = 0, used = 0, total = 0;

  void grow(size_t bytes) {
    size_t space = std::max(bytes, size_t{1} << 16) + kAlignment;
    room = used = 0;
    blocks.emplace_back(new char[space]);
    total += space;
    void* first = blocks.back().get();
    start = static_cast<char*>(std::align(kAlignment, space - kAlignment, first, space));
    room = space / kAlignment * kAlignment;
  }
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

}  // namespace

void begin_scratch() {
  Scratch& scratch = thread_scratch();
  if (scratch.blocks.size() > 1) {
    const size_t total = scratch.total;
    scratch = {};
    scratch.grow(total);
  }
  scratch.used = 0;
}

void* take_scratch(size_t bytes) {
  Scratch& scratch = thread_scratch();
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (scratch.room < scratch.used + bytes) scratch.grow(bytes);
  void* const taken = scratch.start + scratch.used;
  scratch.used += bytes;
  return std::memset(taken, 0, bytes);
}

// Windows in a plane or, where tensors are stored channels last, in an image are one part of the
// gradients because they may overlap; each pooled row is one of the result.
Task plan(const ForwardJob& job) {
  const Pool2d& pool = job.pool;
  const Run Kernels::*const kernel = pool.channels_last ? nullptr : &Kernels::forward;
  return task(kernel, &job, pool.dtype, planes(pool) * pooled_size(pool, 0), row_cost(pool));
}

Task plan(const UnitJob& job) {
  const Pool2d& pool = job.pool;
  const int64_t rows = pooled_size(pool, 0);
  if (!pool.channels_last) {
    return task(&Kernels::unit, &job, pool.dtype, planes(pool) * rows, row_cost(pool));
  }
  const int64_t cost = pool.c * row_cost(pool);
  return task(&Kernels::channels_last_unit, &job, pool.dtype, pool.n * rows, cost);
}

Task plan(const BackwardJob& job) {
  const Pool2d& pool = job.pool;
  const Run Kernels::*const kernel = pool.channels_last ? nullptr : &Kernels::backward;
  return task(kernel, &job, pool.dtype, planes(pool), pooled_size(pool, 0) * row_cost(pool));
}

Task plan(const UnitBackwardJob& job) {
  const Pool2d& pool = job.pool;
  const int64_t cost = pooled_size(pool, 0) * row_cost(pool);
  if (!pool.channels_last) {
    return task(&Kernels::unit_backward, &job, pool.dtype, planes(pool), cost);
  }
  return task(&Kernels::channels_last_unit_backward, &job, pool.dtype, pool.n, pool.c * cost);
}

Task plan(const ResizeArgMaxJob& job) {
  const int64_t rows = job.n * job.out_h, cost = job.classes * job.out_w / kVisited + 1;
  return task(&Kernels::resize_argmax, &job, job.dtype, rows, cost);
}

Task plan(const ResizeTwiceJob& job) {
  const Task last = plan(job.last);
  return task(&Kernels::resize_twice, &job, job.last.dtype, last.units, last.cost);
}

Task plan(const ResizePixelsJob& job) {
  return Task{chosen().kernels->resize_pixels, &job, job.out_h, job.out_w * job.down.reach};
}

const char* instruction_set() { return chosen().name; }

}  // namespace ppool
