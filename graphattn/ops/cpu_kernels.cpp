// Fused attention over a graph: no edge-by-head-by-width array, no atomics, the same bits for any number of threads.
//
// Forward walks the edges of each receiver with an online softmax and keeps the log of each row's sum. Backward
// recomputes the weights from it in one pass over the senders, which meets each gathered row once for all gradients but
// the receivers' own; those are one more pass over the receivers. Derivations are in README.md beside this file.
//
// One driver (`sweep`) walks the nodes; the four scores differ in `score_edges` and in what backward adds per edge.
// Everything here is internal to the namespace of one instruction set, and no inline function of the standard library
// is used: the linker would be free to share it with code for processors that lack these instructions.

#include "cpu_kernels.h"

#include "cpu_band.h"
#include "cpu_numbers.h"
#include "cpu_rows.h"
#include "cpu_sweep.h"

namespace graphattn {
namespace GRAPHATTN_ISA {

void attention_wise_forward(const AttentionWise &, const AttentionWiseForward &);  // grid/attention_wise.cpp
void attention_wise_backward(const AttentionWise &, const AttentionWiseBackward &);

namespace {

// ---- what all passes know of the call

template <class T>
struct Call {
  using A = Sum<T>;
  Score score;
  int64_t H, D, HD;
  int64_t value_stride, value_size;  // of a head, of a node
  const T *values, *left, *right, *att, *edge;
  A constant;
  Dropout dropout;
  bool wide;  // scores take whole rows
  int chunk;  // edges a chunk, so that their rows stay in the nearest cache
  int ahead;  // rows are fetched so many edges before they are needed

  explicit Call(const Attention &a)
      : score(a.score), H(a.heads), D(a.width), HD(a.heads * a.width),
        value_stride(a.shared_values ? 0 : a.width), value_size(a.shared_values ? a.width : a.heads * a.width),
        values(static_cast<const T *>(a.values)), left(static_cast<const T *>(a.left)),
        right(static_cast<const T *>(a.right)), att(static_cast<const T *>(a.att)),
        edge(static_cast<const T *>(a.edge)), constant(A(a.constant)), dropout(a.dropout),
        wide(a.score == Score::additive_v2 || a.score == Score::dot_product) {
    if (score == Score::additive_v2) left = values;
    const int64_t bytes = int64_t(sizeof(T)) * HD * (wide ? 2 : 1) + 1;
    chunk = between(BLOCK, 32768 / bytes / BLOCK * BLOCK, CHUNK);
    ahead = between(2, 8192 / bytes, 16);
  }

  static int between(int64_t low, int64_t x, int64_t high) { return int(x < low ? low : x > high ? high : x); }

  int64_t left_size() const { return score == Score::dot_product ? value_size : wide ? HD : H; }
  int64_t right_size() const { return wide ? HD : H; }

  // What `activate` turns into the logits of `n` edges, [n][H]. The node the pass stands at is `near`, those at the
  // other ends are `far`; the scores are symmetric in the two, but for which of them is the query of an edge's key.
  void score_edges(A *z, const T *near, int64_t near_stride, RowList<T> far, int64_t far_stride, RowList<T> edge_rows,
                   int n, bool near_is_query) const {
    switch (score) {
      case Score::given:
        each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA { z[c * H + h] = load(edge_rows[c][h]); });
        break;
      case Score::additive:
        each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA { z[c * H + h] = load(near[h]) + load(far[c][h]); });
        if (edge)
          each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA { z[c * H + h] += load(edge_rows[c][h]); });
        break;
      case Score::additive_v2:
        if (edge)
          dot_leaky_rows<T, true>(z, att, near, far, edge_rows, n, H, D, constant);
        else
          dot_leaky_rows<T, false>(z, att, near, far, edge_rows, n, H, D, constant);
        break;
      case Score::dot_product:
        dot_rows<T>(z, near, near_stride, far, far_stride, n, H, D);
        if (edge && near_is_query) {
          const T *queries[CHUNK];
          for (int c = 0; c < n; ++c) queries[c] = near;
          add_pair_dots<T>(z, queries, near_stride, edge_rows, D, n, H, D);
        } else if (edge) {
          add_pair_dots<T>(z, far, far_stride, edge_rows, D, n, H, D);
        }
        break;
    }
  }

