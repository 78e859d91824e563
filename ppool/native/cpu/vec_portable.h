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

  // log2 of a normal v > 0, as Log2 says; any number below -125 for less.
  static F log2(F v) {
    constexpr int32_t kOne = 0x3f800000;
    const I bits = bit_cast<I>(v);
    const F u = bit_cast<F>((bits & 0x007fffff) | kOne) - 1.0f;
    F p = set(Log2::kFactors[0]);
    for (int i = 1; i < Log2::kCount; ++i) p = mul_add(p, u, set(Log2::kFactors[i]));
    return mul_add(p, u, to_floats((bits - kOne) >> 23));
  }

  // 2^z for z <= 126, as Exp2 says; 0 for z < -126.
  static F exp2(F z) {
    const F held = max(z, set(-126));
    const I whole = to_ints(held + 127.0f) - 127;  // rounds towards 0, so of a positive number
    const F f = held - to_floats(whole);
    F p = set(Exp2::kFactors[0]);
    for (int i = 1; i < Exp2::kCount; ++i) p = mul_add(p, f, set(Exp2::kFactors[i]));
    const F power = bit_cast<F>(bit_cast<I>(mul_add(p, f, set(1))) + (whole << 23));
    return if_less(z, set(-126), set(0), power);
  }

  // r^alpha for 0 <= r <= 1 and alpha > 0, with 0 for a zero.
  static F power(F r, F alpha) { return if_less(set(0), r, exp2(alpha * log2(r)), set(0)); }

  static float sum(F v) {
    float lanes[kLanes], total = 0;
    store(lanes, v);
    for (float lane : lanes) total += lane;
    return total;
  }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_VEC_PORTABLE_H_
