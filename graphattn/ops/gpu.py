"""Fused kernels in Triton: no edge-by-head-by-width tensor, forward or backward; the same bits every time.

What the kernels compute is in README.md beside this file. Nothing here waits for the device, so a training step can be
captured as a CUDA graph. Sums are float32 for half precision, else of the inputs' dtype.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Order
from graphattn.ops import gpu_kernels, gpu_launch
from graphattn.ops.dropout import Dropout
from graphattn.ops.fused import ADDITIVE, ADDITIVE_V2, Edges, Fused, Inputs
from graphattn.ops.gpu_band import band_sum
from graphattn.ops.gpu_launch import Tile, computed_in, on_device, tile
from graphattn.ops.reference import accumulation_dtype

__all__ = ["INTERPRETED", "additive", "additive_v2", "attend", "band_sum", "dot_product", "weighted_sum"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # then the kernels run on the CPU, slowly, to be tested


class _Nodes:
    """One order of the edges, with its heavy nodes' pieces."""

    def __init__(self, edges: Edges) -> None:
        assert edges.pieces is not None
        self.orders = tuple(tensor.contiguous() for tensor in edges[:3])
        self.ptr = self.orders[0]
        self.number, self.num_edges = edges.ptr.numel() - 1, edges.edges.numel()
        self.pieces = edges.pieces
        self.num_pieces, self.split = self.pieces.shape[0], gpu_launch.split(self.num_edges)

    @property
    def programs(self) -> int:
        """Some nodes may have no edges, but a program each."""
        return self.num_pieces + self.number

    def tile(self, heads: int, width: int, dtype: torch.dtype, rows: int) -> Tile:
        return tile(heads, width, self.num_edges / max(1, self.number), rows, dtype)

    def parts(self, like: Tensor, *shape: int) -> Tensor:
        """Room for what pieces leave."""
        return like.new_empty((self.num_pieces, *shape), dtype=accumulation_dtype(like.dtype))

    def add_pieces(self, parts: Tensor, whole: Tensor | None) -> None:
        if self.num_pieces and whole is not None:
            width = parts[0].numel()
            grid = self.num_pieces, triton.cdiv(width, 1024)
            gpu_kernels.add_pieces[grid](self.ptr, self.pieces, parts, whole, self.split, W=width, BP=8, BW=1024)


def _forward(given: Inputs, receivers: Edges, out: Tensor, lse: Tensor, weights: Tensor | None) -> None:
    nodes = _Nodes(receivers)
    if not nodes.number:
        return
    heads, width = out.shape[1:]
    shape = nodes.tile(heads, width, out.dtype, rows=2)
    part_out, part_top, part_sum = (nodes.parts(out, heads, *rest) for rest in ((width,), (), ()))
    with on_device(out):
        gpu_kernels.forward[nodes.programs, shape.programs(heads)](
            *_contiguous(given),
            *nodes.orders,
            nodes.pieces,
            given.seed,
            *(out, lse, weights, part_out, part_top, part_sum),
            *(nodes.num_pieces, nodes.split),
            **_constants(given, out, shape),
        )
        if nodes.num_pieces:
            gpu_kernels.merge[nodes.num_pieces, shape.programs(heads)](
                *(nodes.ptr, nodes.pieces, out, lse, part_out, part_top, part_sum, nodes.split),
                **({"H": heads, "D": width, "BP": 4, "BH": shape.heads, "BD": shape.values} | _wide(out)),
                num_warps=shape.warps,
            )
        if weights is not None:
            gpu_kernels.weigh[nodes.programs, 1](
                *(weights, lse, nodes.ptr, nodes.orders[1], nodes.pieces, given.seed),
                *(nodes.num_pieces, nodes.split),
                **({"H": heads, "BE": 16, "BH": triton.next_power_of_2(heads)} | _dropped(given.p) | _wide(out)),
            )