  void activate(A *z, int n) const {
    const A slope = constant;
    if (score == Score::additive) each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { z[k] = leaky(z[k], slope); });
    if (score == Score::dot_product) each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { z[k] *= slope; });
  }

  // The dropout factors of `n` edges.
  void factors(A *to, const int64_t *edges, int n) const {
    const Dropout seed = dropout;
    const A scale = A(seed.scale);
    uint32_t mixed[CHUNK], high[CHUNK];
    for (int c = 0; c < n; ++c) mixed[c] = mixed_edge(seed, edges[c]), high[c] = uint32_t(uint64_t(edges[c]) >> 32);
    each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA {
      to[c * H + h] = keeps(seed, high[c], mixed[c], uint32_t(h)) ? scale : A(0);
    });
  }

  int64_t edge_size() const { return wide ? HD : H; }

  void edge_rows(const T **to, const int64_t *edges, int n) const {
    for (int c = 0; edge && c < n; ++c) to[c] = edge + edges[c] * edge_size();
  }
};

template <class T>
INLINE void rows_of(const T **to, const T *from, int64_t size, const int64_t *nodes, int n) {
  for (int c = 0; c < n; ++c) to[c] = from + nodes[c] * size;
}

// ---- forward

template <class T>
struct ForwardPass {
  using A = Sum<T>;
  const Call<T> &call;
  const Order &order;
  T *out;
  double *lse;
  A *logits;  // of all edges, if weights are wanted
  int64_t state = 2 * call.H + call.HD, scratch = 2 * padded(call.H * CHUNK) + call.H;

  void start(A *state) const {
    for (int64_t h = 0; h < call.H; ++h) state[h] = -INF;
    clear(state + call.H, call.H + call.HD);
  }

