"""Nodes with so many edges that the kernels cut them into pieces: first, last, neighbours, in both directions."""

import pytest
import torch
from cases import OPERATIONS, close, results

from graphattn import Graph, additive, attend, dot_product

GRAIN = 1024  # edges in a piece while there are fewer than 2^20 edges and nodes; a node is cut above twice as many
NODES = 40


def hubs(*degrees: int, others: int = 300) -> Graph:
    """The first receivers hear so many edges (0: none), the rest a few each; senders are drawn at random."""
    generator = torch.Generator().manual_seed(6)
    light = torch.randint(len(degrees), NODES, (others,), generator=generator)
    receivers = torch.cat([torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees)), light])
    receivers = receivers[torch.randperm(len(receivers), generator=generator)]
    return Graph(torch.randint(NODES, (len(receivers),), generator=generator), receivers, NODES, NODES)


def relabelled(graph: Graph) -> Graph:
    """Last node first."""
    return Graph(NODES - 1 - graph.senders, NODES - 1 - graph.receivers, NODES, NODES)


def joined(first: Graph, second: Graph) -> Graph:
    senders, receivers = torch.cat([first.senders, second.senders]), torch.cat([first.receivers, second.receivers])
    return Graph(senders, receivers, NODES, NODES)


FIRST = hubs(3 * GRAIN)
NEIGHBOURS = hubs(2500, 2 * GRAIN + 1, 3000)
HUBS = {
    "as many edges as are not yet cut": hubs(2 * GRAIN),
    "one edge more": hubs(2 * GRAIN + 1),
    "whole pieces": FIRST,
    "the last node": relabelled(FIRST),
    "three neighbours": NEIGHBOURS,
    "light between": hubs(2500, 3, 2500, 0, 2500),
    "nothing else": hubs(2500, others=0),
    "senders": NEIGHBOURS.reverse(),
    "the last sender": relabelled(FIRST).reverse(),
    "senders and receivers": joined(NEIGHBOURS, relabelled(NEIGHBOURS).reverse()),
    "one node both": joined(FIRST, FIRST.reverse()),
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("name", HUBS)
def test_hubs_agree_with_the_reference(name, operation):
    expected = results(operation, HUBS[name], "reference", 0.3)
    for what, tensor in results(operation, HUBS[name], "cpu", 0.3).items():
        close(tensor, expected[what], what)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pieces_whose_logits_are_far_apart_are_merged(dtype):
    """The first piece is far below, the second far above, the third masked, the fourth between."""
    graph = Graph(torch.arange(4 * GRAIN), torch.zeros(4 * GRAIN, dtype=torch.int64), 4 * GRAIN, 1)
    values = torch.randn(4 * GRAIN, 1, 3, dtype=dtype)
    for levels in ([-1e4, 1e4, -torch.inf, 0], [0, -torch.inf, -1e4, 0.5], [-torch.inf, -torch.inf, 3, -1e4]):
        noise = torch.randn(4, GRAIN, dtype=dtype).double()
        logits = (noise + torch.tensor(levels).unsqueeze(1)).view(-1, 1).to(dtype)
        out, weights = attend(logits, values, graph, return_weights=True, backend="cpu")
        exact = logits.double().softmax(0)
        close(weights, exact.to(dtype))
        close(out, (exact.unsqueeze(-1) * values.double()).sum(0, keepdim=True).to(dtype))


MILLION = 10**6
ONE = torch.zeros(MILLION, dtype=torch.int64)
MANY = torch.arange(MILLION)


def test_a_receiver_with_a_million_edges():
    graph = Graph(MANY, ONE, MILLION, 1)
    values, score_s = torch.randn(MILLION, 1, 4).requires_grad_(), torch.randn(MILLION, 1).requires_grad_()
    score_r = torch.ones(1, 1, requires_grad=True)
    upstream = torch.tensor([[[1.0, -2.0, 3.0, -4.0]]])
    out = additive(values, score_s, score_r, graph, backend="cpu")
    gradients = torch.autograd.grad(out, (values, score_s, score_r), upstream)
    exact = [tensor.detach().double().requires_grad_() for tensor in (values, score_s, score_r)]
    weights = torch.nn.functional.leaky_relu(exact[1] + exact[2], 0.2).softmax(0)
    expected = (weights.unsqueeze(-1) * exact[0]).sum(0, keepdim=True)
    close(out, expected.float())
    derivatives = torch.autograd.grad(expected, exact, upstream.double())
    close(gradients[2], derivatives[2].float())
    for ours, theirs in zip(gradients[:2], derivatives[:2], strict=True):  # a millionth each
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_a_sender_with_a_million_edges():
    graph = Graph(ONE, MANY, 1, MILLION)
    q, k, v = torch.randn(MILLION, 1, 4), torch.randn(1, 1, 4), torch.randn(1, 1, 4)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    out, weights = dot_product(*leaves, graph, return_weights=True, backend="cpu")
    assert torch.equal(weights, torch.ones(MILLION, 1))
    assert torch.equal(out, v.expand_as(out))
    upstream = torch.randn(MILLION, 1, 4) + 1
    gradients = torch.autograd.grad(out, leaves, upstream)
    total = upstream.double().sum(0, keepdim=True)
    assert (gradients[2].double() / total - 1).abs().max() < 1e-5
    for gradient in gradients[:2]:  # the softmax over one edge is constant
        assert gradient.abs().max() < 1e-5 * total.abs().max()