def _backward(
    given: Inputs,
    receivers: Edges,
    senders: Edges,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    weights: Tensor | None,
    grad_weights: Tensor | None,
    grads: Sequence[Tensor | None],
) -> None:
    grad_values, grad_left, grad_right, grad_att, grad_edge = grads
    by_receiver, by_sender = _Nodes(receivers), _Nodes(senders)
    heads, width = out.shape[1:]
    wide = accumulation_dtype(out.dtype)
    sums = out.new_empty(out.shape[:2], dtype=wide)
    logit_grads = None
    if grad_right is not None or grad_att is not None:
        logit_grads = out.new_empty((by_receiver.num_edges, heads), dtype=wide)
    grad_out, lse = grad_out.contiguous(), lse.contiguous()
    weights, grad_weights = (None if t is None else t.contiguous() for t in (weights, grad_weights))
    tensors = _contiguous(given)
    with on_device(out):
        if by_receiver.number:
            shape = by_receiver.tile(heads, width, out.dtype, rows=1)
            gpu_kernels.row_sums[by_receiver.number, shape.programs(heads)](
                *(out.contiguous(), grad_out, weights, grad_weights, by_receiver.ptr, by_receiver.orders[1], sums),
                **(_sizes(heads, width, shape) | _wide(out)),
            )
        if by_sender.number:
            _to_senders(
                *(given, tensors, by_sender, (lse, sums, grad_out, grad_weights)),
                *(grad_values, grad_left, grad_edge, logit_grads),
            )
        if logit_grads is not None:
            _to_receivers(given, tensors, by_receiver, out, logit_grads, grad_right, grad_att)


def _to_senders(
    given: Inputs,
    tensors: list[Tensor | None],
    nodes: _Nodes,
    gathered: tuple[Tensor | None, ...],
    grad_values: Tensor | None,
    grad_left: Tensor | None,
    grad_edge: Tensor | None,
    logit_grads: Tensor | None,
) -> None:
    values = given.values
    heads, width = given.heads, values.shape[2]
    grad_of_values, grad_of_left = _each_head(grad_values, heads), _each_head(grad_left, heads)
    part_values = nodes.parts(values, heads, width)
    part_left = nodes.parts(values, heads) if given.score == ADDITIVE else nodes.parts(values, heads, width)
    shape = nodes.tile(heads, width, values.dtype, rows=2 if given.score < ADDITIVE_V2 else 4)
    gpu_kernels.backward_senders[nodes.programs, shape.programs(heads)](
        *tensors,
        *nodes.orders,
        nodes.pieces,
        given.seed,
        *gathered,
        *(grad_of_values, grad_of_left, grad_edge, logit_grads, part_values, part_left),
        *(nodes.num_pieces, nodes.split),
        **_constants(given, values, shape),
    )
    nodes.add_pieces(part_values, grad_of_values)
    nodes.add_pieces(part_left, grad_of_left)
    for grad, each in ((grad_values, grad_of_values), (grad_left, grad_of_left)):
        if grad is not None and each is not None and each is not grad:
            grad.copy_(each.sum(1, keepdim=True))


def _to_receivers(
    given: Inputs,
    tensors: list[Tensor | None],
    nodes: _Nodes,
    out: Tensor,
    logit_grads: Tensor,
    grad_right: Tensor | None,
    grad_att: Tensor | None,
) -> None:
    values, left, right, att, edge = tensors
    heads, width = out.shape[1:]
    run = max(1, triton.cdiv(nodes.number, gpu_launch.SHARES)) if grad_att is not None else 1
    programs = nodes.num_pieces + triton.cdiv(nodes.number, run)
    part_right = nodes.parts(out, heads) if given.score == ADDITIVE else nodes.parts(out, heads, width)
    shares = None if grad_att is None else out.new_empty((programs, heads, width), dtype=accumulation_dtype(out.dtype))
    rows = values if given.score == ADDITIVE_V2 else left
    shape = nodes.tile(heads, 1 if given.score == ADDITIVE else width, out.dtype, rows=2)
    if programs:
        gpu_kernels.backward_receivers[programs, shape.programs(heads)](
            *(rows, right, att, edge, *nodes.orders, nodes.pieces, logit_grads, grad_right, shares, part_right),
            *(nodes.number, nodes.num_pieces, nodes.split, run),
            **(_sizes(heads, width, shape) | _wide(out)),
            LEFT_HEADS=1 if rows is None else rows.shape[1],
            SCORE=given.score,
            CONSTANT=given.constant,
        )
        nodes.add_pieces(part_right, grad_right)
    if grad_att is not None and shares is not None:
        grad_att.copy_(shares.sum(0))