  void edges(A *state, int64_t node, int64_t begin, int64_t end, A *scratch, int64_t) const {
    const int64_t H = call.H, D = call.D;
    A *top = state, *total = state + H, *sums = state + 2 * H;
    A *z = scratch, *kept = z + padded(H * CHUNK), *high = kept + padded(H * CHUNK);
    const T *values[CHUNK], *far[CHUNK], *edge_rows[CHUNK];
    const T *near = call.right ? call.right + node * call.right_size() : nullptr;
    const int64_t far_stride = call.score == Score::dot_product ? call.value_stride : D;
    for (int64_t at = begin; at < end; at += call.chunk) {
      const int n = end - at < call.chunk ? int(end - at) : call.chunk;
      const int64_t *edges = order.edges + at, *others = order.others + at;
      for (int64_t k = at + call.ahead, last = k + n < order.size() ? k + n : order.size(); k < last; ++k) {
        fetch(call.values + order.others[k] * call.value_size, call.value_size);
        if (call.score == Score::dot_product) fetch(call.left + order.others[k] * call.value_size, call.value_size);
      }
      rows_of(values, call.values, call.value_size, others, n);
      if (call.left) rows_of(far, call.left, call.left_size(), others, n);
      call.edge_rows(edge_rows, edges, n);
      call.score_edges(z, near, D, far, far_stride, edge_rows, n, true);
      call.activate(z, n);
      for (int c = 0; logits && c < n; ++c)
        for (int64_t h = 0; h < H; ++h) logits[edges[c] * H + h] = z[c * H + h];
      soften(top, total, sums, z, high, n);
      if (call.dropout.on) {
        call.factors(kept, edges, n);
        each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { z[k] *= kept[k]; });
      }
      add_rows<T>(sums, D, z, values, call.value_stride, n, H, D);
      if (call.score == Score::dot_product && call.edge) add_rows<T>(sums, D, z, edge_rows, D, n, H, D);
    }
  }

  // Online softmax: z becomes exp(z - top) of the largest logit so far; what was summed before is scaled to it.
  void soften(A *top, A *total, A *sums, A *z, A *high, int n) const {
    const int64_t H = call.H;
    memcpy(high, top, H * sizeof(A));
    each_head_over_edges(n, [&](int64_t k, int64_t h) INLINE_LAMBDA { high[h] = z[k] > high[h] ? z[k] : high[h]; });
    for (int64_t h = 0; h < H; ++h) {
      if (high[h] > top[h] && top[h] != -INF) {
        const A shrink = exponential(top[h] - high[h]);
        total[h] *= shrink;
        for (int64_t d = 0; d < call.D; ++d) sums[h * call.D + d] *= shrink;
      }
      top[h] = high[h];
      if (high[h] == -INF) high[h] = 0;
    }
    each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA { z[c * H + h] -= high[h]; });
    each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { z[k] = exponential(z[k]); });
    each_head_over_edges(n, [&](int64_t k, int64_t h) INLINE_LAMBDA { total[h] += z[k]; });
  }

  template <class Body>
  void each_head_over_edges(int n, const Body &body) const {
    for (int64_t c = 0, H = call.H; c < n; ++c)
#pragma omp simd
      for (int64_t h = 0; h < H; ++h) body(c * H + h, h);
  }

  void merge(A *state, const A *other) const {
    const int64_t H = call.H, D = call.D;
    for (int64_t h = 0; h < H; ++h) {
      const A high = other[h] > state[h] ? other[h] : state[h];
      // Without a finite logit there is nothing to scale; what was summed may still be NaN.
      const A mine = state[h] == high ? A(1) : state[h] == -INF ? A(0) : exponential(state[h] - high);
      const A theirs = other[h] == high ? A(1) : other[h] == -INF ? A(0) : exponential(other[h] - high);
      state[h] = high;
      state[H + h] = state[H + h] * mine + other[H + h] * theirs;
      A *sums = state + 2 * H + h * D;
      const A *more = other + 2 * H + h * D;
      for (int64_t d = 0; d < D; ++d) sums[d] = sums[d] * mine + more[d] * theirs;
    }
  }

  void finish(A *state, int64_t node) const {
    const int64_t H = call.H, D = call.D;
    for (int64_t h = 0; h < H; ++h) {
      const A total = state[H + h], inverse = total == A(0) ? A(0) : A(1) / total;
      lse[node * H + h] = total == A(0) ? INF : (state[h] == -INF ? 0.0 : state[h]) + logarithm(total);
      const A *__restrict__ sums = state + 2 * H + h * D;
      T *__restrict__ to = out + (node * H + h) * D;
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) store(to + d, sums[d] * inverse);
    }
  }
};

// The weights themselves, from the logits that stand in their place.
template <class T>
void turn_into_weights(const Call<T> &call, const Order &order, const Tasks &tasks, int threads, Sum<T> *weights,
                       const double *lse) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < tasks.tasks; ++t) {
    const Task &task = tasks.list.at[t];
    int64_t node = task.node;
    for (int64_t at = task.edge; at < task.end_edge; ++at) {
      while (at >= order.ptr[node + 1]) ++node;
      const int64_t edge = order.edges[at];
      for (int64_t h = 0; h < call.H; ++h) {
        Sum<T> &weight = weights[edge * call.H + h];
        weight = exponential(Sum<T>(weight - lse[node * call.H + h]));
        if (call.dropout.on) weight *= keeps(call.dropout, edge, h) ? Sum<T>(call.dropout.scale) : Sum<T>(0);
      }
    }
  }
}

template <class T>
void forward_of(const Attention &attention, const Forward &to) {
  const Call<T> call(attention);
  const Order &order = attention.by_receiver;
  const Tasks tasks(order);
  auto *lse = static_cast<double *>(to.lse);
  auto *weights = static_cast<Sum<T> *>(to.weights);
  sweep<Sum<T>>(order, tasks, attention.threads, ForwardPass<T>{call, order, static_cast<T *>(to.out), lse, weights});
  if (weights) turn_into_weights(call, order, tasks, attention.threads, weights, lse);
}

// ---- backward

