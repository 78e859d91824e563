// Eight floats in an AVX2 register.
#ifndef PPOOL_CPU_VEC_AVX2_H_
#define PPOOL_CPU_VEC_AVX2_H_

#include <immintrin.h>

#include "../ppool_math.h"

namespace ppool::PPOOL_ISA {

struct Floats {
  using Real = float;
  using F = __m256;
  static constexpr int kLanes = 8;

  static F set(float value) { return _mm256_set1_ps(value); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, F v) { _mm256_storeu_ps(to, v); }

  // Whole numbers below 256.
  static void store_bytes(uint8_t* to, F v) {
    store_whole(to, _mm256_cvttps_epi32(v));
  }
  static void store_whole(uint8_t* to, __m256i whole) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole),
                                           _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
  }

  // Bytes times weights in 2^-22, summed.
  using Sum = __m256i;
  static Sum half() { return _mm256_set1_epi32(1 << 21); }
  static Sum add_bytes(Sum sum, const uint8_t* from, int32_t weight) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const __m256i product =
        _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(weight));
    return _mm256_add_epi32(sum, product);
  }
  static void store_levels(uint8_t* to, Sum sum) { store_whole(to, _mm256_srai_epi32(sum, 22)); }

  // from[index[i]], with every index below kPicked.
  static constexpr int kPicked = 16;
  static F pick(const float* from, const int32_t* index) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
    const F low = _mm256_permutevar8x32_ps(load(from), at);
    const F high = _mm256_permutevar8x32_ps(load(from + kLanes), at);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)));
  }

  // b where either is NaN.
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  // Puts two vectors in order of which no lane is negative: as whole numbers, on more of the ports.
  static void sort(F& large, F& small) {
    const __m256i a = _mm256_castps_si256(large), b = _mm256_castps_si256(small);
    large = _mm256_castsi256_ps(_mm256_max_epi32(a, b));
    small = _mm256_castsi256_ps(_mm256_min_epi32(a, b));
  }
  static F mul_add(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

  // yes where a < b, else no.
  static F if_less(F a, F b, F yes, F no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }

  // A bit for each lane where a >= b holds, or does not; with NaN it does not.
  static unsigned at_least(F a, F b) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
  }
  static unsigned not_at_least(F a, F b) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NGE_UQ)));
  }

  // v in the lanes that have their bit set, else 0.
  static F keep(unsigned lanes, F v) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i wanted = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(lanes)), bits);
    return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(wanted, bits)), v);
  }

  // 1/v, a little too large: its product with v is never below 1.
  static F inverse(F v) { return set(1 + 0x1p-22f) / v; }

  // v / largest from the inverse of the latter; exactly 1 where they are equal.
  static F ratio(F v, F largest, F inverse) { return if_less(v, largest, v * inverse, set(1)); }

  // v * 2^24 = mantissa * 2^exponent with a mantissa in [1, 2) for 0 < v < 2^104, denormals
  // included; an exponent of -127 for 0.
  static F exponent(F v) {
    const __m256i one = _mm256_castps_si256(set(1));
    const __m256i above_one = _mm256_sub_epi32(_mm256_castps_si256(v * set(0x1p24f)), one);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(above_one, 23));
  }
  static F mantissa(F v) {
    const F fraction = _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff));
    return _mm256_or_ps(_mm256_and_ps(v * set(0x1p24f), fraction), set(1));
  }

  // z less the next integer below, and p times 2 to that integer; 0 for z < -126.
  static F fraction(F z) { return z - _mm256_floor_ps(z); }
  static F scale(F p, F z) {
    const __m256i shift = _mm256_slli_epi32(_mm256_cvttps_epi32(_mm256_floor_ps(z)), 23);
    const F power = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), shift));
    return _mm256_and_ps(_mm256_cmp_ps(z, set(-126), _CMP_GE_OQ), power);
  }

  // power = r^alpha with 0 for a zero.
  static F unless_zero(F r, F power) {
    return _mm256_and_ps(_mm256_cmp_ps(r, set(0), _CMP_GT_OQ), power);
  }

  static float sum(F v) {
    alignas(32) float lanes[kLanes];
    _mm256_store_ps(lanes, v);
    float total = 0;
    for (float lane : lanes) total += lane;
    return total;
  }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_VEC_AVX2_H_
