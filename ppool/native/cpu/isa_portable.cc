// The kernels for any processor the compiler knows, and those for float64 on all of them.
#include "isa.h"

#define PPOOL_ISA portable
#include "kernels.h"
#include "vec_double.h"
#include "vec_portable.h"

const ppool::Kernels ppool::portable::kernels = kernels_with<Floats>();
const ppool::Kernels ppool::portable::double_kernels = kernels_with<Double>();
