"""Doing a linear map where it is cheaper: after the sum over the edges, or before the product with a score vector.

A weighted sum of mapped features is the mapped weighted sum, and a . (W x) is (W^T a) . x. Where the input has fewer
features than a head has channels, gathering inputs moves less and computes less than gathering what they are mapped
to; the numbers are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import Linear


def plain(linear: nn.Module) -> bool:
    """Whether a linear map is but its weights: PyG's or torch's, made, without hooks, parametrisation or autocast.

    Under autocast logits would be coarse, and the results of another dtype than PyG's.
    """
    hooks = linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks or linear._backward_pre_hooks
    wrapped = "forward" in vars(linear)  # as some libraries add what hooks do
    if hooks or wrapped or type(linear) not in (Linear, nn.Linear) or type(linear.weight) is not nn.Parameter:
        return False
    return not torch.is_autocast_enabled(linear.weight.device.type)


def pays(features: int, width: int, num_edges: int, num_receivers: int) -> bool:
    """Whether summing `features` numbers an edge and head instead of `width` saves more than mapping the sums costs.

    Mapping before the sum and mapping after it are the same product; after it, the heads' results are copied once
    into their places, num_receivers * width numbers a head.
    """
    return num_edges * (width - features) > num_receivers * width


def pays_for_products(senders: torch.Size, receivers: torch.Size, width: int) -> bool:
    """The same for dot products, where the map of the keys too goes: into that of the queries, a product of weights.

    It costs F_s F_r numbers a channel where the keys cost N_s F_s, and must leave rows little wider than a head.
    """
    return senders[1] + 1 <= 1.1 * width and 4 * receivers[1] <= senders[0]


_REGISTER = 16  # numbers; rows of whole registers leave no remainders


def with_one(x: Tensor) -> Tensor:
    """(x, 1, 0 ...): [N, F'], of a whole number of registers."""
    return F.pad(F.pad(x, (0, 1), value=1.0), (0, -(x.shape[1] + 1) % _REGISTER))


def with_bias(linear: Any, columns: int) -> Tensor:
    """(W, b, 0 ...): [H * D, columns]."""
    bias = linear.weight.new_zeros(linear.weight.shape[0]) if linear.bias is None else linear.bias
    whole = torch.cat([linear.weight, bias.unsqueeze(1)], 1)
    return F.pad(whole, (0, columns - whole.shape[1]))


def by_head(weight: Tensor, heads: int) -> Tensor:
    """[H * D, F] -> [H, D, F]"""
    return weight.view(heads, -1, weight.shape[1])


def map_heads(sums: Tensor, weight: Tensor) -> Tensor:
    """Each head's own rows of `weight` [H * D, F] applied to its sums [N, H, F]: [N, H, D]."""
    return torch.bmm(sums.transpose(0, 1), by_head(weight, sums.shape[1]).transpose(1, 2)).transpose(0, 1)


def scores_of_mapped(mapped: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """For each vector a [1, H, D], the score of every head: a_h . mapped_h, [N, H].

    As a product with a matrix [H D, H] that is a in the diagonal blocks and zero elsewhere: three to six times as fast,
    gradients included, as products and sums an element.
    """
    heads, width = vectors[0].shape[1:]
    own = torch.eye(heads, dtype=vectors[0].dtype, device=mapped.device).unsqueeze(1)  # [H, 1, H]
    with torch.autocast(mapped.device.type, enabled=False):  # in half precision too coarse
        flat = mapped.to(vectors[0].dtype).flatten(1)
        return tuple(flat @ (vector[0].unsqueeze(-1) * own).view(heads * width, heads) for vector in vectors)


def scores(x: Tensor, weight: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """For each vector a [1, H, D], the score of every head: a_h . (W_h x), [N, H], computed as (W_h^T a_h) . x."""
    heads = by_head(weight, vectors[0].shape[1])
    folded = torch.cat([torch.einsum("hdf,hd->hf", heads, vector[0]) for vector in vectors])
    return F.linear(x, folded).chunk(len(vectors), 1)
