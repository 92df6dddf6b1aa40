// The weighted sum over a band and its gradients: nothing unfolded, the same bits for any number of threads.
//
//     out[t] = sum over j of w[t][j] x[t + j - left]              of one head of one sequence, zeros outside of it
//     grad x[s] = sum over i of w[s + i - right][K - 1 - i] g[s + i - right]        with right = K - 1 - left
//     grad w[t][j] = g[t] . x[t + j - left]
//
// So the gradient of the values is a sum over the mirrored band, computed by the same code. A task is a run of steps of
// one head: it copies the rows that the run needs, and their weights, to where they lie densely as numbers of the type
// of the sums, with zeros outside the sequence, and then knows no border.

#include "cpu_band.h"

#include "cpu_numbers.h"
#include "cpu_sweep.h"

namespace graphattn {
namespace GRAPHATTN_ISA {
namespace {

constexpr int64_t RUN = 64;  // steps of a task
constexpr int ROWS = 4;      // steps summed together: each row of values is loaded once for all of them

#if defined(__AVX512F__)
#define REGISTER_BYTES 64
#elif defined(__AVX2__)
#define REGISTER_BYTES 32
#else
#define REGISTER_BYTES 16
#endif

#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 8")
template <class A, int BYTES>
struct Lanes {
  typedef A type __attribute__((vector_size(BYTES), aligned(sizeof(A)), may_alias));
};
#else
#define UNROLL
template <class A, int BYTES>
struct Lanes {
  using type = A;
};
#endif
template <class A>
using Register = typename Lanes<A, REGISTER_BYTES>::type;
template <class A>
constexpr int LENGTH = sizeof(Register<A>) / sizeof(A);
template <class A>
constexpr int TILE = 2 * LENGTH<A>;  // channels summed together

template <class A>
INLINE Register<A> at(const A *from) {
  return *reinterpret_cast<const Register<A> *>(from);
}

template <class A>
INLINE A total(Register<A> sums) {
  using Part = typename Lanes<A, 16>::type;  // of it the processor has single lanes at hand
  constexpr int PARTS = sizeof sums / sizeof(Part), N = sizeof(Part) / sizeof(A);
  Part parts[PARTS];
  memcpy(parts, &sums, sizeof sums);
  for (int k = 1; k < PARTS; ++k) parts[0] += parts[k];
  A lanes[N], sum = 0;
  memcpy(lanes, parts, sizeof lanes);
  for (int k = 0; k < N; ++k) sum += lanes[k];
  return sum;
}

// ---- one tile of channels: rows stand TILE apart

// to[r] = sum over j of factors[r][j] * rows[r + j], for N of r.
template <class A, int N>
INLINE void sum_rows(A *__restrict__ to, const A *__restrict__ factors, const A *__restrict__ rows, int64_t taps) {
  Register<A> sums[N][2] = {};
  const auto add = [&](int64_t row, bool all) INLINE_LAMBDA {
    const Register<A> low = at(rows + row * TILE<A>), high = at(rows + row * TILE<A> + LENGTH<A>);
    UNROLL for (int r = 0; r < N; ++r)
      if (all || (row >= r && row - r < taps)) {
        const A factor = factors[r * taps + row - r];
        sums[r][0] += factor * low, sums[r][1] += factor * high;
      }
  };
  int64_t row = 0;
  for (; row < N - 1; ++row) add(row, false);
  for (; row < taps; ++row) add(row, true);
  for (; row < taps + N - 1; ++row) add(row, false);
  UNROLL for (int r = 0; r < N; ++r) {
    *reinterpret_cast<Register<A> *>(to + r * TILE<A>) = sums[r][0];
    *reinterpret_cast<Register<A> *>(to + r * TILE<A> + LENGTH<A>) = sums[r][1];
  }
}

// to[j] = near . rows[j], for N of j, over all tiles.
template <class A, int N>
INLINE void dot_rows(A *__restrict__ to, const A *__restrict__ near, int64_t near_tile, const A *__restrict__ rows,
                     int64_t rows_tile, int64_t tiles) {
  Register<A> sums[N] = {};
  for (int64_t k = 0; k < tiles; ++k, near += near_tile, rows += rows_tile) {
    const Register<A> low = at(near), high = at(near + LENGTH<A>);
    UNROLL for (int j = 0; j < N; ++j)
      sums[j] += low * at(rows + j * TILE<A>) + high * at(rows + j * TILE<A> + LENGTH<A>);
  }
  UNROLL for (int j = 0; j < N; ++j) to[j] = total<A>(sums[j]);
}

// ---- one run of steps

template <class T>
struct Run {
  using A = Sum<T>;
  const Band &band;
  int64_t sequence, head, begin, steps;  // steps [begin, begin + steps)

