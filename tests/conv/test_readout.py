"""The attentional read-out against PyG's, in output and every gradient."""

from __future__ import annotations

import pytest
import torch
from cases import close
from torch import nn
from torch_geometric.nn import MLP, aggr

from graphattn import ops
from graphattn.conv import AttentionalAggregation
from graphattn.conv.readout import attentional_readout

INDEX = torch.tensor([0, 0, 0, 2, 4, 4])  # graph 1 and 3 are empty, 2 has one node
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

PARTS = {
    "a weight a node": lambda: (nn.Linear(8, 1), None),
    "with values": lambda: (nn.Linear(8, 1), nn.Linear(8, 6)),
    "a weight a channel": lambda: (nn.Linear(8, 6), nn.Linear(8, 6)),
    "MLPs": lambda: (MLP([8, 5, 1], norm="graph_norm"), MLP([8, 5, 6])),
}


def twins(parts: str) -> tuple[AttentionalAggregation, aggr.AttentionalAggregation]:
    torch.manual_seed(0)
    mine, theirs = AttentionalAggregation(*PARTS[parts]()).double(), aggr.AttentionalAggregation(*PARTS[parts]())
    theirs = theirs.double()
    theirs.load_state_dict(mine.state_dict(), strict=True)
    return mine, theirs


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("order", [torch.arange(6), torch.tensor([4, 0, 3, 5, 2, 1])], ids=["sorted", "mixed"])
def test_output_and_gradients_are_pygs(parts: str, order: torch.Tensor) -> None:
    results = []
    for layer in twins(parts):
        x = X[order].clone().requires_grad_()
        out = layer(x, INDEX[order], dim_size=6)
        (out * torch.arange(1, 1 + out.numel()).view_as(out)).sum().backward()
        results.append([out, x.grad, *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)
    assert results[0][0].shape[0] == 6
    close(results[0][0][[1, 3, 5]], torch.zeros_like(results[0][0][:3]))


def test_pointers_say_the_same_as_an_index() -> None:
    mine, theirs = twins("with values")
    ptr = torch.tensor([0, 3, 3, 4, 4, 6])
    close(mine(X, ptr=ptr), mine(X, INDEX))
    close(mine(X, ptr=ptr), theirs(X, ptr=ptr))
    close(mine(X), theirs(X))


def test_heads_each_attend_for_themselves() -> None:
    layer = AttentionalAggregation(nn.Linear(8, 2)).double()
    out = layer(X, INDEX)
    for head in range(2):
        single = aggr.AttentionalAggregation(nn.Linear(8, 1)).double()
        with torch.no_grad():
            single.gate_nn.weight.copy_(layer.gate_nn.weight[[head]])
            single.gate_nn.bias.copy_(layer.gate_nn.bias[[head]])
        close(out[:, 4 * head : 4 * head + 4], single(X, INDEX)[:, 4 * head : 4 * head + 4])


def test_it_is_our_own_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    attend = ops.attend
    monkeypatch.setattr(ops, "attend", lambda *args: called.append(args[2]) or attend(*args))
    AttentionalAggregation(nn.Linear(8, 1)).double()(X, INDEX)
    (graph,) = called
    assert (graph.num_senders, graph.num_receivers, graph.num_edges) == (6, 5, 6)


def test_equal_logits_are_the_mean() -> None:
    out = attentional_readout(torch.zeros(6, 1, dtype=torch.float64), X.unsqueeze(1), INDEX, 5).squeeze(1)
    close(out, aggr.MeanAggregation()(X, INDEX))


def test_no_nodes_at_all() -> None:
    layer = AttentionalAggregation(nn.Linear(8, 1))
    assert layer(torch.empty(0, 8), INDEX[:0]).shape == (0, 8)
    assert torch.equal(layer(torch.empty(0, 8), INDEX[:0], dim_size=2), torch.zeros(2, 8))


def test_what_is_wrong_is_said() -> None:
    layer = AttentionalAggregation(nn.Linear(8, 3)).double()
    with pytest.raises(ValueError, match="gate_nn gives 3 weights a node, which do not divide 8 channels"):
        layer(X, INDEX)
    with pytest.raises(ValueError, match=r"x has shape \[1, 6, 8\] and dim is -2"):
        layer(X[None], INDEX)
    with pytest.raises(ValueError, match="dim_size"):
        AttentionalAggregation(nn.Linear(8, 1)).double()(X, INDEX, dim_size=4)
