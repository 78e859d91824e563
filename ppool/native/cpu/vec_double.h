// One double, with the C library's logarithms: the arithmetic of float64 tensors.
#ifndef PPOOL_CPU_VEC_DOUBLE_H_
#define PPOOL_CPU_VEC_DOUBLE_H_

namespace ppool::PPOOL_ISA {

struct Double {
  using Real = double;
  using F = double;
  static constexpr int kLanes = 1;

  static F set(double value) { return value; }
  static F load(const double* from) { return *from; }
  static void store(double* to, F v) { *to = v; }
  static void store_bytes(uint8_t* to, F v) { *to = static_cast<uint8_t>(v); }

  // from[*index], with the index below kPicked.
  static constexpr int kPicked = 2;
  static F pick(const double* from, const int32_t* index) { return from[*index]; }

  // b where either is NaN.
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  // Puts two numbers in order.
  static void sort(F& large, F& small) {
    const F least = min(large, small);
    large = max(large, small);
    small = least;
  }
  static F mul_add(F a, F b, F c) { return a * b + c; }

  static F if_less(F a, F b, F yes, F no) { return a < b ? yes : no; }
  static unsigned at_least(F a, F b) { return a >= b; }
  static unsigned not_at_least(F a, F b) { return !(a >= b); }
  static F keep(unsigned lanes, F v) { return lanes != 0 ? v : 0; }

  // 1/v, a little too large: its product with v is never below 1.
  static F inverse(F v) { return (1 + 0x1p-51) / v; }
  static F ratio(F v, F largest, F) { return v / largest; }
  static F unless_zero(F, F power) { return power; }

  static double sum(F v) { return v; }
};

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_VEC_DOUBLE_H_