  int64_t reach() const { return steps + band.taps - 1; }  // rows that these steps hear

  // Rows [from, from + n) of an array [B, T, H, D], tile after tile, with zeros outside the sequence and beyond D.
  void gather(A *to, const void *array, int64_t from, int64_t n) const {
    const T *base = static_cast<const T *>(array) + (sequence * band.steps * band.heads + head) * band.width;
    for (int64_t channel = 0; channel < band.width; channel += TILE<A>)
      for (int64_t row = from; row < from + n; ++row, to += TILE<A>) {
        const int64_t rest = band.width - channel < TILE<A> ? band.width - channel : TILE<A>;
        const int64_t width = row < 0 || row >= band.steps ? 0 : rest;
        const T *__restrict__ source = width ? base + row * band.heads * band.width + channel : nullptr;
        if (width == TILE<A>) {
#pragma omp simd
          for (int d = 0; d < TILE<A>; ++d) to[d] = load(source[d]);
        } else {
          for (int d = 0; d < TILE<A>; ++d) to[d] = d < width ? load(source[d]) : A(0);
        }
      }
  }

  const T *weights_of(int64_t step) const {
    const int64_t row = band.shared_weights ? 0 : sequence * band.steps + step;
    return static_cast<const T *>(band.weights) + (row * band.heads + head) * band.taps;
  }

  void gather_weights(A *to) const {
    for (int64_t step = begin; step < begin + steps; ++step, to += band.taps) {
      const T *__restrict__ source = weights_of(step);
      for (int64_t j = 0; j < band.taps; ++j) to[j] = load(source[j]);
    }
  }

  // Those of the mirrored band: tap K - 1 - i of the m-th step that is reached is tap i of our step m - i.
  void gather_mirrored_weights(A *to) const {
    const int64_t taps = band.taps, first = begin - (taps - 1 - band.left);
    for (int64_t m = 0; m < reach(); ++m) {
      const bool inside = first + m >= 0 && first + m < band.steps;
      const T *source = inside ? weights_of(first + m) : nullptr;
      const int64_t low = m < steps ? 0 : m - steps + 1, high = m < taps ? m : taps - 1;
      for (int64_t i = low; i <= high; ++i) to[(m - i) * taps + i] = inside ? load(source[taps - 1 - i]) : A(0);
    }
  }

  // array[step] = sum over j of factors[step][j] * rows[step + j]
  void sum(void *array, const A *factors, const A *rows) const {
    T *base = static_cast<T *>(array) + ((sequence * band.steps + begin) * band.heads + head) * band.width;
    A sums[ROWS * TILE<A>];
    for (int64_t channel = 0; channel < band.width; channel += TILE<A>, rows += reach() * TILE<A>) {
      const int64_t width = band.width - channel < TILE<A> ? band.width - channel : TILE<A>;
      for (int64_t step = 0; step < steps;) {
        const int n = steps - step < ROWS ? 1 : ROWS;
        if (n == ROWS)
          sum_rows<A, ROWS>(sums, factors + step * band.taps, rows + step * TILE<A>, band.taps);
        else
          sum_rows<A, 1>(sums, factors + step * band.taps, rows + step * TILE<A>, band.taps);
        for (int r = 0; r < n; ++r, ++step)
          write(base + step * band.heads * band.width + channel, sums + r * TILE<A>, width);
      }
    }
  }

