// Elements in device memory: conversion to and from float, and 16-byte accesses.
#ifndef PPOOL_CUDA_ELEMENT_H_
#define PPOOL_CUDA_ELEMENT_H_

#include "../ppool_storage.h"
#include "grid.h"

namespace ppool::cuda {

PPOOL_HOST_DEVICE float to_float(float value) { return value; }
PPOOL_HOST_DEVICE float to_float(BFloat16 value) { return widen(value); }
PPOOL_HOST_DEVICE float to_float(Half value) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  return widen(value);
#endif
}

PPOOL_HOST_DEVICE void from_float(float value, float* to) { *to = value; }
PPOOL_HOST_DEVICE void from_float(float value, Half* to) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
#else
  narrow(value, to);
#endif
}
PPOOL_HOST_DEVICE void from_float(float value, BFloat16* to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
#else
  narrow(value, to);
#endif
}

// Neighbouring elements that move in one access; the address must be a multiple of its size.
template <class Storage, int count>
struct alignas(sizeof(Storage) * count) Pack {
  Storage at[count];
};

template <int count, class Storage>
PPOOL_HOST_DEVICE void load_pack(const Storage* from, float* to) {
  const Pack<Storage, count> pack = *reinterpret_cast<const Pack<Storage, count>*>(from);
  PPOOL_UNROLL
  for (int i = 0; i < count; ++i) to[i] = to_float(pack.at[i]);
}

template <int count, class Storage>
PPOOL_HOST_DEVICE void store_pack(const float* from, Storage* to) {
  Pack<Storage, count> pack;
  PPOOL_UNROLL
  for (int i = 0; i < count; ++i) from_float(from[i], &pack.at[i]);
  *reinterpret_cast<Pack<Storage, count>*>(to) = pack;
}

// Whether every row of `width` elements from `address` on starts at a multiple of `bytes`.
template <class Storage>
bool rows_aligned(const Storage* address, int64_t width, int64_t bytes) {
  const int64_t start = static_cast<int64_t>(reinterpret_cast<uintptr_t>(address));
  const int64_t step = width * static_cast<int64_t>(sizeof(Storage));
  return start % bytes == 0 && step % bytes == 0;
}

// Moves up to `count` neighbours, of which `valid` exist, in one access if `whole` allows it.
template <int count, class Storage>
PPOOL_HOST_DEVICE void load_run(const Storage* from, int64_t valid, bool whole, float* to) {
  if (whole && valid >= count) {
    load_pack<count>(from, to);
    return;
  }
  PPOOL_UNROLL
  for (int i = 0; i < count; ++i) to[i] = i < valid ? to_float(from[i]) : 0.0f;
}

template <int count, class Storage>
PPOOL_HOST_DEVICE void store_run(const float* from, int64_t valid, bool whole, Storage* to) {
  if (whole && valid >= count) {
    store_pack<count>(from, to);
    return;
  }
  PPOOL_UNROLL
  for (int i = 0; i < count; ++i) {
    if (i < valid) from_float(from[i], &to[i]);
  }
}

}  // namespace ppool::cuda

#endif  // PPOOL_CUDA_ELEMENT_H_
