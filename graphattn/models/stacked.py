"""Several models of one family as one: their heads side by side, so that one pass over the graph serves them all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn import ops
from graphattn.conv import narrow
from graphattn.conv.edges import edges_of
from graphattn.conv.sparse_linear import SparseFeatures, sparse_linear
from graphattn.models.gat import GAT
from graphattn.models.gcn import GCN
from graphattn.models.mlp import MLP


class Stacked(nn.Module):
    """K models as one: `x` [N, F] (dense or sparse), `edge_index` [2, E] -> logits [K, N, C], each model its own.

    Every parameter is those of the models, [K, ...]; none is shared, so the gradient of a sum of K losses, one a model,
    is each model's own. The numbers are those of the models one by one up to rounding; in training, each has dropout
    masks of its own, which are not those that it would draw alone (one model by itself keeps them).

    A layer of K models with H heads is one of K * H heads. Maps of what all share, the input, are one wide map, maps of
    what each has for itself a batched product.

    Raises:
        ValueError: models of a family that cannot be stacked, or of several.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        families = {type(model) for model in models}
        if len(families) != 1 or not families <= _LAYERS.keys():
            raise ValueError(
                f"{', '.join(sorted(family.__name__ for family in families))} cannot be stacked: needed models of one "
                f"family, of {', '.join(family.__name__ for family in _LAYERS)}"
            )
        own: Any = models[0]
        beside = {id(p) for p in own.parameters()} - {id(p) for p in own.layers.parameters()}
        mapped = any(getattr(layer, "res", None) is not None for layer in own.layers)
        if beside or mapped or getattr(own, "edge_dim", None) is not None:
            raise ValueError(
                "models with residual, skip_mapped, batch_norm or features of edges cannot be stacked: train them one "
                "by one"
            )
        layer = _LAYERS[families.pop()]
        self.net: Any = copy.copy(models[0])  # a family's own forward, with what it does between its layers
        self.net._modules = {
            "layers": nn.ModuleList(layer(same) for same in zip(*(model.layers for model in models), strict=True))
        }

    @property
    def size(self) -> int:
        return len(next(self.parameters()))

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        if self.training and self.net.dropout > 0 and isinstance(x, Tensor):
            x = x.unsqueeze(1).expand(-1, self.size, -1)  # else all would have one mask
        return self.net(x, edge_index).transpose(0, 1)

    def state_of(self, member: int) -> dict[str, Tensor]:
        """A copy of the state dict that this model has by itself."""
        return {name: value[member].detach().clone() for name, value in self.net.state_dict().items()}

    def keep(self, members: Sequence[int], optimizer: torch.optim.Optimizer) -> None:
        """Leave out all models but these, in the parameters and in what the optimizer knows of them."""
        for parameter in self.parameters():
            state = optimizer.state[parameter]
            for name, value in state.items():
                if value.shape == parameter.shape:
                    state[name] = _stacked([value[member] for member in members])
            parameter.data = _stacked([parameter.data[member] for member in members])
            parameter.grad = None


class _Layer(nn.Module):
    """The parameters of K equal layers, [K, ...] each, under the names that they have in one. `x` is [N, F], which all
    share, or [N, K, F]; the output is [N, K, F'].
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.like: Any = [layers[0]]  # its numbers and switches; in a list, so that its parameters are not ours
        _stack_into(self, layers)

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        raise NotImplementedError


class _GAT(_Layer):
    """GATConv."""

    lin: Any
    att_src: Tensor
    att_dst: Tensor
    bias: Tensor

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        (like,) = self.like
        mapped = _mapped(x, self.lin.weight)
        num_nodes, members, _ = mapped.shape
        values = mapped.reshape(num_nodes, members * like.heads, like.out_channels)
        score_s, score_r = _scores(mapped, torch.cat([self.att_src, self.att_dst], 1))
        out = ops.additive(
            ops.feature_dropout(values, like.feature_dropout, self.training),
            score_s,
            score_r,
            edges_of(edge_index, num_nodes, num_nodes, num_nodes).graph,
            negative_slope=like.negative_slope,
            dropout=like.dropout if self.training else 0.0,
        ).view(num_nodes, members, like.heads, like.out_channels)
        return (out.flatten(2) if like.concat else out.mean(2)) + self.bias


class _GCN(_Layer):
    """GCNConv: the senders' mapped features, summed with the weights 1 / sqrt(d_j d_i) of the graph with loops."""

    lin: Any
    bias: Tensor

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        mapped = _mapped(x, self.lin.weight)
        graph = edges_of(edge_index, *[mapped.shape[0]] * 3).graph
        norm = torch.bincount(graph.receivers, minlength=graph.num_receivers).to(mapped.dtype).rsqrt()
        return ops.weighted_sum(norm[graph.senders] * norm[graph.receivers], mapped, graph) + self.bias


class _Linear(_Layer):
    weight: Tensor
    bias: Tensor

    def forward(self, x: Any, edge_index: Tensor | None = None) -> Tensor:
        return _mapped(x, self.weight) + self.bias


_LAYERS: dict[type[nn.Module], type[_Layer]] = {GAT: _GAT, GCN: _GCN, MLP: _Linear}


def _mapped(x: Any, weight: Tensor) -> Tensor:
    """Each model's own map, weight [K, F', F], of what all share, [N, F], or of its own part of [N, K, F]."""
    if isinstance(x, SparseFeatures):
        return sparse_linear(x, weight)
    if x.dim() == 2:
        return F.linear(x, weight.flatten(0, 1)).view(len(x), *weight.shape[:2])
    return narrow.map_heads(x, weight.flatten(0, 1))


def _scores(mapped: Tensor, vectors: Tensor) -> Tensor:
    """a_h . mapped_h of every head for each of V vectors, mapped [N, K, H * D], vectors [K, V, H, D]: [V, N, K * H].

    A product with a matrix [H * D, V * H] a model, zero where heads differ, is faster than sums over the few channels.
    """
    members, count, heads, width = vectors.shape
    matrix = torch.diag_embed(vectors.transpose(2, 3)).permute(0, 3, 2, 1, 4).reshape(members, heads * width, -1)
    scores = torch.bmm(mapped.transpose(0, 1), matrix).view(members, len(mapped), count, heads)
    return scores.permute(2, 1, 0, 3).flatten(2)


def _stacked(same: list[Tensor]) -> Tensor:
    """[K, ...]. Matrices [K, F', F] lie in memory as [F, K, F']: the rows that a sparse map gathers, without a copy.

    Whatever is stacked lies so, the optimizer's moments too: a fused step goes through memory, not through indices.
    """
    if same[0].dim() != 2:
        return torch.stack(same)
    return torch.stack([one.movedim(-1, 0) for one in same], 1).movedim(0, -1)


def _stack_into(to: nn.Module, same: Sequence[nn.Module]) -> None:
    for name, _ in same[0].named_parameters(recurse=False):
        to.register_parameter(name, nn.Parameter(_stacked([getattr(one, name).detach() for one in same])))
    for name, _ in same[0].named_children():
        child = nn.Module()
        _stack_into(child, [getattr(one, name) for one in same])
        if next(child.parameters(), None) is not None:
            to.add_module(name, child)
