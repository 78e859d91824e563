// Memory that a thread keeps between tasks, so that computing allocates only for a job larger than
// all before it. (A thread that c_api.cc starts for one call ends, and its memory with it.)
#ifndef PPOOL_CPU_SCRATCH_H_
#define PPOOL_CPU_SCRATCH_H_

#include <cstddef>
#include <cstdint>

namespace ppool {

// A widest vector, a cache line.
constexpr size_t kAlignment = 64;

// Makes all that this thread has taken free again.
void begin_scratch();

// Memory of this thread's, aligned and zeroed, until its next begin_scratch; throws std::bad_alloc.
void* take_scratch(size_t bytes);

template <class T>
T* take(int64_t count) {
  return static_cast<T*>(take_scratch(static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace ppool

#endif  // PPOOL_CPU_SCRATCH_H_
