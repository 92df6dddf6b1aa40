"""Auxiliary tasks on one graph that need no labels: what each predicts of the nodes, and its loss.

Each has the `channels` of its head's output [N, channels], and `loss(output, trunk, generator)`: the trunk is what the
output came from, and the generator, of the CPU, draws what is drawn, so that it is no draw of the model's own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.multitask.node_pairs import NodePairs

_MOST = 128  # numbers a node that features are compared in


class NodeTask(Protocol):
    @property
    def channels(self) -> int | None: ...  # None: no head of its own

    def loss(self, output: Tensor, trunk: nn.Module, generator: torch.Generator) -> Tensor: ...


class LinkPrediction:
    """Which nodes are joined: the logit of a pair is the product of the two outputs.

    Representation learning, as in Kipf and Welling, Variational Graph Auto-Encoders, arXiv:1611.07308.
    """

    channels: ClassVar[int] = 64

    def __init__(self, pairs: NodePairs) -> None:
        self.pairs = pairs

    def loss(self, output: Tensor, trunk: nn.Module, generator: torch.Generator) -> Tensor:
        pairs = self.pairs.draw(generator)
        senders, receivers = (output.index_select(0, ends) for ends in pairs.ends)  # its gradient is the faster one
        return pairs.loss((senders * receivers).sum(1))


class FeatureReconstruction:
    """A node's own features x [N, F], which the trunk sees with dropout and mixed with its neighbours'.

        loss = mean over nodes of 1 - cos(output, x R)

    R is a fixed random matrix [F, 128] (none where F is at most that), which keeps angles and spares F outputs a node.
    Nodes without features count as 1. Representation learning; the cosine error is that of Hou et al., GraphMAE, KDD
    2022, with exponent 1.
    """

    def __init__(self, x: Any) -> None:
        matrix = torch.eye(x.shape[1])
        if x.shape[1] > _MOST:
            matrix = torch.randn(x.shape[1], _MOST, generator=torch.Generator().manual_seed(0))
        self.target = torch.matmul(x, matrix.to(x.device))
        self.channels = self.target.shape[1]

    def loss(self, output: Tensor, trunk: nn.Module, generator: torch.Generator) -> Tensor:
        return 1 - F.cosine_similarity(output.float(), self.target).mean()


class NodeRegression:
    """A number of each node: mean squared error, of its logarithm at mean 0 and variance 1.

    Hints: the number of neighbours, or PageRank, is what the main task may use but is slow to find.
    """

    channels: ClassVar[int] = 1

    def __init__(self, values: Tensor) -> None:
        logarithms = values.double().log()
        centred = logarithms - logarithms.mean()
        spread = centred.square().mean().sqrt()
        self.target = (centred / spread.clamp(min=torch.finfo(torch.float32).eps)).float()

    def loss(self, output: Tensor, trunk: nn.Module, generator: torch.Generator) -> Tensor:
        return F.mse_loss(output.squeeze(1), self.target)


class AttentionSupervision:
    """Attention should be high on edges and low elsewhere: each layer's logits tell them from pairs that are none.

    The trunk's layers have a method `pair_logits`, see `models.SuperGAT`; the loss is a mean over them and their heads.
    Focusing attention: Kim and Oh, How to Find Your Friendly Neighborhood, ICLR 2021.

    Raises:
        ValueError: a trunk that has no such layers.
    """

    channels: ClassVar[None] = None

    def __init__(self, pairs: NodePairs) -> None:
        self.pairs = pairs

    def loss(self, output: Tensor, trunk: nn.Module, generator: torch.Generator) -> Tensor:
        layers: list[Any] = [layer for layer in trunk.modules() if hasattr(layer, "pair_logits")]
        if not layers:
            raise ValueError(
                f"the auxiliary task 'attention' supervises layers that give logits of pairs, {type(trunk).__name__} "
                f"has none: take the model supergat"
            )
        pairs = self.pairs.draw(generator)
        return torch.stack([pairs.loss(layer.pair_logits(pairs.ends)) for layer in layers]).mean()


def degrees(edge_index: Tensor, num_nodes: int) -> Tensor:
    """[N]: 1 + how many edges enter each node."""
    return 1 + torch.bincount(edge_index[1], minlength=num_nodes).double()


def pagerank(edge_index: Tensor, num_nodes: int, damping: float = 0.85, steps: int = 100) -> Tensor:
    """[N], float64, of sum 1: where a walk is that follows an edge with probability `damping`, and else, or where no
    edge leads on, begins anew at any node. By power iteration: what is left after `steps` is below damping^steps.
    """
    senders, receivers = edge_index
    leaving = torch.bincount(senders, minlength=num_nodes).double()
    rank = torch.full((num_nodes,), 1 / num_nodes, dtype=torch.float64, device=edge_index.device)
    for _ in range(steps):
        share = torch.where(leaving > 0, rank / leaving.clamp(min=1), 0)
        entered = torch.zeros_like(rank).index_add(0, receivers, share[senders])
        stuck = rank[leaving == 0].sum()
        rank = damping * (entered + stuck / num_nodes) + (1 - damping) / num_nodes
    return rank