  // to[step][j] = near[step] . rows[step + j], where the tiles of `near` stand reach() rows apart as well
  void dots(A *to, const A *near, const A *rows) const {
    const int64_t tile = reach() * TILE<A>, tiles = (band.width + TILE<A> - 1) / TILE<A>;
    for (int64_t step = 0; step < steps; ++step, near += TILE<A>, rows += TILE<A>, to += band.taps) {
      int64_t j = 0;
      for (; j + 4 <= band.taps; j += 4) dot_rows<A, 4>(to + j, near, tile, rows + j * TILE<A>, tile, tiles);
      for (; j < band.taps; ++j) dot_rows<A, 1>(to + j, near, tile, rows + j * TILE<A>, tile, tiles);
    }
  }
};

// body(run, scratch of A, number of the run) for every run; where the runs are cut does not depend on the threads.
template <class T, class Body>
void each_run(const Band &band, int64_t scratch, const Body &body) {
  const int64_t runs = (band.steps + RUN - 1) / RUN, tasks = band.batch * runs * band.heads;
  const int threads = band.threads < tasks ? band.threads : tasks < 1 ? 1 : int(tasks);
  const int64_t each = (scratch + 31) / 16 * 16;
  Array<Sum<T>> workspace(size_t(each) * threads);  // with a cache line to spare
  auto *aligned = workspace.at + (64 - reinterpret_cast<uintptr_t>(workspace.at) % 64) / sizeof(Sum<T>);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t head = task % band.heads, begin = task / band.heads % runs * RUN;
    const int64_t steps = band.steps - begin < RUN ? band.steps - begin : RUN;
    body(Run<T>{band, task / band.heads / runs, head, begin, steps}, aligned + each * thread_number(), task);
  }
}

template <class A>
int64_t row_scratch(const Band &band) {
  return (RUN + band.taps - 1) * ((band.width + TILE<A> - 1) / TILE<A> * TILE<A>);
}

template <class T>
void forward_of(const Band &band, void *out) {
  using A = Sum<T>;
  each_run<T>(band, row_scratch<A>(band) + RUN * band.taps, [&](const Run<T> &run, A *rows, int64_t) {
    A *factors = rows + row_scratch<A>(band);
    run.gather(rows, band.values, run.begin - band.left, run.reach());
    run.gather_weights(factors);
    run.sum(out, factors, rows);
  });
}

template <class T>
void backward_of(const Band &band, const BandGradients &to) {
  using A = Sum<T>;
  const int64_t size = row_scratch<A>(band), taps = band.taps, heads = band.heads, right = taps - 1 - band.left;
  const int64_t runs = band.batch * ((band.steps + RUN - 1) / RUN);
  const bool shared = band.shared_weights && to.grad_weights;
  Array<A> parts(shared ? size_t(runs) * heads * taps : 0);  // of the gradient of shared weights, one a run
  each_run<T>(band, 2 * size + RUN * taps, [&](const Run<T> &run, A *rows, int64_t task) {
    A *grads = rows + size, *factors = grads + size;
    run.gather(grads, to.grad_out, run.begin - right, run.reach());
    if (to.grad_weights) {
      run.gather(rows, band.values, run.begin - band.left, run.reach());
      run.dots(factors, grads + right * TILE<A>, rows);
      if (shared) {
        A *part = parts.at + task * taps;
        clear(part, taps);
        for (int64_t step = 0; step < run.steps; ++step) add_to(part, factors + step * taps, taps);
      } else {
        const int64_t first = (run.sequence * band.steps + run.begin) * heads + run.head;
        T *base = static_cast<T *>(to.grad_weights) + first * taps;
        for (int64_t step = 0; step < run.steps; ++step) write(base + step * heads * taps, factors + step * taps, taps);
      }
    }
    if (to.grad_values) {
      run.gather_mirrored_weights(factors);
      run.sum(to.grad_values, factors, grads);
    }
  });
  if (!shared) return;
  Array<A> total(heads * taps);
  clear(total.at, heads * taps);
  for (int64_t run = 0; run < runs; ++run) add_to(total.at, parts.at + run * heads * taps, heads * taps);
  write(static_cast<T *>(to.grad_weights), total.at, heads * taps);
}

}  // namespace

#define BY_TYPE(type, call, ...)                      \
  switch (type) {                                     \
    case Type::f32: return call<float>(__VA_ARGS__);  \
    case Type::f64: return call<double>(__VA_ARGS__); \
    case Type::bf16: return call<bf16>(__VA_ARGS__);  \
    case Type::f16: return call<f16>(__VA_ARGS__);    \
  }

void band_sum(const Band &band, void *out) { BY_TYPE(band.type, forward_of, band, out) }
void band_sum_backward(const Band &band, const BandGradients &to) { BY_TYPE(band.type, backward_of, band, to) }

}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
