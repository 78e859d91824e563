// log2, exp2 and powers of several vectors in step: a processor sees only so far ahead, and one
// vector's chain of multiply-adds would fill that with operations that wait for each other.
#ifndef PPOOL_CPU_POWERS_H_
#define PPOOL_CPU_POWERS_H_

#include <cmath>
#include <type_traits>

#include "../ppool_math.h"

namespace ppool::PPOOL_ISA {

// A polynomial without its constant term, divided by its argument.
template <class Polynomial, class V, int kCount>
PPOOL_HOST_DEVICE void evaluate(const typename V::F* at, typename V::F* result) {
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) result[n] = V::set(Polynomial::kFactors[0]);
#pragma GCC unroll 8
  for (int i = 1; i < Polynomial::kCount; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) {
      result[n] = V::mul_add(result[n], at[n], V::set(Polynomial::kFactors[i]));
    }
  }
}

// Each v becomes log2(v / 2^k) and a constant, as Log2 says, with 2^k the power of two at or next
// below `unit`: near 1 at any scale of v. At 0 it becomes some negative number, or minus infinity.
template <class V, int kCount>
PPOOL_HOST_DEVICE void log2_each(typename V::F* v, typename V::F unit) {
  if constexpr (std::is_same_v<typename V::Real, double>) {
    for (int n = 0; n < kCount; ++n) v[n] = std::log2(v[n]) - std::log2(unit);
  } else {
    const typename V::F exponent = V::exponent(unit);
    typename V::F above[kCount], u[kCount], p[kCount];
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) {
      above[n] = V::exponent(v[n]) - exponent;
      u[n] = V::mantissa(v[n]) - V::set(1);
    }
    evaluate<Log2, V, kCount>(u, p);
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) v[n] = V::mul_add(p[n], u[n], above[n]);
  }
}

// Each z <= 126 becomes 2^z, as Exp2 says; 0 from -126 or a little less down.
template <class V, int kCount>
PPOOL_HOST_DEVICE void exp2_each(typename V::F* z) {
  if constexpr (std::is_same_v<typename V::Real, double>) {
    for (int n = 0; n < kCount; ++n) z[n] = std::exp2(z[n]);
  } else {
    typename V::F f[kCount], p[kCount];
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) f[n] = V::fraction(z[n]);
    evaluate<Exp2, V, kCount>(f, p);
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) z[n] = V::scale(V::mul_add(p[n], f[n], V::set(1)), z[n]);
  }
}

// What the weights in a vector of windows depend on; log_largest is what log2_each makes of the
// largest taps themselves, and what a tap's logarithm is to be compared with.
template <class V>
struct Power {
  typename V::F alpha, largest, log_largest;

  Power(typename V::F a, typename V::F m) : alpha(a), largest(m), log_largest(m) {
    log2_each<V, 1>(&log_largest, largest);
  }
};

// Adds w = (v / largest)^alpha and w (largest - v) to the sums, for kCount taps v.
template <class V, int kCount>
PPOOL_HOST_DEVICE void weigh(const typename V::F* values, const Power<V>& power,
                             typename V::F& sum_w, typename V::F& sum_wd) {
  const typename V::F at_one = V::set(0) - power.alpha * power.log_largest;
  typename V::F powers[kCount];
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) powers[n] = values[n];
  log2_each<V, kCount>(powers, power.largest);
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) powers[n] = V::mul_add(power.alpha, powers[n], at_one);
  exp2_each<V, kCount>(powers);
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) {
    const typename V::F weight = V::unless_zero(values[n], powers[n]);
    sum_w = sum_w + weight;
    sum_wd = V::mul_add(weight, power.largest - values[n], sum_wd);
  }
}

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_POWERS_H_
