"""What Attention-Wise computes, in plain PyTorch: any floating dtype, any device, differentiable twice."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def scores(
    x: Float[Tensor, "B C h w"],
    x_weight: Float[Tensor, "H C h w"],
    y_weight: Float[Tensor, "H C h w"],
    x_bias: Float[Tensor, "H C h w"] | None = None,
    y_bias: Float[Tensor, "H C h w"] | None = None,
) -> Float[Tensor, "B H C h w"]:
    """softmax over each row of (x * x_weight + x_bias), times softmax over each column of (x * y_weight + y_bias).

    As edges: the pixels of a row are a clique, as are those of a column, and the logit of an edge is its sender's alone
    (`topology.rows`, `topology.columns`). Every receiver of a clique then has the same weights, so they are computed
    once a clique instead of once an edge.
    """
    along_x, along_y = x.unsqueeze(1) * x_weight, x.unsqueeze(1) * y_weight
    if x_bias is not None:
        along_x = along_x + x_bias
    if y_bias is not None:
        along_y = along_y + y_bias
    return along_x.softmax(-1) * along_y.softmax(-2)


def merged(
    x: Float[Tensor, "B C h w"],
    x_weight: Float[Tensor, "H C h w"],
    y_weight: Float[Tensor, "H C h w"],
    x_bias: Float[Tensor, "H C h w"] | None,
    y_bias: Float[Tensor, "H C h w"] | None,
    conv: Float[Tensor, "C K 3 3"],
    mean: Float[Tensor, "K"] | None,
    var: Float[Tensor, "K"] | None,
    eps: float,
) -> Float[Tensor, "B C h w"]:
    """The heads norm(scores) * x, one after the other on channels (K = H * C), through the 3x3 convolution.

    The norm is that of batch normalisation: with the given mean and variance of each map, or without, with those of
    the batch.
    """
    maps = scores(x, x_weight, y_weight, x_bias, y_bias).flatten(1, 2)
    training = mean is None
    if mean is not None and var is not None:
        mean, var = mean.to(maps.dtype), var.to(maps.dtype)
    normalised = F.batch_norm(maps, mean, var, training=training, eps=eps)
    return F.conv2d(normalised * x.repeat(1, x_weight.shape[0], 1, 1), conv, padding=1)
