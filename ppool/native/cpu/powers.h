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

// Each v becomes log2 of it, as Log2 says; at 0 some number below -125, or minus infinity.
template <class V, int kCount>
PPOOL_HOST_DEVICE void log2_each(typename V::F* v) {
  if constexpr (std::is_same_v<typename V::Real, double>) {
    for (int n = 0; n < kCount; ++n) v[n] = std::log2(v[n]);
  } else {
    typename V::F exponent[kCount], u[kCount], p[kCount];
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) {
      exponent[n] = V::exponent(v[n]);
      u[n] = V::mantissa(v[n]) - V::set(1);
    }
    evaluate<Log2, V, kCount>(u, p);
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) v[n] = V::mul_add(p[n], u[n], exponent[n]);
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

// Adds w = r^alpha and w r to the sums, for ratios r of kCount taps to the largest one.
template <class V, int kCount>
PPOOL_HOST_DEVICE void weigh(const typename V::F* values, typename V::F inverse,
                             typename V::F alpha, typename V::F& sum_w, typename V::F& sum_wr) {
  typename V::F ratios[kCount], powers[kCount];
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) powers[n] = ratios[n] = values[n] * inverse;
  log2_each<V, kCount>(powers);
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) powers[n] = alpha * powers[n];
  exp2_each<V, kCount>(powers);
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) {
    const typename V::F weight = V::unless_zero(ratios[n], powers[n]);
    sum_w = sum_w + weight;
    sum_wr = V::mul_add(weight, ratios[n], sum_wr);
  }
}

}  // namespace ppool::PPOOL_ISA

#endif  // PPOOL_CPU_POWERS_H_
