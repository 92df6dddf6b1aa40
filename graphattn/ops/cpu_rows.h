// Sums and products over the width of the rows that a chunk of edges gathers.
#pragma once

#include "cpu_numbers.h"

namespace graphattn {
namespace GRAPHATTN_ISA {
namespace {

constexpr int CHUNK = 32;  // edges worked on together, at most; numbers of an edge and head stand edge by edge, [n][H]
constexpr int BLOCK = 4;   // rows that one pass over an accumulator adds
constexpr int LANES = 16;  // numbers worked on together where it does not matter whose they are; the last are padding

INLINE int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// body(k) for k from 0 to padded(n): whole registers only.
template <class Body>
INLINE void each_lane(int64_t n, const Body &body) {
  for (int64_t start = 0; start < n; start += LANES)
#pragma omp simd
    for (int lane = 0; lane < LANES; ++lane) body(start + lane);
}

// body(c, h) for every edge and head, along whichever of the two is longer than one.
template <class Body>
INLINE void each_edge_and_head(int n, int64_t heads, const Body &body) {
  if (heads == 1) {
#pragma omp simd
    for (int c = 0; c < n; ++c) body(c, int64_t(0));
    return;
  }
  for (int c = 0; c < n; ++c)
#pragma omp simd
    for (int64_t h = 0; h < heads; ++h) body(c, h);
}

// Below, `rows` are n gathered rows; a head stride of 0 shares one head among all.

template <class T>
using RowList = const T *__restrict__ const *;

// Widths up to 16 are compiled with the width known, so that several heads share a register.
#define BY_WIDTH(call)       \
  switch (width) {           \
    case 1: call(1); break;  \
    case 2: call(2); break;  \
    case 4: call(4); break;  \
    case 8: call(8); break;  \
    case 16: call(16); break; \
    default: call(0);        \
  }

template <class T, int FIXED>
INLINE void add_rows_of(Sum<T> *__restrict__ sums, int64_t sum_stride, const Sum<T> *__restrict__ factors,
                        RowList<T> rows, int64_t row_stride, int n, int64_t heads, int64_t width) {
  using A = Sum<T>;
  if (FIXED) width = FIXED;
  int c = 0;
  for (; c + BLOCK <= n; c += BLOCK)
    for (int64_t h = 0; h < heads; ++h) {
      const A *f = factors + c * heads + h;
      const A f0 = f[0], f1 = f[heads], f2 = f[2 * heads], f3 = f[3 * heads];
      const T *__restrict__ r0 = rows[c] + h * row_stride, *__restrict__ r1 = rows[c + 1] + h * row_stride;
      const T *__restrict__ r2 = rows[c + 2] + h * row_stride, *__restrict__ r3 = rows[c + 3] + h * row_stride;
      A *__restrict__ sum = sums + h * sum_stride;
#pragma omp simd
      for (int64_t d = 0; d < width; ++d)
        sum[d] += (f0 * load(r0[d]) + f1 * load(r1[d])) + (f2 * load(r2[d]) + f3 * load(r3[d]));
    }
  for (; c < n; ++c)
    for (int64_t h = 0; h < heads; ++h) {
      const A f = factors[c * heads + h];
      const T *__restrict__ r = rows[c] + h * row_stride;
      A *__restrict__ sum = sums + h * sum_stride;
#pragma omp simd
      for (int64_t d = 0; d < width; ++d) sum[d] += f * load(r[d]);
    }
}

// sums[h][d] += sum over c of factors[c][h] * rows[c][h][d]
template <class T>
void add_rows(Sum<T> *sums, int64_t sum_stride, const Sum<T> *factors, RowList<T> rows, int64_t row_stride, int n,
              int64_t heads, int64_t width) {
#define CALL(fixed) add_rows_of<T, fixed>(sums, sum_stride, factors, rows, row_stride, n, heads, width)
  BY_WIDTH(CALL)
#undef CALL
}

template <class T, int FIXED>
INLINE void dot_rows_of(Sum<T> *__restrict__ dots, const T *__restrict__ near, int64_t near_stride, RowList<T> rows,
                        int64_t row_stride, int n, int64_t heads, int64_t width) {
  using A = Sum<T>;
  if (FIXED) width = FIXED;
  int c = 0;
  for (; c + BLOCK <= n; c += BLOCK)
    for (int64_t h = 0; h < heads; ++h) {
      const T *__restrict__ a = near + h * near_stride;
      const T *__restrict__ r0 = rows[c] + h * row_stride, *__restrict__ r1 = rows[c + 1] + h * row_stride;
      const T *__restrict__ r2 = rows[c + 2] + h * row_stride, *__restrict__ r3 = rows[c + 3] + h * row_stride;
      A s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
      for (int64_t d = 0; d < width; ++d) {
        const A x = load(a[d]);
        s0 += x * load(r0[d]), s1 += x * load(r1[d]), s2 += x * load(r2[d]), s3 += x * load(r3[d]);
      }
      A *dot = dots + c * heads + h;
      dot[0] = s0, dot[heads] = s1, dot[2 * heads] = s2, dot[3 * heads] = s3;
    }
  for (; c < n; ++c)
    for (int64_t h = 0; h < heads; ++h) {
      const T *__restrict__ a = near + h * near_stride, *__restrict__ r = rows[c] + h * row_stride;
      A s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t d = 0; d < width; ++d) s += load(a[d]) * load(r[d]);
      dots[c * heads + h] = s;
    }
}

// dots[c][h] = near[h] . rows[c][h]
template <class T>
void dot_rows(Sum<T> *dots, const T *near, int64_t near_stride, RowList<T> rows, int64_t row_stride, int n,
              int64_t heads, int64_t width) {
#define CALL(fixed) dot_rows_of<T, fixed>(dots, near, near_stride, rows, row_stride, n, heads, width)
  BY_WIDTH(CALL)
#undef CALL
}

// dots[c][h] += a[c][h] . b[c][h]
template <class T>
void add_pair_dots(Sum<T> *dots, RowList<T> a, int64_t a_stride, RowList<T> b, int64_t b_stride, int n, int64_t heads,
                   int64_t width) {
  for (int c = 0; c < n; ++c)
    for (int64_t h = 0; h < heads; ++h) {
      const T *__restrict__ x = a[c] + h * a_stride, *__restrict__ y = b[c] + h * b_stride;
      Sum<T> s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t d = 0; d < width; ++d) s += load(x[d]) * load(y[d]);
      dots[c * heads + h] += s;
    }
}

template <class A>
INLINE A leaky(A x, A slope) {
  return x > 0 ? x : slope * x;
}

// The score of GATv2: dots[c][h] = att[h] . leaky(near[h] + rows[c][h] + edges[c][h])
template <class T, bool EDGE>
void dot_leaky_rows(Sum<T> *__restrict__ dots, const T *__restrict__ att, const T *__restrict__ near, RowList<T> rows,
                    RowList<T> edges, int n, int64_t heads, int64_t width, Sum<T> slope) {
  using A = Sum<T>;
  int c = 0;
  for (; !EDGE && c + BLOCK <= n; c += BLOCK)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = h * width;
      const T *__restrict__ w = att + at, *__restrict__ a = near + at;
      const T *__restrict__ r0 = rows[c] + at, *__restrict__ r1 = rows[c + 1] + at;
      const T *__restrict__ r2 = rows[c + 2] + at, *__restrict__ r3 = rows[c + 3] + at;
      A s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
      for (int64_t d = 0; d < width; ++d) {
        const A x = load(a[d]), y = load(w[d]);
        s0 += y * leaky(x + load(r0[d]), slope), s1 += y * leaky(x + load(r1[d]), slope);
        s2 += y * leaky(x + load(r2[d]), slope), s3 += y * leaky(x + load(r3[d]), slope);
      }
      A *dot = dots + c * heads + h;
      dot[0] = s0, dot[heads] = s1, dot[2 * heads] = s2, dot[3 * heads] = s3;
    }
  for (; c < n; ++c)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = h * width;
      const T *__restrict__ w = att + at, *__restrict__ a = near + at, *__restrict__ r = rows[c] + at;
      const T *__restrict__ e = EDGE ? edges[c] + at : nullptr;
      A s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t d = 0; d < width; ++d) {
        A x = load(a[d]) + load(r[d]);
        if (EDGE) x += load(e[d]);
        s += load(w[d]) * leaky(x, slope);
      }
      dots[c * heads + h] = s;
    }
}