// row_sums[i][h] = sum over the edges of i of weight * gradient of weight: what the softmax subtracts from each.
// Where the weights themselves have no gradient this is grad_out . out, whatever the number of edges.
template <class T>
struct RowSumPass {
  using A = Sum<T>;
  const Call<T> &call;
  const Order &order;
  const T *out, *grad_out;
  const A *weights, *grad_weights;
  A *row_sums;
  int64_t state = call.H, scratch = 0;

  void start(A *state) const { clear(state, call.H); }
  void edges(A *state, int64_t, int64_t begin, int64_t end, A *, int64_t) const {
    for (int64_t at = begin; grad_weights && at < end; ++at)
      for (int64_t h = 0, k = order.edges[at] * call.H; h < call.H; ++h, ++k) state[h] += weights[k] * grad_weights[k];
  }
  void merge(A *state, const A *other) const { add_to(state, other, call.H); }
  void finish(A *state, int64_t node) const {
    for (int64_t h = 0; h < call.H; ++h) {
      const T *__restrict__ g = grad_out + (node * call.H + h) * call.D;
      const T *__restrict__ o = out + (node * call.H + h) * call.D;
      A sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < call.D; ++d) sum += load(g[d]) * load(o[d]);
      row_sums[node * call.H + h] = state[h] + sum;
    }
  }
};

// All gradients but the receivers': those of the senders' values and scores, of `att`, and of each edge's logit.
template <class T>
struct SenderPass {
  using A = Sum<T>;
  const Call<T> &call;
  const Order &order;
  const Backward &b;
  const A *row_sums;
  A *att_parts;  // [tasks, H, D], or null
  bool v2 = call.score == Score::additive_v2, dot = call.score == Score::dot_product;
  bool logit_grads = call.score == Score::given ? b.grad_edge != nullptr : true;
  int64_t left = v2 ? call.HD : dot ? call.value_size : call.score == Score::additive ? call.H : 0;
  int64_t state = call.value_size + left, scratch = 5 * padded(call.H * CHUNK);

  void start(A *state) const { clear(state, this->state); }

