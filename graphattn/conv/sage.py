"""SAGEConv: GraphSAGE's layer with its authors' four aggregators."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphattn import ops
from graphattn.conv.edges import edges_of
from graphattn.conv.neighbour_lstm import last_state
from graphattn.graph import Graph
from graphattn.record import one_of

Aggregator = Literal["gcn", "mean", "lstm", "max-pool"]


class SAGEConv(nn.Module):
    """A node's own features beside what its neighbours' come to, each mapped to half of the output:

        out_i = [W x_i, W' a_i]      a_i = mean_j x_j                          (mean)
                                     a_i = max_j relu(V x_j + b)               (max-pool)
                                     a_i = last state of an LSTM over the x_j  (lstm)
        out_i = W mean over x_i and the x_j                                    (gcn)

    for the edges j -> i. The LSTM hears the neighbours in an order drawn anew at each call in training, and in the
    order of the edges in evaluation. A node that nobody sends to has a_i = 0.

    Shapes: x [N, F], edge_index [2, E] -> [N, out_channels]. `width` is that of V's output or of the LSTM's state.

    Raises:
        ValueError: an unknown aggregator, a `width` where there is none, or an odd `out_channels` where two halves are
            needed.

    Paper: Hamilton, Ying and Leskovec, Inductive Representation Learning on Large Graphs, NeurIPS 2017. As its authors'
    code, the two maps' outputs are put side by side; PyG's SAGEConv adds them.
    """

    def __init__(
        self, in_channels: int, out_channels: int, aggregator: Aggregator = "mean", width: int | None = None
    ) -> None:
        super().__init__()
        one_of(aggregator, ("gcn", "mean", "lstm", "max-pool"), "aggregator")
        if aggregator != "gcn" and out_channels % 2:
            raise ValueError(f"out_channels is {out_channels}: needed an even number, half of it for the node itself")
        self.in_channels, self.out_channels, self.aggregator = in_channels, out_channels, aggregator
        if width is not None and aggregator in ("gcn", "mean"):
            raise ValueError(f"width is {width}, but {aggregator} aggregates the features as they are: leave it out")
        half = out_channels if aggregator == "gcn" else out_channels // 2
        aggregated = in_channels
        if aggregator == "max-pool":
            aggregated = width or 512
            self.pool = Linear(in_channels, aggregated, weight_initializer="glorot", bias_initializer="zeros")
        if aggregator == "lstm":
            aggregated = width or 128
            self.lstm = nn.LSTM(in_channels, aggregated)
        self.lin = Linear(aggregated, half, bias=False, weight_initializer="glorot")
        if aggregator != "gcn":
            self.lin_self = Linear(in_channels, half, bias=False, weight_initializer="glorot")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        num_nodes = x.shape[0]
        graph = edges_of(edge_index, num_nodes, num_nodes, num_nodes if self.aggregator == "gcn" else None).graph
        if self.aggregator == "max-pool":
            aggregated = neighbours_max(self.pool(x).relu(), graph)
        elif self.aggregator == "lstm":
            aggregated = last_state(self.lstm, x, shuffled(graph) if self.training else graph)
        else:
            aggregated = neighbours_mean(x, graph)
        mapped = self.lin(aggregated)
        return mapped if self.aggregator == "gcn" else torch.cat([self.lin_self(x), mapped], 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, {self.aggregator!r})"


def neighbours_mean(x: Tensor, graph: Graph) -> Tensor:
    """[N_s, F] -> [N_r, F]: attention with equal scores."""
    return ops.attend(x.new_zeros(graph.num_edges, 1), x.unsqueeze(1), graph).squeeze(1)


def neighbours_max(x: Tensor, graph: Graph) -> Tensor:
    """[N_s, F] -> [N_r, F]: of each number the largest among the senders, 0 where there are none; no row an edge is
    stored. The gradient goes to the first of the largest.
    """
    order = graph.by_receiver
    if not graph.num_edges:
        return x.new_zeros(graph.num_receivers, x.shape[1])
    seen = x.detach().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)  # else a NaN would lose
    largest = torch.embedding_bag(seen, order.others, order.ptr[:-1], mode=2)[3]  # 2: the maximum; [3]: whose it is
    return x.gather(0, largest.clamp_(min=0)).masked_fill_(order.ptr.diff().unsqueeze(1) == 0, 0)


def shuffled(graph: Graph) -> Graph:
    """The same edges in an order drawn by torch's generator."""
    order = torch.randperm(graph.num_edges, device=graph.device)
    return Graph(graph.senders[order], graph.receivers[order], graph.num_senders, graph.num_receivers)
