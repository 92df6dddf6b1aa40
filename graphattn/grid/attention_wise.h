// The heads of an Attention-Wise layer and the convolution that merges them, as one: no array of every head is made.
//
// Letters: B images, H heads, C channels, h x w pixels; K = H * C maps, head by head. See attention_wise.py for what is
// computed; the maps are y = (a - mean) / sqrt(var + eps) * x with a = row softmax(x * wx + bx) * column softmax(...).
#pragma once

#include <cstdint>

namespace graphattn {

struct AttentionWise {
  bool wide;      // numbers are double, else float
  bool training;  // mean and var are those of a over the images and pixels, else given
  int64_t images, heads, channels, height, width;
  const void *x;         // [B, C, h, w]
  const void *wx, *wy;   // [H, C, h, w]
  const void *bx, *by;   // the same, or null
  const void *conv;      // [C, H * C, 3, 3]
  double *mean, *var;    // [K]; in training, forward writes them (var is biased)
  double eps;
  int threads;

  int64_t maps() const { return heads * channels; }
};

struct AttentionWiseForward {
  void *merged;  // [B, C, h, w]
};

struct AttentionWiseBackward {
  const void *grad;                // [B, C, h, w]
  void *grad_x;                    // like x
  void *grad_wx, *grad_wy;         // like wx
  void *grad_bx, *grad_by;         // like bx, or null
  void *grad_conv;                 // like conv
};

}  // namespace graphattn
