// See attention_wise.h. Everything is done image by image and map by map, in tiles that stay in the nearest cache.
//
// A tile lies in rows of w + 2 numbers with a border of zeros, so that each tap of the 3x3 convolution is one loop over
// all rows: position i of the output reads i + offset of the input, and the two positions between rows are never used.
//
// With t the gradient of the normalised scores n = (a - mean) r, r = 1 / sqrt(var + eps), M = B h w, and y = n x:
//   t = g x where g is the gradient of y      da = r (t - sum(t) / M - n sum(t n) / M)      in evaluation da = r t
// and with p = a da, the gradients of the logits are p - sx (sum of p over the row) and p - sy (sum over the column).
// As y enters through the convolution alone, sum(t n) = sum(g y) is the product of its weights with their gradient, and
// sum(t) that of its weights with the gradient that they would have if x stood for y.

#include "attention_wise.h"

#include "../ops/cpu_numbers.h"
#include "../ops/cpu_sweep.h"

namespace graphattn {
namespace GRAPHATTN_ISA {
namespace {

constexpr int TAPS = 9;
constexpr double SMALL = 40;  // logits whose exponentials a float holds as they are

// The images are cut into chunks, whatever the number of threads; each has sums of its own, added up in order.
constexpr int64_t MOST_CHUNKS = 32, FEWEST = 4, NUMBERS = 1 << 24;  // all sums of a kind

template <class A>
struct Tiles {
  const int64_t h, w, stride, size;  // numbers in a tile, its border included, and some to spare
  int64_t offset[TAPS];              // of a tap, from a position to the one it reads

  Tiles(int64_t h, int64_t w) : h(h), w(w), stride(w + 2), size((h + 2) * (w + 2) + 16) {
    for (int tap = 0; tap < TAPS; ++tap) offset[tap] = (tap / 3 - 1) * stride + tap % 3 - 1;
  }

  int64_t first() const { return stride + 1; }       // the first pixel
  int64_t length() const { return h * stride - 2; }  // from the first pixel to the last

  void fill(A *__restrict__ to, const A *__restrict__ from) const {
    clear(to, size);
    for (int64_t y = 0; y < h; ++y) memcpy(to + first() + y * stride, from + y * w, w * sizeof(A));
  }

  void read(A *__restrict__ to, const A *__restrict__ from) const {
    for (int64_t y = 0; y < h; ++y) memcpy(to + y * w, from + first() + y * stride, w * sizeof(A));
  }
};

// All tiles of an array [count, h, w].
template <class A>
struct Filled {
  Array<A> held;
  const Tiles<A> &tiles;

  Filled(const Tiles<A> &tiles, const void *from, int64_t count) : held(from ? count * tiles.size : 0), tiles(tiles) {
    for (int64_t k = 0; from && k < count; ++k)
      tiles.fill(held.at + k * tiles.size, static_cast<const A *>(from) + k * tiles.h * tiles.w);
  }

  const A *operator[](int64_t k) const { return held.at + k * tiles.size; }
};

template <class A>
struct Layer {
  const AttentionWise &call;
  const Tiles<A> tiles;
  const Filled<A> wx, wy, bx, by;
  const A *x, *conv;
  const int64_t C, K, P, chunks;

  explicit Layer(const AttentionWise &call)
      : call(call), tiles(call.height, call.width), wx(tiles, call.wx, call.maps()), wy(tiles, call.wy, call.maps()),
        bx(tiles, call.bx, call.maps()), by(tiles, call.by, call.maps()), x(static_cast<const A *>(call.x)),
        conv(static_cast<const A *>(call.conv)), C(call.channels), K(call.maps()), P(call.height * call.width),
        chunks(chunks_of(call.images, call.maps() * tiles.size)) {}

  static int64_t chunks_of(int64_t images, int64_t sums) {
    const int64_t room = NUMBERS / sums, most = room < FEWEST ? FEWEST : room > MOST_CHUNKS ? MOST_CHUNKS : room;
    return images < most ? images : most;
  }

  const A *taps(int64_t out, int64_t map) const { return conv + (out * K + map) * TAPS; }

