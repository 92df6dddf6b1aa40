"""Other people's code as judge: PyG's softmax and scatter, torch's attention on cliques, convolution on bands."""

import pytest
import torch
import torch.nn.functional as F
from cases import COMPLETE, GRAPHS, OPERATIONS, close, complete
from torch_geometric.utils import scatter, softmax

from graphattn import Graph, attend, dot_product, ops

BACKENDS_AND_GRAPHS = [
    pytest.param(backend, name, id=f"{backend}-{name}")
    for backend in ops.BACKENDS
    for name in (COMPLETE if backend == "dense" else GRAPHS)
]


@pytest.mark.parametrize(("backend", "name"), BACKENDS_AND_GRAPHS)
def test_attend_is_pyg_softmax_and_scatter_sum(backend, name):
    graph = GRAPHS[name]
    arguments = OPERATIONS[0].arguments(graph)
    logits, values = arguments.values()
    out, weights = attend(logits, values, graph, return_weights=True, backend=backend)
    judged = softmax(logits, graph.receivers, num_nodes=graph.num_receivers)
    messages = values[graph.senders] * judged.unsqueeze(-1)
    summed = scatter(messages, graph.receivers, 0, dim_size=graph.num_receivers, reduce="sum")
    close(weights, judged)
    close(out, summed)
    for ours, theirs in zip(
        torch.autograd.grad(out.square().sum(), (logits, values)),
        torch.autograd.grad(summed.square().sum(), (logits, values)),
        strict=True,
    ):
        close(ours, theirs)


@pytest.mark.parametrize("backend", ops.BACKENDS)
@pytest.mark.parametrize(("num_senders", "num_receivers"), [(6, 6), (7, 3), (1, 4), (5, 1)])
def test_dot_product_on_a_clique_is_torchs_own_attention(backend, num_senders, num_receivers):
    graph = complete(num_senders, num_receivers)
    q, k, v = OPERATIONS[3].arguments(graph, heads=3, width=4).values()
    heads_first = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    expected = F.scaled_dot_product_attention(*heads_first).squeeze(0).transpose(0, 1)
    close(dot_product(q, k, v, graph, backend=backend), expected)


@pytest.mark.parametrize("backend", [name for name in ops.BACKENDS if name != "dense"])
def test_attention_on_a_band_with_shared_logits_is_a_convolution(backend):
    """Each token hears the 2 before it, itself and the 1 after; a logit per offset makes the softmax the kernel."""
    length, kernel, heads, width = 12, 4, 2, 3
    tokens, offsets = torch.arange(length), torch.arange(kernel)
    receivers = tokens.repeat_interleave(kernel)
    senders = (tokens[:, None] + offsets - 2).flatten()
    inside = (senders >= 0) & (senders < length)
    graph = Graph(senders[inside], receivers[inside], length, length)
    generator = torch.Generator().manual_seed(0)
    by_offset = torch.randn(kernel, heads, generator=generator, dtype=torch.float64)
    values = torch.randn(length, heads, width, generator=generator, dtype=torch.float64)
    logits = by_offset.repeat(length, 1)[inside]

    out = attend(logits, values, graph, backend=backend)[2:-1]  # tokens whose whole window is inside
    weight = by_offset.softmax(0).t().repeat_interleave(width, 0).unsqueeze(1)  # one kernel a channel
    expected = F.conv1d(values.flatten(1).t(), weight, groups=heads * width).t().view(-1, heads, width)
    close(out, expected)
