"""What is no attention but runs on the same back ends: the weighted sum alone, and dropout on features."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from graphattn.graph import Graph
from graphattn.ops.backends import chosen, current
from graphattn.ops.checks import checked
from graphattn.ops.dropout import Dropout, draw


def weighted_sum(
    weights: Float[Tensor, "E"], rows: Float[Tensor, "N_s *H D"], graph: Graph, dropout: Dropout | None = None
) -> Tensor:
    """The sum without the softmax: out_i = sum over the edges e entering i of weights_e * rows_j, [N_r, D].

    Differentiable in `rows`. A mask given as `dropout` is applied to the weights, here and in backward; where the rows
    have heads, [N_s, H, D], these share the weights, but each has a mask of its own.

    Raises:
        TypeError, ValueError: as the operations do; ValueError also where the weights need a gradient.
    """
    heads = isinstance(rows, Tensor) and rows.dim() == 3
    arguments = {"weights": (weights, "E"), "rows": (rows, "N_s H D" if heads else "N_s D")}
    tensors = checked("weighted_sum", graph, current().check_nan, arguments)
    if weights.requires_grad:
        raise ValueError("weighted_sum: weights need a gradient, which they get none of: detach() them, or use attend")
    return _WeightedSum.apply(tensors["weights"], tensors["rows"], graph, dropout, _simple_backend(rows), False)


def feature_dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout on features, as `torch.nn.functional.dropout`.

    On the CPU the mask is computed, as that of the weights is, in a small part of the time that torch takes to draw it.
    Elsewhere this is torch's.

    Raises:
        ValueError: p outside 0 to 1.
    """
    if has_torch_function_unary(x):  # sparse features have their own way
        return handle_torch_function(feature_dropout, (x,), x, p, training)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout is {p}: needed a probability between 0 and 1")
    drop = getattr(_simple_backend(x), "feature_dropout", None)
    if drop is None:
        return F.dropout(x, p, training)
    mask = draw(p, x.device) if training else None
    return x if mask is None else drop(x, mask)


class _WeightedSum(torch.autograd.Function):
    """Over the graph, or with the edges `turned` round, which is its own backward."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        rows: Tensor,
        graph: Graph,
        dropout: Dropout | None,
        backend: ModuleType,
        turned: bool,
    ) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.rest = graph, dropout, backend, not turned
        return backend.weighted_sum(weights, rows, graph.by_sender if turned else graph.by_receiver, dropout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None, None, None, None]:
        return None, _WeightedSum.apply(*ctx.saved_tensors, grads[0], *ctx.rest), None, None, None, None


def _simple_backend(x: Tensor) -> ModuleType:
    """For what is no attention, and only some back ends have of their own."""
    name = current().backend
    return chosen(name if name in (None, "cpu", "gpu") else "reference", x.device.type)
