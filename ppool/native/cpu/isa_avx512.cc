// The kernels compiled for AVX-512.
#include "isa.h"

#if PPOOL_X86_TARGETS
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>

#include "../ppool_jobs.h"
#include "../ppool_storage.h"
#include "scratch.h"

// Whatever is shared with the rest of the library stays above this line: the linker keeps one copy
// of an inline function, and it must run on any processor.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC diagnostic ignored "-Wuninitialized"  // in GCC's own header (its bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#define PPOOL_ISA avx512
#include "kernels.h"
#include "vec_avx512.h"

const ppool::Kernels ppool::avx512::kernels = kernels_with<Floats>();
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
