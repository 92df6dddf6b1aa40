// Number types and functions of one number, written so that loops over them vectorise.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cpu_kernels.h"

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)0)
#define INLINE inline
#define INLINE_LAMBDA
#define __restrict__ __restrict
#endif

namespace graphattn {
namespace GRAPHATTN_ISA {
namespace {

template <class To, class From>
INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "one size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

struct bf16 {
  uint16_t word;
};
struct f16 {
  uint16_t word;
};

template <class T>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};
template <class T>
using Sum = typename SumOf<T>::type;

INLINE float load(float x) { return x; }
INLINE double load(double x) { return x; }
INLINE float load(bf16 x) { return bits<float>(uint32_t(x.word) << 16); }
INLINE float load(f16 x) {
  uint32_t sign = (x.word & 0x8000u) << 16, rest = (x.word & 0x7fffu) << 13;
  uint32_t finite = bits<uint32_t>(bits<float>(rest) * 0x1p112f);  // moves the exponent, subnormals included
  return bits<float>(sign | (rest >= 0x0f800000u ? rest | 0x7f800000u : finite));
}

INLINE void store(float *to, float x) { *to = x; }
INLINE void store(double *to, double x) { *to = x; }
INLINE void store(bf16 *to, float x) {  // to nearest, ties to even
  uint32_t word = bits<uint32_t>(x);
  uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  to->word = uint16_t((word & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
INLINE void store(f16 *to, float x) {  // to nearest, ties to even
  uint32_t word = bits<uint32_t>(x), sign = (word >> 16) & 0x8000u, rest = word & 0x7fffffffu;
  uint32_t normal = (rest + 0xc8000fffu + ((rest >> 13) & 1u)) >> 13;
  uint32_t subnormal = bits<uint32_t>(bits<float>(rest) + 0.5f) - 0x3f000000u;
  uint32_t half = rest < 0x38800000u ? subnormal : normal;
  if (rest >= 0x47800000u) half = rest > 0x7f800000u ? 0x7e00u : 0x7c00u;
  to->word = uint16_t(sign | half);
}

constexpr float INF = HUGE_VALF;

INLINE double exponential(double x) { return exp(x); }

// e^x = 2^n e^r with |r| <= ln 2 / 2: relative error below 2e-7; 0 below -87.3. Branchless, so loops over it vectorise.
INLINE float exponential(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  float shifted = x * 1.44269504088896341f + magic;
  float n = shifted - magic;
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float series = 1.9875691500e-4f;
  series = series * r + 1.3981999507e-3f;
  series = series * r + 8.3334519073e-3f;
  series = series * r + 4.1665795894e-2f;
  series = series * r + 1.6666665459e-1f;
  series = series * r + 5.0000001201e-1f;
  series = series * r * r + r + 1.0f;
  float power = bits<float>((bits<uint32_t>(shifted) << 23) + 0x3f800000u);
  return x < -87.3f ? 0.0f : series * power;
}

INLINE double logarithm(double x) { return log(x); }

// x = 2^n m with m from sqrt(1/2) to sqrt(2), to 3e-8 for normal x; NaN for NaN and infinity. A float could hold only
// 5e-7 of a logarithm of 10, which would be the error of every weight that backward computes from it.
INLINE double logarithm(float x) {
  const uint32_t shifted = bits<uint32_t>(x) - 0x3f3504f3u;
  const double n = double(int32_t(shifted) >> 23);
  const float m = bits<float>((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  float series = 7.0376836292e-2f;
  series = series * m - 1.1514610310e-1f;
  series = series * m + 1.1676998740e-1f;
  series = series * m - 1.2420140846e-1f;
  series = series * m + 1.4249322787e-1f;
  series = series * m - 1.6668057665e-1f;
  series = series * m + 2.0000714765e-1f;
  series = series * m - 2.4999993993e-1f;
  series = series * m + 3.3333331174e-1f;
  const float square = m * m;
  return n * 0.69314718055994531 + (m - (0.5f * square - series * m * square)) + (x - x);
}

// ---- dropout: the function of (seed, edge, head) that dropout.py documents

INLINE uint32_t mix(uint32_t word) {
  word ^= word >> 16;
  word *= 0x7feb352du;
  word ^= word >> 15;
  word *= 0x846ca68bu;
  return word ^ (word >> 16);
}

INLINE uint32_t mixed_edge(const Dropout &dropout, int64_t edge) { return mix(uint32_t(edge) ^ dropout.low); }

// `high` are the upper 32 bits of the edge, whose lower ones are in `mixed`.
INLINE bool keeps(const Dropout &dropout, uint32_t high, uint32_t mixed, uint32_t head) {
  return mix((mixed + head * 0x9e3779b9u + high) ^ dropout.high) >= dropout.threshold;
}

INLINE bool keeps(const Dropout &dropout, int64_t edge, int64_t head) {
  return keeps(dropout, uint32_t(uint64_t(edge) >> 32), mixed_edge(dropout, edge), uint32_t(head));
}

}  // namespace
}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
