// Memory that a thread keeps between tasks, so that computing allocates only for a job larger than
// all before it.
#ifndef PPOOL_CPU_SCRATCH_H_
#define PPOOL_CPU_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ppool {

// A widest vector, a cache line.
constexpr size_t kAlignment = 64;

// At least `bytes` of this thread's memory, aligned; throws std::bad_alloc. What an earlier call
// on the thread returned is gone.
void* thread_memory(size_t bytes);

// Hands out pieces of one block. Constructed with no memory it only measures: a layout is written
// once and run twice.
class Pieces {
 public:
  explicit Pieces(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}

  // Zeroed; null while measuring.
  template <class T>
  T* take(int64_t count) {
    const size_t start = used_, bytes = static_cast<size_t>(count) * sizeof(T);
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (memory_ == nullptr) return nullptr;
    std::memset(memory_ + start, 0, bytes);
    return reinterpret_cast<T*>(memory_ + start);
  }

  size_t used() const { return used_; }

 private:
  char* memory_;
  size_t used_ = 0;
};

}  // namespace ppool

#endif  // PPOOL_CPU_SCRATCH_H_
