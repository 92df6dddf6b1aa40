"""Rules behind the layers of a graph network, whose blocks give [N, C] and take more than one argument."""

from __future__ import annotations

import pytest
import torch
from cases import close
from torch import Tensor, nn

from graphattn import models
from graphattn.conv import GATConv
from graphattn.depth import (
    AttentionResidual,
    ChannelAttention,
    Dense,
    DepthWeighted,
    HierarchicalAggregation,
    HyperConnections,
    IterativeAggregation,
    Plain,
    Residual,
    Rule,
    ScalarMix,
    attention_map,
    recorded,
    wrap,
)
from graphattn.depth.attention_residual import merge
from graphattn.training import layerwise

NODES = [AttentionResidual(), DepthWeighted(), HyperConnections(streams=2), Plain(), Residual(), ScalarMix()]
MAPS = [ChannelAttention(), Dense(), HierarchicalAggregation(), IterativeAggregation()]
X, EDGES = torch.randn(12, 3), torch.randint(12, (2, 40))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 5)
        self.layers = nn.ModuleList(GATConv(8, 4, heads=2) for _ in range(4))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = layer(x, edge_index).tanh()
        return self.leave(x)


@pytest.mark.parametrize("rule", NODES, ids=lambda rule: type(rule).__name__)
def test_each_node_attends_to_its_own_layers(rule: Rule) -> None:
    model = wrap(Net(), "layers.*", rule, (X, EDGES))
    torch.nn.utils.vector_to_parameters(
        torch.cat([p.detach().flatten() for p in model.parameters()]) + 0.1, model.parameters()
    )  # no rule is at its start, where many are the identity
    out = model(X, EDGES)
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    order = torch.randperm(12)
    close(model(X[order], order.argsort()[EDGES]), out[order])
    assert model(torch.randn(20, 3), EDGES).shape == (20, 5)
    model.load_state_dict(Net().state_dict(), strict=False)


def test_depth_weights_are_the_identity_at_first() -> None:
    model = Net()
    expected = model(X, EDGES)
    close(wrap(model, "layers.*", DepthWeighted(), (X, EDGES))(X, EDGES), expected)


def test_attention_over_layers_node_by_node() -> None:
    """Behind the last layer: softmax over what entered and the layers so far, for each node by itself."""
    model = wrap(Net(), "layers.*", AttentionResidual(), (X, EDGES))
    last, outputs = model.layers[-1], []
    for layer in model.layers:
        layer.block.register_forward_hook(lambda _, args, out: outputs.append(out))
    nn.init.normal_(last.rule.query)
    with recorded(model) as shown:
        model(X, EDGES)
    read = torch.stack([model.enter(X), *outputs])
    logits = (read * last.rule.query).sum(-1, keepdim=True) * (read.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    _, weights = merge(logits.unbind(), read.unbind())
    close(shown["layers.3"], weights.squeeze(-1).T)
    some = X[:, 0] > 0
    found = attention_map(model, (X, EDGES), of=some)
    close(found.weights[-1], weights.squeeze(-1)[:, some].mean(1))


@pytest.mark.parametrize(("rule", "alone"), [(DepthWeighted(), False), (Plain(), True)])
def test_layers_that_read_others_do_not_run_by_themselves(rule: Rule, alone: bool) -> None:
    """Some nodes' layers would read those of other nodes."""
    model = wrap(models.residual.Residual(3, 5, hidden=8, heads=2), "layers.*", rule, (X, EDGES))
    if alone:
        close(layerwise(model, X, EDGES, batch_size=5), model.eval()(X, EDGES))
    else:
        with pytest.raises(ValueError, match="Residual cannot be run layer by layer"):
            layerwise(model, X, EDGES, batch_size=5)


class Within(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = models.residual.Residual(3, 5, hidden=8, heads=2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.net(x, edge_index)


def test_nor_do_those_of_a_network_within_the_model() -> None:
    model = wrap(Within(), "net.layers.*", DepthWeighted(), (X, EDGES))
    with pytest.raises(ValueError, match="Residual cannot be run layer by layer"):
        layerwise(model.net, X, EDGES, batch_size=5)


@pytest.mark.parametrize("rule", MAPS, ids=lambda rule: type(rule).__name__)
def test_a_rule_for_maps_says_so(rule: Rule) -> None:
    model = Net()
    with pytest.raises(ValueError, match=rf"{type(rule).__name__}: layers.0 gives \[8\]: needed maps \[C, H, W\]"):
        wrap(model, "layers.*", rule, (X, EDGES))
    assert type(model.layers[0]) is GATConv