  // Calls body(chunk, first image, last image, scratch of so many numbers), on all threads.
  template <class Body>
  void each_chunk(int64_t scratch, const Body &body) const {
    const int threads = call.threads < chunks ? call.threads : chunks < 1 ? 1 : int(chunks);
    const int64_t each = (scratch + 31) / 16 * 16;
    Array<A> workspace(size_t(each) * threads);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      body(chunk, call.images * chunk / chunks, call.images * (chunk + 1) / chunks, workspace.at + each * thread_number());
  }

  void fill(A *tile, const void *from, int64_t image, int64_t channel) const {
    tiles.fill(tile, static_cast<const A *>(from) + (image * C + channel) * P);
  }

  // sx = softmax(x wx + bx) over each row, sy the same over each column; at pixels only, the rest is not defined.
  // `sums` is scratch for a row.
  void softmaxes(const A *__restrict__ x, int64_t map, A *__restrict__ sx, A *__restrict__ sy, A *__restrict__ sums) const {
    const int64_t h = tiles.h, w = tiles.w, stride = tiles.stride, first = tiles.first(), length = tiles.length();
    const A *__restrict__ wx = this->wx[map], *__restrict__ wy = this->wy[map];
    const A *__restrict__ bx = call.bx ? this->bx[map] : nullptr, *__restrict__ by = call.bx ? this->by[map] : nullptr;
#pragma omp simd
    for (int64_t i = first; i < first + length; ++i) sx[i] = x[i] * wx[i], sy[i] = x[i] * wy[i];
    if (bx) {
#pragma omp simd
      for (int64_t i = first; i < first + length; ++i) sx[i] += bx[i], sy[i] += by[i];
    }
    A largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = first; i < first + length; ++i) {
      const A along_x = fabs(sx[i]), along_y = fabs(sy[i]), larger = along_x > along_y ? along_x : along_y;
      largest = larger > largest ? larger : largest;
    }
    if (!(largest < SMALL)) shift(sx, sy, sums);
#pragma omp simd
    for (int64_t i = first; i < first + length; ++i) sx[i] = exponential(sx[i]), sy[i] = exponential(sy[i]);
    clear(sums, w);
    for (int64_t y = 0; y < h; ++y) {
      A *__restrict__ row = sx + first + y * stride;
      const A *__restrict__ column = sy + first + y * stride;
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < w; ++i) sum += row[i];
      const A part = 1 / sum;
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) row[i] *= part, sums[i] += column[i];
    }
    for (int64_t i = 0; i < w; ++i) sums[i] = 1 / sums[i];
    for (int64_t y = 0; y < h; ++y) {
      A *__restrict__ row = sy + first + y * stride;
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) row[i] *= sums[i];
    }
  }

  // Takes its largest number from each row of sx and each column of sy.
  void shift(A *__restrict__ sx, A *__restrict__ sy, A *__restrict__ tops) const {
    const int64_t w = tiles.w;
    for (int64_t i = 0; i < w; ++i) tops[i] = sy[tiles.first() + i];
    for (int64_t y = 0; y < tiles.h; ++y) {
      A *__restrict__ row = sx + tiles.first() + y * tiles.stride;
      const A *__restrict__ column = sy + tiles.first() + y * tiles.stride;
      A top = row[0];
#pragma omp simd reduction(max : top)
      for (int64_t i = 0; i < w; ++i) top = row[i] > top ? row[i] : top;
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) row[i] -= top, tops[i] = column[i] > tops[i] ? column[i] : tops[i];
    }
    for (int64_t y = 0; y < tiles.h; ++y) {
      A *__restrict__ column = sy + tiles.first() + y * tiles.stride;
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) column[i] -= tops[i];
    }
  }

  A scale(int64_t map) const { return A(1 / sqrt(call.var[map] + call.eps)); }

  // y = (sx sy - mean) r x at pixels; the zeros round them, which `y` has already, stay.
  void gate(const A *__restrict__ x, const A *__restrict__ sx, const A *__restrict__ sy, int64_t map, A *__restrict__ y) const {
    const A mean = A(call.mean[map]), r = scale(map);
    for (int64_t row = 0; row < tiles.h; ++row) {
      const int64_t begin = tiles.first() + row * tiles.stride;
#pragma omp simd
      for (int64_t i = begin; i < begin + tiles.w; ++i) y[i] = (sx[i] * sy[i] - mean) * r * x[i];
    }
  }

  // to += the nine taps of `from`; with `turned`, as the gradient of the input asks.
  void convolve(A *__restrict__ to, const A *__restrict__ from, const A *weights, bool turned) const {
    A w[TAPS];
    for (int tap = 0; tap < TAPS; ++tap) w[tap] = weights[turned ? TAPS - 1 - tap : tap];
    const int64_t s = tiles.stride;
#pragma omp simd
    for (int64_t i = tiles.first(); i < tiles.first() + tiles.length(); ++i) {
      const A above = w[0] * from[i - s - 1] + w[1] * from[i - s] + w[2] * from[i - s + 1];
      const A level = w[3] * from[i - 1] + w[4] * from[i] + w[5] * from[i + 1];
      const A below = w[6] * from[i + s - 1] + w[7] * from[i + s] + w[8] * from[i + s + 1];
      to[i] += above + level + below;
    }
  }

  // sums[tap] += sum over the pixels of grad * (what the tap reads of `from`); `grad` has zeros round it.
  void correlate(double *sums, const A *__restrict__ grad, const A *__restrict__ from) const {
    const int64_t s = tiles.stride;
    A a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, k = 0;
#pragma omp simd reduction(+ : a, b, c, d, e, f, g, h, k)
    for (int64_t i = tiles.first(); i < tiles.first() + tiles.length(); ++i) {
      a += grad[i] * from[i - s - 1], b += grad[i] * from[i - s], c += grad[i] * from[i - s + 1];
      d += grad[i] * from[i - 1], e += grad[i] * from[i], f += grad[i] * from[i + 1];
      g += grad[i] * from[i + s - 1], h += grad[i] * from[i + s], k += grad[i] * from[i + s + 1];
    }
    const A found[TAPS] = {a, b, c, d, e, f, g, h, k};
    for (int tap = 0; tap < TAPS; ++tap) sums[tap] += found[tap];
  }
};