// Its derivative: with x = near + row + edge and y = factors[c][h] * leaky'(x), slopes += y and, where asked for,
// atts += y * x and edge_grads[c] = y * att.
template <class T, bool EDGE, bool ATT>
void add_leaky_slopes(Sum<T> *__restrict__ slopes, Sum<T> *__restrict__ atts, T *const *edge_grads,
                      const Sum<T> *__restrict__ factors, const T *__restrict__ att, const T *__restrict__ near,
                      RowList<T> rows, RowList<T> edges, int n, int64_t heads, int64_t width, Sum<T> slope) {
  using A = Sum<T>;
  int c = 0;
  for (; !EDGE && c + BLOCK <= n; c += BLOCK)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = h * width;
      const A *f = factors + c * heads + h;
      const A f0 = f[0], f1 = f[heads], f2 = f[2 * heads], f3 = f[3 * heads];
      const A g0 = f0 * slope, g1 = f1 * slope, g2 = f2 * slope, g3 = f3 * slope;
      const T *__restrict__ a = near + at;
      const T *__restrict__ r0 = rows[c] + at, *__restrict__ r1 = rows[c + 1] + at;
      const T *__restrict__ r2 = rows[c + 2] + at, *__restrict__ r3 = rows[c + 3] + at;
      A *__restrict__ sum = slopes + at, *__restrict__ att_sum = ATT ? atts + at : nullptr;
#pragma omp simd
      for (int64_t d = 0; d < width; ++d) {
        const A x = load(a[d]);
        const A x0 = x + load(r0[d]), x1 = x + load(r1[d]), x2 = x + load(r2[d]), x3 = x + load(r3[d]);
        const A y0 = x0 > 0 ? f0 : g0, y1 = x1 > 0 ? f1 : g1, y2 = x2 > 0 ? f2 : g2, y3 = x3 > 0 ? f3 : g3;
        sum[d] += (y0 + y1) + (y2 + y3);
        if (ATT) att_sum[d] += (y0 * x0 + y1 * x1) + (y2 * x2 + y3 * x3);
      }
    }
  for (; c < n; ++c)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = h * width;
      const A f = factors[c * heads + h], g = f * slope;
      const T *__restrict__ a = near + at, *__restrict__ r = rows[c] + at, *__restrict__ w = att + at;
      const T *__restrict__ e = EDGE ? edges[c] + at : nullptr;
      T *__restrict__ edge_grad = EDGE && edge_grads ? edge_grads[c] + at : nullptr;
      A *__restrict__ sum = slopes + at, *__restrict__ att_sum = ATT ? atts + at : nullptr;
#pragma omp simd
      for (int64_t d = 0; d < width; ++d) {
        A x = load(a[d]) + load(r[d]);
        if (EDGE) x += load(e[d]);
        const A y = x > 0 ? f : g;
        sum[d] += y;
        if (ATT) att_sum[d] += y * x;
      }
      if (EDGE && edge_grad) {
#pragma omp simd
        for (int64_t d = 0; d < width; ++d)
          store(edge_grad + d, load(w[d]) * (load(a[d]) + load(r[d]) + load(e[d]) > 0 ? f : g));
      }
    }
}

}  // namespace
}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
