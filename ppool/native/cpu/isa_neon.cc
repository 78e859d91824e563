// The kernels for NEON, which every 64-bit ARM processor has.
#include "isa.h"

#if PPOOL_NEON
#define PPOOL_ISA neon
#include "kernels.h"
#include "vec_neon.h"

const ppool::Kernels ppool::neon::kernels = kernels_with<Floats>();
#endif