void add_up(double *to, const double *parts, int64_t size, int64_t count) {
  for (int64_t k = 0; k < size; ++k) to[k] = 0;
  for (int64_t part = 0; part < count; ++part)
    for (int64_t k = 0; k < size; ++k) to[k] += parts[part * size + k];
}

// ---- forward

template <class A>
void find_statistics(const Layer<A> &layer) {
  const auto &tiles = layer.tiles;
  const int64_t K = layer.K, C = layer.C;
  Array<double> parts(2 * K * layer.chunks), sums(2 * K);
  layer.each_chunk(4 * tiles.size, [&](int64_t chunk, int64_t begin, int64_t end, A *scratch) {
    A *x = scratch, *sx = x + tiles.size, *sy = sx + tiles.size, *row = sy + tiles.size;
    double *own = parts.at + 2 * K * chunk;
    clear(own, 2 * K);
    for (int64_t image = begin; image < end; ++image)
      for (int64_t c = 0; c < C; ++c) {
        layer.fill(x, layer.call.x, image, c);
        for (int64_t map = c; map < K; map += C) {
          layer.softmaxes(x, map, sx, sy, row);
          const A middle = A(1) / A(layer.P);  // the mean is near, so that the squares lose little
          A sum = 0, square = 0;
          for (int64_t y = 0; y < tiles.h; ++y) {
            const int64_t at = tiles.first() + y * tiles.stride;
#pragma omp simd reduction(+ : sum, square)
            for (int64_t i = at; i < at + tiles.w; ++i) {
              const A off = sx[i] * sy[i] - middle;
              sum += off, square += off * off;
            }
          }
          own[2 * map] += sum, own[2 * map + 1] += square;
        }
      }
  });
  add_up(sums.at, parts.at, 2 * K, layer.chunks);
  const double count = double(layer.call.images) * layer.P;
  for (int64_t map = 0; map < K; ++map) {
    const double off = sums.at[2 * map] / count, var = sums.at[2 * map + 1] / count - off * off;
    layer.call.mean[map] = off + double(A(1) / A(layer.P));
    layer.call.var[map] = var > 0 || var != var ? var : 0;
  }
}

