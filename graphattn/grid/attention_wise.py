"""Attention-Wise: pixels gated by what a softmax over their row and one over their column leave of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.grid import fused
from graphattn.grid.reference import scores
from graphattn.ops.backends import on_kernels


class Steps(NamedTuple):
    """What `AttentionWise` computes one after the other, for pictures. B images, H heads, C channels, h x w pixels."""

    scores: Tensor  # [B, H, C, h, w]
    normalised: Tensor  # [B, H, C, h, w]
    heads: Tensor  # [B, H, C, h, w], before the convolution
    merged: Tensor  # [B, C, h, w], after it
    added: Tensor  # with the input, before the batch norm
    normed: Tensor  # after it
    output: Tensor


class AttentionWise(nn.Module):
    """Element-wise attention: `x` [B, C, h, w] -> [B, C, h, w].

        a      = softmax over the row (x * Wx) * softmax over the column (x * Wy)      for each head
        head   = BN(a) * x                                                             BN stands where 1 / sqrt(d) was
        output = ReLU(BN?(conv3x3(heads, one after the other on channels) + x))

    Wx and Wy have the shape of the input, so a layer is made for one size of image. No value of another pixel is summed
    before the convolution: the heads gate, others enter through the softmax's denominators alone.

    On the CPU, compiled kernels compute heads and convolution together, in float32 or float64, and keep no array of
    every head; elsewhere, with `score_affine`, and where the norm or the convolution was exchanged or has hooks,
    torch does.

    Args:
        channels: C.
        size: h and w, or one number for both.
        heads: H.
        batch_norm: normalise before the ReLU, with scale and shift.
        skip: add the input after the convolution; without is the authors' suggestion.
        score_bias: add free arrays to both products before the softmaxes, zero at the start. A bias is the authors'
            suggestion; its place is ours.
        score_affine: a scale and a shift in the norm of the scores. The paper does not say; its counts have none.
        score_eps: what the norm of the scores adds to their variance. A score is about 1 / (h w), so that torch's
            1e-5, the default, is far more than the variance itself, and the heads begin small.
        score_cumulative: what the norm of the scores uses in evaluation is the mean over all batches. Torch's running
            statistics, the default, begin at a variance of 1, a tenth of which is left after 22 batches.
        conv_bias: a bias in the convolution. The paper's equation has none; its counts do.
        std: of the normal distribution that all weights are drawn from; biases begin at zero.

    Raises:
        ValueError: a size that is not positive, a negative `score_eps`, or an input of another size.

    Paper: Bacochina and de Souza, Element-Wise Attention Layers: an option for optimization, arXiv:2302.05488. Its norm
    of the scores is read as one over the batch, with statistics for each head and channel.
    """

    def __init__(
        self,
        channels: int,
        size: int | tuple[int, int],
        heads: int = 1,
        *,
        batch_norm: bool = False,
        skip: bool = True,
        score_bias: bool = False,
        score_affine: bool = False,
        score_eps: float = 1e-5,
        score_cumulative: bool = False,
        conv_bias: bool = True,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        for name, value in (("channels", channels), ("heads", heads), ("height", height), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} is {value}, needed at least 1")
        if not score_eps >= 0:
            raise ValueError(f"score_eps is {score_eps}, needed a number that is not negative")
        self.shape, self.heads, self.skip, self.std = (channels, height, width), heads, skip, std
        free = (heads, *self.shape)
        self.x_weight, self.y_weight = nn.Parameter(torch.empty(free)), nn.Parameter(torch.empty(free))
        self.x_bias = nn.Parameter(torch.empty(free)) if score_bias else None
        self.y_bias = nn.Parameter(torch.empty(free)) if score_bias else None
        momentum: Any = None if score_cumulative else 0.1  # of which torch's stubs know floats only
        self.norm = nn.BatchNorm2d(heads * channels, eps=score_eps, momentum=momentum, affine=score_affine)
        self.conv = nn.Conv2d(heads * channels, channels, 3, padding=1, bias=conv_bias)
        self.batch_norm = nn.BatchNorm2d(channels) if batch_norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.x_weight, self.y_weight, self.conv.weight):
            nn.init.normal_(weight, std=self.std)
        for bias in (self.x_bias, self.y_bias, self.conv.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if not self._is_fused(x):
            return self.inspect(x).output
        return self._finished(self._merged(x), x)[-1]

    def inspect(self, x: Tensor) -> Steps:
        """All steps on the way to the output, by torch. In training mode it moves running statistics, as `forward`."""
        self._check(x)
        found = scores(x, self.x_weight, self.y_weight, self.x_bias, self.y_bias)
        normalised = self.norm(found.flatten(1, 2)).view_as(found)
        heads = normalised * x.unsqueeze(1)
        merged = self.conv(heads.flatten(1, 2))
        return Steps(found, normalised, heads, merged, *self._finished(merged, x))

    def _finished(self, merged: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """added, normed and output."""
        added = merged + x if self.skip else merged
        normed = added if self.batch_norm is None else self.batch_norm(added)
        return added, normed, F.relu(normed)

    def _merged(self, x: Tensor) -> Tensor:
        norm, weight = self.norm, self.x_weight
        given = (None, None) if norm.training else (norm.running_mean, norm.running_var)
        tensors = (self.x_weight, self.y_weight, self.x_bias, self.y_bias, self.conv.weight)
        merged, mean, var = fused.merged(x.to(weight.dtype), *tensors, *given, norm.eps)
        if norm.training:
            _follow(norm, mean, var, x.numel() // x.shape[1])
        if self.conv.bias is not None:
            merged = merged + self.conv.bias.view(-1, 1, 1)
        narrow = torch.is_autocast_enabled("cpu") and merged.dtype == torch.float32  # autocast leaves float64 alone
        return merged.to(torch.get_autocast_dtype("cpu")) if narrow else merged

    def _is_fused(self, x: Tensor) -> bool:
        norm, weight = self.norm, self.x_weight
        if not (_bare(norm, nn.BatchNorm2d) and _bare(self.conv, nn.Conv2d)) or norm.affine:
            return False
        there = x.device.type == weight.device.type == "cpu" and on_kernels("cpu")
        exact = weight.dtype in (torch.float32, torch.float64)
        own = _merges(self.conv, weight)
        alike = x.dtype == weight.dtype or (x.is_floating_point() and torch.is_autocast_enabled("cpu"))
        several = x.numel() > x.shape[1] if norm.training else x.numel() > 0
        return there and exact and own and alike and several and norm.track_running_stats

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1:] != self.shape:
            channels, height, width = self.shape
            raise ValueError(
                f"x has shape {list(x.shape)}: needed [B, {channels}, {height}, {width}], the size that this layer's "
                f"weights were made for; resize the images, or make a layer for theirs"
            )

    def extra_repr(self) -> str:
        return f"{' x '.join(map(str, self.shape))}, heads={self.heads}, skip={self.skip}"


def _bare(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is but its weights: of this class itself, without hooks or what some libraries add instead."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return type(module) is kind and not hooks and "forward" not in vars(module)


def _merges(conv: nn.Conv2d, weight: Tensor) -> bool:
    """Whether it is but for its numbers the convolution of a layer with this `weight` [H, C, h, w]."""
    heads, channels = weight.shape[:2]
    sizes = (conv.weight.shape, conv.stride, conv.padding, conv.dilation, conv.padding_mode)
    own = sizes == ((channels, heads * channels, 3, 3), (1, 1), (1, 1), (1, 1), "zeros")
    return own and conv.weight.dtype == weight.dtype


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics towards those of a batch with so many pixels a channel."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    part: Any = 1 / norm.num_batches_tracked.to(mean.dtype) if norm.momentum is None else norm.momentum
    norm.running_mean.copy_(norm.running_mean.to(mean.dtype).lerp(mean, part))
    norm.running_var.copy_(norm.running_var.to(var.dtype).lerp(var * (count / (count - 1)), part))
