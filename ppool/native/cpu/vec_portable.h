// Four floats in whatever register the compiler has for them, or one where it has no vectors.
#ifndef PPOOL_CPU_VEC_PORTABLE_H_
#define PPOOL_CPU_VEC_PORTABLE_H_

#include <cmath>

#include "../ppool_math.h"

namespace ppool::PPOOL_ISA {

struct Floats {
  using Real = float;
#if defined(__GNUC__)
  static constexpr int kLanes = 4;
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  static F to_floats(I v) { return __builtin_convertvector(v, F); }
  static I to_ints(F v) { return __builtin_convertvector(v, I); }
#else
  static constexpr int kLanes = 1;
  using F = float;
  using I = int32_t;
  static F to_floats(I v) { return static_cast<F>(v); }
  static I to_ints(F v) { return static_cast<I>(v); }
#endif

  static F set(float value) { return F{} + value; }
  static F load(const float* from) {
    F v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  }
  static void store(float* to, F v) { std::memcpy(to, &v, sizeof(v)); }

  // Whole numbers below 256.
  static void store_bytes(uint8_t* to, F v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int i = 0; i < kLanes; ++i) to[i] = static_cast<uint8_t>(lanes[i]);
  }

  // Bytes times weights in 2^-22, summed.
  struct Sum {
    int32_t lanes[kLanes];
  };
  static Sum half() {
    Sum sum;
    for (int32_t& lane : sum.lanes) lane = 1 << 21;
    return sum;
  }
  static Sum add_bytes(Sum sum, const uint8_t* from, int32_t weight) {
    for (int i = 0; i < kLanes; ++i) sum.lanes[i] += from[i] * weight;
    return sum;
  }
  static void store_levels(uint8_t* to, Sum sum) {
    for (int i = 0; i < kLanes; ++i) {
      to[i] = static_cast<uint8_t>(std::min(std::max(sum.lanes[i] >> 22, 0), 255));
    }
  }

  // from[index[i]], with every index below kPicked.
  static constexpr int kPicked = 2 * kLanes;
  static F pick(const float* from, const int32_t* index) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = from[index[i]];
    return load(lanes);
  }

  // b where either is NaN.
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  // Puts two vectors in order.
  static void sort(F& large, F& small) {
    const F least = min(large, small);
    large = max(large, small);
    small = least;
  }
  static F mul_add(F a, F b, F c) { return a * b + c; }

  // yes where a < b, else no.
  static F if_less(F a, F b, F yes, F no) { return a < b ? yes : no; }

  // A bit for each lane where a >= b holds, or does not; with NaN it does not.
  static unsigned at_least(F a, F b) {
    const F marks = a >= b ? set(1) : set(0);
    float lanes[kLanes];
    store(lanes, marks);
    unsigned bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= static_cast<unsigned>(lanes[i] != 0) << i;
    return bits;
  }
  static unsigned not_at_least(F a, F b) { return ~at_least(a, b) & ((1u << kLanes) - 1); }

  // v in the lanes that have their bit set, else 0.
  static F keep(unsigned lanes, F v) {
    float kept[kLanes];
    store(kept, v);
    for (int i = 0; i < kLanes; ++i) kept[i] = (lanes >> i & 1) != 0 ? kept[i] : 0;
    return load(kept);
  }

  // 1/v, a little too large: its product with v is never below 1.
  static F inverse(F v) { return set(1 + 0x1p-22f) / v; }

  // v / largest from the inverse of the latter; exactly 1 where they are equal.
  static F ratio(F v, F largest, F inverse) { return if_less(v, largest, v * inverse, set(1)); }

  // v * 2^24 = mantissa * 2^exponent with a mantissa in [1, 2) for 0 < v < 2^104, denormals
  // included; an exponent of -127 for 0.
  static F exponent(F v) { return to_floats((bit_cast<I>(v * 0x1p24f) - kOne) >> 23); }
  static F mantissa(F v) { return bit_cast<F>((bit_cast<I>(v * 0x1p24f) & 0x007fffff) | kOne); }

  // z less the next integer below, and p times 2 to that integer; 0 for z < -126.
  static F fraction(F z) { return max(z, set(-126)) - to_floats(whole(z)); }
  static F scale(F p, F z) {
    return if_less(z, set(-126), set(0), bit_cast<F>(bit_cast<I>(p) + (whole(z) << 23)));
  }

  // power = r^alpha with 0 for a zero.
  static F unless_zero(F r, F power) { return if_less(set(0), r, power, set(0)); }

  static float sum(F v) {
    float lanes[kLanes], total = 0;
    store(lanes, v);
    for (float lane : lanes) total += lane;
    return total;
  }

 private:
  static constexpr int32_t kOne = 0x3f800000;  // the bits of 1

  // Conversion rounds towards 0, so it is given a positive number.
  static I whole(F z) { return to_ints(max(z, set(-126)) + 127.0f) - 127; }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_VEC_PORTABLE_H_