  void edges(A *state, int64_t node, int64_t begin, int64_t end, A *scratch, int64_t task) const {
    const int64_t H = call.H, D = call.D, HD = call.HD;
    A *grad_value = state, *grad_left = state + call.value_size;
    const int64_t each = padded(H * CHUNK);
    A *weight = scratch, *slope = weight + each, *dots = slope + each, *kept = dots + each, *dropped = kept + each;
    const T *grad_rows[CHUNK], *far[CHUNK], *edge_rows[CHUNK];
    T *edge_grads[CHUNK];
    const T *grad_out = static_cast<const T *>(b.grad_out), *value = call.values + node * call.value_size;
    const T *near = call.left ? call.left + node * call.left_size() : nullptr;
    const double *lse = static_cast<const double *>(b.lse);
    const A *grad_weights = static_cast<const A *>(b.grad_weights);
    for (int64_t at = begin; at < end; at += call.chunk) {
      const int n = end - at < call.chunk ? int(end - at) : call.chunk;
      const int64_t *edges = order.edges + at, *others = order.others + at;
      for (int64_t k = at + call.ahead, last = k + n < order.size() ? k + n : order.size(); k < last; ++k) {
        fetch(grad_out + order.others[k] * HD, HD);
        if (call.wide) fetch(call.right + order.others[k] * HD, HD);
      }
      rows_of(grad_rows, grad_out, HD, others, n);
      if (call.right) rows_of(far, call.right, call.right_size(), others, n);
      call.edge_rows(edge_rows, edges, n);
      call.score_edges(slope, near, dot ? call.value_stride : D, far, D, edge_rows, n, false);
      memcpy(weight, slope, n * H * sizeof(A));
      call.activate(weight, n);
      each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA {
        weight[c * H + h] = A(weight[c * H + h] - lse[others[c] * H + h]);
      });
      each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { weight[k] = exponential(weight[k]); });
      if (call.dropout.on) {
        call.factors(kept, edges, n);
        each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { dropped[k] = weight[k] * kept[k]; });
      } else {
        dropped = weight;
      }
      if (logit_grads) {
        dot_rows<T>(dots, value, call.value_stride, grad_rows, D, n, H, D);
        if (dot && call.edge) add_pair_dots<T>(dots, grad_rows, D, edge_rows, D, n, H, D);
        if (grad_weights)
          each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA { dots[c * H + h] += grad_weights[edges[c] * H + h]; });
        if (call.dropout.on) each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { dots[k] *= kept[k]; });
        each_edge_and_head(n, H, [&](int c, int64_t h) INLINE_LAMBDA { dots[c * H + h] -= row_sums[others[c] * H + h]; });
        const A constant = call.constant;
        if (call.score == Score::additive)
          each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { dots[k] *= slope[k] > 0 ? A(1) : constant; });
        if (dot) each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { dots[k] *= constant; });
        each_lane(n * H, [&](int64_t k) INLINE_LAMBDA { slope[k] = weight[k] * dots[k]; });
      }
      if (b.grad_values) add_rows<T>(grad_value, call.value_stride, dropped, grad_rows, D, n, H, D);
      if (!logit_grads) continue;
      give_edges(slope, dropped, grad_rows, far, edges, edge_grads, n);
      if (call.score == Score::additive && b.grad_left)
        for (int c = 0; c < n; ++c) add_to(grad_left, slope + c * H, H);
      if (dot && b.grad_left) add_rows<T>(grad_left, call.value_stride, slope, far, D, n, H, D);
      if (v2) {
        A *atts = att_parts ? att_parts + task * HD : nullptr;
        T *const *to = b.grad_edge ? edge_grads : nullptr;
        if (call.edge && atts)
          add_leaky_slopes<T, true, true>(grad_left, atts, to, slope, call.att, near, far, edge_rows, n, H, D,
                                          call.constant);
        else if (call.edge)
          add_leaky_slopes<T, true, false>(grad_left, atts, to, slope, call.att, near, far, edge_rows, n, H, D,
                                           call.constant);
        else if (atts)
          add_leaky_slopes<T, false, true>(grad_left, atts, to, slope, call.att, near, far, edge_rows, n, H, D,
                                           call.constant);
        else
          add_leaky_slopes<T, false, false>(grad_left, atts, to, slope, call.att, near, far, edge_rows, n, H, D,
                                            call.constant);
      }
    }
  }

  // What belongs to one edge alone: the gradient of its logit, for the receivers' pass and for the caller, or the row
  // where the gradient of its embedding goes.
  void give_edges(const A *slope, const A *weight, RowList<T> grad_rows, RowList<T> far, const int64_t *edges,
                  T **edge_grads, int n) const {
    const int64_t H = call.H, D = call.D;
    A *logits = static_cast<A *>(b.logit_grads);
    T *grad_edge = static_cast<T *>(b.grad_edge);
    for (int c = 0; logits && c < n; ++c)
      memcpy(logits + edges[c] * H, slope + c * H, H * sizeof(A));
    if (!grad_edge) return;
    for (int c = 0; c < n; ++c) {
      edge_grads[c] = grad_edge + edges[c] * call.edge_size();
      for (int64_t h = 0; !call.wide && h < H; ++h) store(edge_grads[c] + h, slope[c * H + h]);
      for (int64_t h = 0; dot && h < H; ++h) {
        const A w = weight[c * H + h], s = slope[c * H + h];
        const T *__restrict__ g = grad_rows[c] + h * D, *__restrict__ q = far[c] + h * D;
        T *__restrict__ to = edge_grads[c] + h * D;
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) store(to + d, w * load(g[d]) + s * load(q[d]));
      }
    }
  }

  void merge(A *state, const A *other) const { add_to(state, other, this->state); }

  void finish(A *state, int64_t node) const {
    A *grad_value = state, *grad_left = state + call.value_size;
    if (v2)
      for (int64_t k = 0; k < call.HD; ++k) grad_value[k] += grad_left[k] * load(call.att[k]);
    if (b.grad_values) write(static_cast<T *>(b.grad_values) + node * call.value_size, grad_value, call.value_size);
    if (b.grad_left && left) write(static_cast<T *>(b.grad_left) + node * left, grad_left, left);
  }
};

