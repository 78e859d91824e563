// The kernels' entry points, compiled once for each instruction set, and which sets there are.
#ifndef PPOOL_CPU_ISA_H_
#define PPOOL_CPU_ISA_H_

#include "../ppool_params.h"

// One file must be able to hold code for a processor that the rest of the library does not need.
#if defined(__GNUC__) && defined(__x86_64__)
#define PPOOL_X86_TARGETS 1
#elif defined(__GNUC__) && defined(__aarch64__)
#define PPOOL_NEON 1
#endif

namespace ppool {

// Does units [begin, end) of a job; may throw std::bad_alloc.
using Run = void (*)(const void* job, int64_t begin, int64_t end);

struct Kernels {
  Run forward, unit, backward, unit_backward;
  Run channels_last_unit, channels_last_unit_backward;
  Run resize_argmax, resize_twice, resize_pixels;
};

namespace portable {
extern const Kernels kernels;
extern const Kernels double_kernels;  // for float64, on any processor
}  // namespace portable
#if PPOOL_X86_TARGETS
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#elif PPOOL_NEON
namespace neon {
extern const Kernels kernels;
}
#endif

}  // namespace ppool

#endif  // PPOOL_CPU_ISA_H_
