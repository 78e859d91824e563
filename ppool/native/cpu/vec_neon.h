// Four floats in a NEON register.
#ifndef PPOOL_CPU_VEC_NEON_H_
#define PPOOL_CPU_VEC_NEON_H_

#include <arm_neon.h>

#include "../ppool_math.h"

namespace ppool::PPOOL_ISA {

struct Floats {
  using Real = float;
  using F = float32x4_t;
  static constexpr int kLanes = 4;

  static F set(float value) { return vdupq_n_f32(value); }
  static F load(const float* from) { return vld1q_f32(from); }
  static void store(float* to, F v) { vst1q_f32(to, v); }

  // Whole numbers below 256.
  static void store_bytes(uint8_t* to, F v) {
    const uint16x4_t words = vmovn_u32(vcvtq_u32_f32(v));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    std::memcpy(to, &bytes, kLanes);
  }

  // Bytes times weights in 2^-22, summed.
  using Sum = int32x4_t;
  static Sum half() { return vdupq_n_s32(1 << 21); }
  static Sum add_bytes(Sum sum, const uint8_t* from, int32_t weight) {
    uint32_t bits;
    std::memcpy(&bits, from, kLanes);
    const uint16x8_t words = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bits)));
    return vmlaq_n_s32(sum, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words))), weight);
  }
  static void store_levels(uint8_t* to, Sum sum) {
    const uint16x4_t words = vqmovun_s32(vshrq_n_s32(sum, 22));
    const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
    std::memcpy(to, &bytes, kLanes);
  }

  // from[index[i]], with every index below kPicked.
  static constexpr int kPicked = 8;
  static F pick(const float* from, const int32_t* index) {
    const auto bytes = [from](int start) { return vreinterpretq_u8_f32(load(from + start)); };
    const uint8x16x2_t both = {{bytes(0), bytes(kLanes)}};
    // Bytes 4 i to 4 i + 3, of the lower places first.
    const int32x4_t at = vmlaq_n_s32(vdupq_n_s32(0x03020100), vld1q_s32(index), 0x04040404);
    return vreinterpretq_f32_u8(vqtbl2q_u8(both, vreinterpretq_u8_s32(at)));
  }

  // b where either is NaN.
  static F min(F a, F b) { return if_less(a, b, a, b); }
  static F max(F a, F b) { return if_less(b, a, a, b); }
  // Puts two vectors in order of which no lane is negative.
  static void sort(F& large, F& small) {
    const int32x4_t a = vreinterpretq_s32_f32(large), b = vreinterpretq_s32_f32(small);
    large = vreinterpretq_f32_s32(vmaxq_s32(a, b));
    small = vreinterpretq_f32_s32(vminq_s32(a, b));
  }
  static F mul_add(F a, F b, F c) { return vfmaq_f32(c, a, b); }

  // yes where a < b, else no.
  static F if_less(F a, F b, F yes, F no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }

  // A bit for each lane where a >= b holds, or does not; with NaN it does not.
  static unsigned at_least(F a, F b) { return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), bits())); }
  static unsigned not_at_least(F a, F b) { return at_least(a, b) ^ 15u; }

  // v in the lanes that have their bit set, else 0.
  static F keep(unsigned lanes, F v) { return where(vtstq_u32(vdupq_n_u32(lanes), bits()), v); }

  // 1/v, a little too large: its product with v is never below 1.
  static F inverse(F v) { return vdivq_f32(set(1 + 0x1p-22f), v); }

  // v / largest from the inverse of the latter; exactly 1 where they are equal.
  static F ratio(F v, F largest, F inverse) {
    return if_less(v, largest, vmulq_f32(v, inverse), set(1));
  }

  // v * 2^24 = mantissa * 2^exponent with a mantissa in [1, 2) for 0 < v < 2^104, denormals
  // included; an exponent of -127 for 0.
  static F exponent(F v) {
    const int32x4_t above_one = vsubq_s32(vreinterpretq_s32_f32(raised(v)), one());
    return vcvtq_f32_s32(vshrq_n_s32(above_one, 23));
  }
  static F mantissa(F v) {
    const uint32x4_t fraction = vdupq_n_u32(0x007fffff);
    return vbslq_f32(fraction, raised(v), set(1));
  }

  // z less the next integer below, and p times 2 to that integer; 0 for z < -126.
  static F fraction(F z) { return vsubq_f32(z, vrndmq_f32(z)); }
  static F scale(F p, F z) {
    const int32x4_t shift = vshlq_n_s32(vcvtmq_s32_f32(z), 23);
    const int32x4_t power = vaddq_s32(vreinterpretq_s32_f32(p), shift);
    return where(vcgeq_f32(z, set(-126)), vreinterpretq_f32_s32(power));
  }

  // power = r^alpha with 0 for a zero.
  static F unless_zero(F r, F power) { return where(vcgtq_f32(r, set(0)), power); }

  static float sum(F v) { return vaddvq_f32(v); }

 private:
  static F raised(F v) { return vmulq_n_f32(v, 0x1p24f); }
  static int32x4_t one() { return vreinterpretq_s32_f32(set(1)); }
  static uint32x4_t bits() { return uint32x4_t{1, 2, 4, 8}; }
  static F where(uint32x4_t mask, F v) {
    return vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(v)));
  }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_VEC_NEON_H_
