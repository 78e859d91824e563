// The task with which the CPU kernels answer a job; knows no runtime.
#ifndef PPOOL_CPU_LAUNCH_H_
#define PPOOL_CPU_LAUNCH_H_

#include <algorithm>
#include <atomic>
#include <new>

#include "../ppool_jobs.h"

namespace ppool {

// Work cut into `units` independent parts; any division of them gives the same bits. `run` does
// [begin, end) and may throw std::bad_alloc. `cost` is the element visits of one unit.
struct Task {
  void (*run)(const void* job, int64_t begin, int64_t end);
  const void* job;
  int64_t units;
  int64_t cost;
};

// The task refers to the job, which must outlive it. `run` is null where there is no kernel: for an
// unknown type, and for channels-last tensors that are shifted (Eq. 2) or have their exponents given.
Task plan(const ForwardJob& job);
Task plan(const UnitJob& job);
Task plan(const BackwardJob& job);
Task plan(const UnitBackwardJob& job);
Task plan(const ResizeArgMaxJob& job);
Task plan(const ResizeTwiceJob& job);
Task plan(const ResizePixelsJob& job);

// The instruction set the kernels use: "avx512", "avx2" or "portable"; the best that the processor
// has, or the lesser one that the environment variable PPOOL_ISA names.
const char* instruction_set();

// A task cut into parts, which threads may run in any order.
class Parts {
 public:
  Parts(const Task& task, int64_t most) : task_(task) {
    const int64_t worth = std::min(task.units * task.cost / kGrain + 1, task.units);
    count_ = std::min(worth, most);
  }

  // Zero for an empty task.
  int64_t count() const { return count_; }

  void run(int64_t index) noexcept {
    try {
      task_.run(task_.job, begin(index), begin(index + 1));
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
    }
  }

  // Whether a part that has run could not do its work.
  bool out_of_memory() const { return out_of_memory_; }

 private:
  static constexpr int64_t kGrain = 1 << 15;  // element visits that pay for waking a thread

  int64_t begin(int64_t index) const {
    return task_.units / count_ * index + task_.units % count_ * index / count_;
  }

  Task task_;
  int64_t count_;
  std::atomic<bool> out_of_memory_{false};
};

}  // namespace ppool

#endif  // PPOOL_CPU_LAUNCH_H_