template <class A>
void forward_of(const AttentionWise &call, const AttentionWiseForward &to) {
  const Layer<A> layer(call);
  const auto &tiles = layer.tiles;
  const int64_t C = layer.C;
  if (call.training) find_statistics(layer);
  layer.each_chunk((5 + C) * tiles.size, [&](int64_t, int64_t begin, int64_t end, A *scratch) {
    A *x = scratch, *sx = x + tiles.size, *sy = sx + tiles.size, *row = sy + tiles.size, *y = row + tiles.size,
      *out = y + tiles.size;
    clear(y, tiles.size);
    for (int64_t image = begin; image < end; ++image) {
      clear(out, C * tiles.size);
      for (int64_t c = 0; c < C; ++c) {
        layer.fill(x, call.x, image, c);
        for (int64_t map = c; map < layer.K; map += C) {
          layer.softmaxes(x, map, sx, sy, row);
          layer.gate(x, sx, sy, map, y);
          for (int64_t o = 0; o < C; ++o) layer.convolve(out + o * tiles.size, y, layer.taps(o, map), false);
        }
      }
      for (int64_t o = 0; o < C; ++o)
        tiles.read(static_cast<A *>(to.merged) + (image * C + o) * layer.P, out + o * tiles.size);
    }
  });
}

// ---- backward

// The convolution's gradient, [C, K, 9], and the two sums of each map that its norm asks for.
template <class A>
void conv_gradient(const Layer<A> &layer, const void *grad, double *grad_conv, double *sum_t, double *sum_tn) {
  const auto &tiles = layer.tiles;
  const int64_t K = layer.K, C = layer.C, size = C * K * TAPS, with_x = C * C * TAPS;
  Array<double> parts((size + with_x) * layer.chunks), sums(size + with_x);
  layer.each_chunk((5 + C) * tiles.size, [&](int64_t chunk, int64_t begin, int64_t end, A *scratch) {
    A *x = scratch, *sx = x + tiles.size, *sy = sx + tiles.size, *row = sy + tiles.size, *y = row + tiles.size,
      *g = y + tiles.size;
    double *own = parts.at + (size + with_x) * chunk, *own_x = own + size;
    clear(own, size + with_x);
    clear(y, tiles.size);
    for (int64_t image = begin; image < end; ++image) {
      for (int64_t o = 0; o < C; ++o) layer.fill(g + o * tiles.size, grad, image, o);
      for (int64_t c = 0; c < C; ++c) {
        layer.fill(x, layer.call.x, image, c);
        for (int64_t o = 0; o < C; ++o) layer.correlate(own_x + (o * C + c) * TAPS, g + o * tiles.size, x);
        for (int64_t map = c; map < K; map += C) {
          layer.softmaxes(x, map, sx, sy, row);
          layer.gate(x, sx, sy, map, y);
          for (int64_t o = 0; o < C; ++o) layer.correlate(own + (o * K + map) * TAPS, g + o * tiles.size, y);
        }
      }
    }
  });
  add_up(sums.at, parts.at, size + with_x, layer.chunks);
  for (int64_t k = 0; k < size; ++k) grad_conv[k] = sums.at[k];
  clear(sum_t, K);
  clear(sum_tn, K);
  for (int64_t o = 0; o < C; ++o)
    for (int64_t map = 0; map < K; ++map)
      for (int tap = 0; tap < TAPS; ++tap) {
        const double weight = layer.taps(o, map)[tap];
        sum_t[map] += weight * sums.at[size + (o * C + map % C) * TAPS + tap];
        sum_tn[map] += weight * grad_conv[(o * K + map) * TAPS + tap];
      }
}

// Of one map of one image: adds to the gradients of x, of wx and wy, and of bx and by if there are any.
template <class A>
struct MapGradient {
  const Layer<A> &layer;
  A *row, *gx, *gwx, *gwy, *gbx, *gby;

