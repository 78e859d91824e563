// Element types in memory and their exact widening and once-rounded narrowing.
#ifndef PPOOL_STORAGE_H_
#define PPOOL_STORAGE_H_

#include "ppool_math.h"

namespace ppool {

// IEEE binary16 and bfloat16 as bits: compilers disagree on arithmetic types for them.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type an element is computed in.
template <class Storage>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class Storage>
using Compute = typename ComputeOf<Storage>::type;

PPOOL_HOST_DEVICE float widen(float value) { return value; }
PPOOL_HOST_DEVICE double widen(double value) { return value; }

PPOOL_HOST_DEVICE float widen(Half value) {
  const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  // The multiplication re-biases the exponent and normalises half's denormals.
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;
  return bit_cast<float>(sign | ((value.bits & 0x7c00u) == 0x7c00u ? special : finite));
}

PPOOL_HOST_DEVICE float widen(BFloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

PPOOL_HOST_DEVICE void narrow(float value, float* to) { *to = value; }
PPOOL_HOST_DEVICE void narrow(double value, double* to) { *to = value; }

// Rounds to nearest, ties to even.
PPOOL_HOST_DEVICE void narrow(float value, Half* to) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t odd = (magnitude >> 13) & 1u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  // Adding 1/2 leaves the denormal's bits, rounded by the addition itself, at the low end.
  const uint32_t denormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  uint32_t half = magnitude < 0x38800000u ? denormal : normal;  // 2^-14
  half = magnitude >= 0x477ff000u ? special : half;             // 65520 rounds to infinity
  to->bits = static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
}

PPOOL_HOST_DEVICE void narrow(float value, BFloat16* to) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  to->bits = static_cast<uint16_t>(value == value ? rounded : nan);
}

}  // namespace ppool

#endif  // PPOOL_STORAGE_H_