def weighted_sum(
    weights: Float[Tensor, "E"], rows: Float[Tensor, "N *H D"], order: Order, dropout: Dropout | None
) -> Float[Tensor, "nodes *H D"]:
    """out[n] = sum over the edges e of n in `order` of weights[e] * rows[other end of e]; not differentiable."""
    p, seed = (0.0, None) if dropout is None else dropout
    edges = [order.ptr, order.edges, order.others, gpu_launch.pieces(order)]
    return torch.ops.graphattn.weighted_sum_gpu(weights, rows, edges, p, seed)


@torch.library.custom_op("graphattn::weighted_sum_gpu", mutates_args=())
def _weighted_sum(weights: Tensor, rows: Tensor, edges: Sequence[Tensor], p: float, seed: Tensor | None) -> Tensor:
    nodes = _Nodes(Edges(*edges))
    width = rows.shape[1:].numel()
    out, parts = rows.new_empty((nodes.number, *rows.shape[1:])), nodes.parts(rows, width)
    if out.numel():
        shape = nodes.tile(1, min(width, 512), rows.dtype, rows=1)
        with on_device(rows):
            gpu_kernels.weighted_sum[nodes.programs, triton.cdiv(width, shape.values)](
                *(weights.contiguous(), rows.contiguous(), *nodes.orders, nodes.pieces, seed, out, parts),
                *(nodes.num_pieces, nodes.split),
                **(
                    {"W": width, "D": rows.shape[-1], "BE": shape.edges, "BD": shape.values} | _dropped(p) | _wide(rows)
                ),
                num_warps=shape.warps,
            )
            nodes.add_pieces(parts, out)
    return out


@_weighted_sum.register_fake
def _(weights, rows, edges, p, seed):  # type: ignore[no-untyped-def]
    return rows.new_empty((edges[0].shape[0] - 1, *rows.shape[1:]))


def _contiguous(given: Inputs) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in given.tensors]


def _each_head(grad: Tensor | None, heads: int) -> Tensor | None:
    """Where the gradient of values is written that heads may share: then one for each, to be added."""
    if grad is None or grad.shape[1] == heads:
        return grad
    return grad.new_empty((grad.shape[0], heads, *grad.shape[2:]), dtype=accumulation_dtype(grad.dtype))


def _constants(given: Inputs, like: Tensor, shape: Tile) -> dict[str, Any]:
    """What kernels are compiled for. Numbers too, since Triton passes those that are not in float32."""
    about = {"VALUE_HEADS": given.values.shape[1], "SCORE": given.score, "CONSTANT": given.constant}
    return about | _sizes(given.heads, like.shape[2], shape) | _dropped(given.p) | _wide(like)


def _sizes(heads: int, width: int, shape: Tile) -> dict[str, int]:
    blocks = {"BE": shape.edges, "BH": shape.heads, "BD": shape.values, "num_warps": shape.warps}
    return {"H": heads, "D": width, **blocks}


def _dropped(p: float) -> dict[str, Any]:
    """The words of the hash from THRESHOLD on are kept, and scaled."""
    return {"DROP": p > 0, "THRESHOLD": int(p * 2**32), "SCALE": 0.0 if p == 1 else 1 / (1 - p)}


def _wide(like: Tensor) -> dict[str, Any]:
    return {"WIDE": computed_in(like.dtype)}


_fused = Fused("attention_gpu", _forward, _backward, pieces=gpu_launch.pieces)
attend, additive, additive_v2, dot_product = _fused.attend, _fused.additive, _fused.additive_v2, _fused.dot_product