// The gradients of the receivers' scores, from those of the logits.
template <class T>
struct ReceiverPass {
  using A = Sum<T>;
  const Call<T> &call;
  const Order &order;
  const A *logit_grads;
  T *grad_right;
  bool v2 = call.score == Score::additive_v2;
  int64_t state = call.wide ? call.HD : call.H, scratch = padded(call.H * CHUNK);

  void start(A *state) const { clear(state, this->state); }

  void edges(A *state, int64_t node, int64_t begin, int64_t end, A *slope, int64_t) const {
    const int64_t H = call.H, D = call.D, HD = call.HD;
    if (!call.wide) {
      for (int64_t at = begin; at < end; ++at) add_to(state, logit_grads + order.edges[at] * H, H);
      return;
    }
    const T *rows[CHUNK], *edge_rows[CHUNK];
    for (int64_t at = begin; at < end; at += call.chunk) {
      const int n = end - at < call.chunk ? int(end - at) : call.chunk;
      const int64_t *edges = order.edges + at, *others = order.others + at;
      for (int64_t k = at + call.ahead, last = k + n < order.size() ? k + n : order.size(); k < last; ++k)
        fetch(call.left + order.others[k] * call.left_size(), call.left_size());
      rows_of(rows, call.left, call.left_size(), others, n);
      call.edge_rows(edge_rows, edges, n);
      for (int c = 0; c < n; ++c) memcpy(slope + c * H, logit_grads + edges[c] * H, H * sizeof(A));
      if (!v2) {
        add_rows<T>(state, D, slope, rows, call.value_stride, n, H, D);
        if (call.edge) add_rows<T>(state, D, slope, edge_rows, D, n, H, D);
      } else if (call.edge) {
        add_leaky_slopes<T, true, false>(state, nullptr, nullptr, slope, call.att, call.right + node * HD, rows,
                                         edge_rows, n, H, D, call.constant);
      } else {
        add_leaky_slopes<T, false, false>(state, nullptr, nullptr, slope, call.att, call.right + node * HD, rows,
                                          edge_rows, n, H, D, call.constant);
      }
    }
  }

  void merge(A *state, const A *other) const { add_to(state, other, this->state); }

  void finish(A *state, int64_t node) const {
    for (int64_t k = 0; v2 && k < call.HD; ++k) state[k] *= load(call.att[k]);
    write(grad_right + node * this->state, state, this->state);
  }
};

template <class T>
void backward_of(const Attention &attention, const Backward &b) {
  using A = Sum<T>;
  const Call<T> call(attention);
  const Order &receivers = attention.by_receiver, &senders = attention.by_sender;
  const Tasks receiver_tasks(receivers), sender_tasks(senders);
  auto *row_sums = static_cast<A *>(b.row_sums);
  sweep<A>(receivers, receiver_tasks, attention.threads,
           RowSumPass<T>{call, receivers, static_cast<const T *>(b.out), static_cast<const T *>(b.grad_out),
                         static_cast<const A *>(b.weights), static_cast<const A *>(b.grad_weights), row_sums});
  const int64_t parts = b.grad_att ? sender_tasks.tasks : 0, HD = call.HD;
  Array<A> att_parts(size_t(parts) * HD + size_t(HD));
  clear(att_parts.at, (parts + 1) * HD);
  sweep<A>(senders, sender_tasks, attention.threads,
           SenderPass<T>{call, senders, b, row_sums, b.grad_att ? att_parts.at : nullptr});
  if (b.grad_att) {
    A *total = att_parts.at + parts * HD;
    for (int64_t t = 0; t < parts; ++t) add_to(total, att_parts.at + t * HD, HD);
    write(static_cast<T *>(b.grad_att), total, HD);
  }
  if (b.grad_right)
    sweep<A>(receivers, receiver_tasks, attention.threads,
             ReceiverPass<T>{call, receivers, static_cast<const A *>(b.logit_grads), static_cast<T *>(b.grad_right)});
}

// ---- sums with given weights

