// What the door (cpu.cpp) hands to the kernels (cpu_kernels.cpp): arrays, lengths and numbers.
//
// The kernels are compiled once for each instruction set, each time in a namespace of that name; the door picks one.
// Letters as everywhere: N_s senders, N_r receivers, E edges, H heads, D values a head. All arrays are contiguous.
#pragma once

#include <cstdint>

#include "../grid/attention_wise.h"

namespace graphattn {

enum class Score { given, additive, additive_v2, dot_product };
enum class Type { f32, f64, bf16, f16 };  // of inputs, output and gradients; sums are f64 for f64 and f32 for the others

// The edges of node n are edges[ptr[n] .. ptr[n + 1]), others[...] the nodes at their other ends.
struct Order {
  const int64_t *ptr = nullptr, *edges = nullptr, *others = nullptr;
  int64_t nodes = 0;

  int64_t size() const { return ptr[nodes]; }
};

struct Dropout {
  bool on = false;
  uint32_t low = 0, high = 0;  // the two words of the seed
  uint32_t threshold = 0;      // p * 2^32: a word below it drops its edge
  double scale = 1;            // 1 / (1 - p); 0 where p is 1
};

struct Attention {
  Score score;
  Type type;
  int64_t heads, width;
  bool shared_values = false;  // one head of values (and keys) for all heads
  const void *values = nullptr;                   // [N_s, H or 1, D]
  const void *left = nullptr, *right = nullptr;   // additive: [N_s, H], [N_r, H]; v2: -, [N_r, H, D]; dot: k, q
  const void *att = nullptr;                      // v2: [H, D]
  const void *edge = nullptr;                     // [E, H], or [E, H, D] in v2 and dot_product
  double constant = 0;                            // additive: negative slope; dot_product: scale
  Dropout dropout;
  Order by_receiver, by_sender;
  int threads = 1;
};

struct Forward {
  void *out;      // [N_r, H, D]
  void *lse;      // [N_r, H], double: log of the sum of exp(logit); +inf where there is nothing to sum
  void *weights;  // [E, H], in the type of the sums, or null
};

struct Backward {
  const void *out, *lse, *grad_out;           // as above
  const void *weights, *grad_weights;         // [E, H] in the type of the sums, both or neither
  void *grad_values, *grad_left, *grad_right, *grad_att;  // null where not wanted
  void *grad_edge;                            // null where not wanted
  void *row_sums;                             // [N_r, H] in the type of the sums: scratch
  void *logit_grads;                          // [E, H] in the type of the sums: scratch
};

// out[n, h] = sum over the edges e of n of weights[e] * rows[others, h]; each head has a dropout mask of its own.
struct WeightedSum {
  Type type;
  int64_t heads, width;
  const void *weights, *rows;  // [E], [N, H, D]
  void *out;                   // [nodes, H, D]
  Dropout dropout;
  Order order;
  int threads = 1;
};

// to[k] = from[k] times the dropout factor of (edge k, head 0)
struct Drop {
  Type type;
  int64_t size;
  const void *from;
  void *to;
  Dropout dropout;
  int threads = 1;
};

// out[b, t, h] = sum over j of weights[b, t, h, j] * values[b, t + j - left, h], with zeros outside the sequence.
struct Band {
  Type type;
  int64_t batch, steps, heads, width, taps, left;
  bool shared_weights = false;   // the same at every step of every sequence
  const void *weights, *values;  // [B, T, H, K], or [H, K] where shared; [B, T, H, D]
  int threads = 1;
};

struct BandGradients {
  const void *grad_out;               // [B, T, H, D]
  void *grad_weights, *grad_values;   // null where not wanted
};

struct Kernels {
  const char *name;
  void (*forward)(const Attention &, const Forward &);
  void (*backward)(const Attention &, const Backward &);
  void (*weighted_sum)(const WeightedSum &);
  void (*drop)(const Drop &);
  void (*band_sum)(const Band &, void *out);
  void (*band_sum_backward)(const Band &, const BandGradients &);
  void (*attention_wise_forward)(const AttentionWise &, const AttentionWiseForward &);
  void (*attention_wise_backward)(const AttentionWise &, const AttentionWiseBackward &);
};

const Kernels *kernels_for(int64_t width);  // the best for rows of so many numbers, or the one chosen by name

}  // namespace graphattn
