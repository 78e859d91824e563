// Sixteen floats in an AVX-512 register.
#ifndef PPOOL_CPU_VEC_AVX512_H_
#define PPOOL_CPU_VEC_AVX512_H_

#include <immintrin.h>

#include "../ppool_math.h"

namespace ppool::PPOOL_ISA {

struct Floats {
  using Real = float;
  using F = __m512;
  static constexpr int kLanes = 16;

  static F set(float value) { return _mm512_set1_ps(value); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F v) { _mm512_storeu_ps(to, v); }

  // Whole numbers below 256.
  static void store_bytes(uint8_t* to, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
  }

  // Bytes times weights in 2^-22, summed.
  using Sum = __m512i;
  static Sum half() { return _mm512_set1_epi32(1 << 21); }
  static Sum add_bytes(Sum sum, const uint8_t* from, int32_t weight) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m512i product =
        _mm512_mullo_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(weight));
    return _mm512_add_epi32(sum, product);
  }
  static void store_levels(uint8_t* to, Sum sum) {
    const __m512i levels = _mm512_max_epi32(_mm512_srai_epi32(sum, 22), _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(levels));
  }

  // from[index[i]], with every index below kPicked.
  static constexpr int kPicked = 32;
  static F pick(const float* from, const int32_t* index) {
    return _mm512_permutex2var_ps(load(from), _mm512_loadu_si512(index), load(from + kLanes));
  }

  // b where either is NaN.
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  // Puts two vectors in order of which no lane is negative: as whole numbers, on more of the ports.
  static void sort(F& large, F& small) {
    const __m512i a = _mm512_castps_si512(large), b = _mm512_castps_si512(small);
    large = _mm512_castsi512_ps(_mm512_max_epi32(a, b));
    small = _mm512_castsi512_ps(_mm512_min_epi32(a, b));
  }
  static F mul_add(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

  // yes where a < b, else no.
  static F if_less(F a, F b, F yes, F no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes);
  }

  // A bit for each lane where a >= b holds, or does not; with NaN it does not.
  static unsigned at_least(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
  static unsigned not_at_least(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NGE_UQ); }

  // v in the lanes that have their bit set, else 0.
  static F keep(unsigned lanes, F v) {
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(lanes), v);
  }

  // 1/v of a normal v with a normal inverse, a little too large: its product with v is never below
  // 1. An estimate of 14 bits and one Newton step.
  static F inverse(F v) {
    const F estimate = _mm512_rcp14_ps(v);
    const F error = _mm512_fnmadd_ps(v, estimate, set(1 + 0x1p-22f));
    return _mm512_fmadd_ps(estimate, error, estimate);
  }

  // v / largest from the inverse of the latter; exactly 1 where they are equal.
  static F ratio(F v, F largest, F inverse) {
    return _mm512_mask_mul_ps(set(1), _mm512_cmp_ps_mask(v, largest, _CMP_LT_OQ), v, inverse);
  }

  // v = mantissa * 2^exponent with a mantissa in [1, 2); minus infinity and 1 at 0.
  static F exponent(F v) { return _mm512_getexp_ps(v); }
  static F mantissa(F v) { return _mm512_getmant_ps(v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero); }

  // z less the next integer below, and p times 2 to that integer.
  static F fraction(F z) {
    return _mm512_reduce_ps(z, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  }
  static F scale(F p, F z) { return _mm512_scalef_ps(p, z); }

  // power = r^alpha with 0 for a zero: exponent and scale see to that.
  static F unless_zero(F, F power) { return power; }

  static float sum(F v) { return _mm512_reduce_add_ps(v); }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_VEC_AVX512_H_