template <class T>
struct WeightedSumPass {
  using A = Sum<T>;
  const WeightedSum &sum;
  // Without a mask all heads have the same weights, and are one.
  int64_t size = sum.heads * sum.width, H = sum.dropout.on ? sum.heads : 1, D = sum.dropout.on ? sum.width : size;
  int64_t state = size, scratch = H * CHUNK;

  void start(A *state) const { clear(state, size); }
  void edges(A *state, int64_t, int64_t begin, int64_t end, A *weight, int64_t) const {
    const T *rows[CHUNK];
    for (int64_t at = begin; at < end; at += CHUNK) {
      const int n = end - at < CHUNK ? int(end - at) : CHUNK;
      const int64_t *edges = sum.order.edges + at;
      rows_of(rows, static_cast<const T *>(sum.rows), size, sum.order.others + at, n);
      A own[CHUNK];
      for (int c = 0; c < n; ++c) own[c] = load(static_cast<const T *>(sum.weights)[edges[c]]);
      if (sum.dropout.on) {
        const Dropout seed = sum.dropout;
        uint32_t mixed[CHUNK], high[CHUNK];
        A kept[CHUNK];
        for (int c = 0; c < n; ++c) mixed[c] = mixed_edge(seed, edges[c]), high[c] = uint32_t(uint64_t(edges[c]) >> 32);
        for (int c = 0; c < n; ++c) own[c] *= A(seed.scale);
        for (int64_t h = 0; h < H; ++h) {  // edges are many, heads may be few
#pragma omp simd
          for (int c = 0; c < n; ++c) kept[c] = keeps(seed, high[c], mixed[c], uint32_t(h)) ? own[c] : A(0);
          for (int c = 0; c < n; ++c) weight[c * H + h] = kept[c];
        }
      }
      add_rows<T>(state, D, sum.dropout.on ? weight : own, rows, D, n, H, D);
    }
  }
  void merge(A *state, const A *other) const { add_to(state, other, size); }
  void finish(A *state, int64_t node) const { write(static_cast<T *>(sum.out) + node * size, state, size); }
};

template <class T>
void weighted_sum_of(const WeightedSum &sum) {
  sweep<Sum<T>>(sum.order, Tasks(sum.order), sum.threads, WeightedSumPass<T>{sum});
}

// ---- dropout of any array, whose positions stand for edges

template <class T>
void drop_of(const Drop &drop) {
  const Dropout seed = drop.dropout;
  const Sum<T> scale = Sum<T>(seed.scale);
  const T *__restrict__ from = static_cast<const T *>(drop.from);
  T *__restrict__ to = static_cast<T *>(drop.to);
  constexpr int64_t RUN = 4096;
#pragma omp parallel for schedule(static) num_threads(drop.threads) if (drop.threads > 1 && drop.size > 2 * RUN)
  for (int64_t start = 0; start < drop.size; start += RUN) {
    const int64_t end = start + RUN < drop.size ? start + RUN : drop.size;
#pragma omp simd
    for (int64_t k = start; k < end; ++k) store(to + k, keeps(seed, k, 0) ? scale * load(from[k]) : Sum<T>(0));
  }
}

#define BY_TYPE(type, call, ...)                       \
  switch (type) {                                      \
    case Type::f32: return call<float>(__VA_ARGS__);   \
    case Type::f64: return call<double>(__VA_ARGS__);  \
    case Type::bf16: return call<bf16>(__VA_ARGS__);   \
    case Type::f16: return call<f16>(__VA_ARGS__);     \
  }

void forward(const Attention &attention, const Forward &to) { BY_TYPE(attention.type, forward_of, attention, to) }
void backward(const Attention &attention, const Backward &to) { BY_TYPE(attention.type, backward_of, attention, to) }
void weighted_sum(const WeightedSum &sum) { BY_TYPE(sum.type, weighted_sum_of, sum) }
void drop(const Drop &drop) { BY_TYPE(drop.type, drop_of, drop) }

}  // namespace

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
extern const Kernels kernels;
const Kernels kernels = {TEXT(GRAPHATTN_ISA), forward, backward, weighted_sum, drop, band_sum, band_sum_backward,
                         attention_wise_forward, attention_wise_backward};

}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