  // `g` is the gradient of y; sx, sy are overwritten.
  void add(const A *__restrict__ x, const A *__restrict__ g, A *__restrict__ sx, A *__restrict__ sy, int64_t map,
           double sum_t, double sum_tn) const {
    const auto &tiles = layer.tiles;
    const int64_t w = tiles.w;
    const double count = double(layer.call.images) * layer.P;
    const A mean = A(layer.call.mean[map]), r = layer.scale(map);
    const A mean_t = layer.call.training ? A(sum_t / count) : A(0), mean_tn = layer.call.training ? A(sum_tn / count) : A(0);
    const A *__restrict__ wx = layer.wx[map], *__restrict__ wy = layer.wy[map];
    A *__restrict__ columns = row;
    clear(columns, w);
    for (int64_t y = 0; y < tiles.h; ++y) {
      const int64_t at = tiles.first() + y * tiles.stride;
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < w; ++i) {
        const A a = sx[at + i] * sy[at + i], n = (a - mean) * r;
        const A p = a * r * (g[at + i] * x[at + i] - mean_t - n * mean_tn);
        sum += p;
        columns[i] += p;
      }
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) {
        const A a = sx[at + i] * sy[at + i], n = (a - mean) * r;
        const A p = a * r * (g[at + i] * x[at + i] - mean_t - n * mean_tn);
        const A dx = p - sx[at + i] * sum;
        sx[at + i] = p;
        gx[at + i] += g[at + i] * n + dx * wx[at + i];
        gwx[at + i] += dx * x[at + i];
        if (gbx) gbx[at + i] += dx;
      }
    }
    for (int64_t y = 0; y < tiles.h; ++y) {
      const int64_t at = tiles.first() + y * tiles.stride;
#pragma omp simd
      for (int64_t i = 0; i < w; ++i) {
        const A dy = sx[at + i] - sy[at + i] * columns[i];
        gx[at + i] += dy * wy[at + i];
        gwy[at + i] += dy * x[at + i];
        if (gby) gby[at + i] += dy;
      }
    }
  }
};

template <class A>
void backward_of(const AttentionWise &call, const AttentionWiseBackward &to) {
  const Layer<A> layer(call);
  const auto &tiles = layer.tiles;
  const int64_t C = layer.C, K = layer.K, P = layer.P, size = C * K * TAPS, kinds = call.bx ? 4 : 2;
  Array<double> grad_conv(size), sum_t(K), sum_tn(K);
  conv_gradient(layer, to.grad, grad_conv.at, sum_t.at, sum_tn.at);
  for (int64_t k = 0; k < size; ++k) static_cast<A *>(to.grad_conv)[k] = A(grad_conv.at[k]);
  const int64_t weights = kinds * K * tiles.size;  // of a chunk: gradients of wx, wy and perhaps bx, by
  Array<A> parts(weights * layer.chunks);
  layer.each_chunk((6 + C) * tiles.size, [&](int64_t chunk, int64_t begin, int64_t end, A *scratch) {
    A *x = scratch, *sx = x + tiles.size, *sy = sx + tiles.size, *row = sy + tiles.size, *gy = row + tiles.size,
      *gx = gy + tiles.size, *g = gx + tiles.size;
    A *own = parts.at + weights * chunk;
    clear(own, weights);
    for (int64_t image = begin; image < end; ++image) {
      for (int64_t o = 0; o < C; ++o) layer.fill(g + o * tiles.size, to.grad, image, o);
      for (int64_t c = 0; c < C; ++c) {
        layer.fill(x, call.x, image, c);
        clear(gx, tiles.size);
        for (int64_t map = c; map < K; map += C) {
          clear(gy, tiles.size);
          for (int64_t o = 0; o < C; ++o) layer.convolve(gy, g + o * tiles.size, layer.taps(o, map), true);
          layer.softmaxes(x, map, sx, sy, row);
          A *grads[4] = {};
          for (int64_t kind = 0; kind < kinds; ++kind) grads[kind] = own + (kind * K + map) * tiles.size;
          MapGradient<A>{layer, row, gx, grads[0], grads[1], grads[2], grads[3]}.add(x, gy, sx, sy, map, sum_t.at[map],
                                                                                    sum_tn.at[map]);
        }
        tiles.read(static_cast<A *>(to.grad_x) + (image * C + c) * P, gx);
      }
    }
  });
  void *wanted[4] = {to.grad_wx, to.grad_wy, to.grad_bx, to.grad_by};
  for (int64_t kind = 0; kind < kinds; ++kind)
    for (int64_t map = 0; map < K; ++map) {
      Array<A> sum(tiles.size);
      clear(sum.at, tiles.size);
      for (int64_t chunk = 0; chunk < layer.chunks; ++chunk)
        add_to(sum.at, parts.at + weights * chunk + (kind * K + map) * tiles.size, tiles.size);
      tiles.read(static_cast<A *>(wanted[kind]) + map * P, sum.at);
    }
}

}  // namespace

void attention_wise_forward(const AttentionWise &call, const AttentionWiseForward &to) {
  call.wide ? forward_of<double>(call, to) : forward_of<float>(call, to);
}

void attention_wise_backward(const AttentionWise &call, const AttentionWiseBackward &to) {
  call.wide ? backward_of<double>(call, to) : backward_of<float>(call, to);
}

}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
