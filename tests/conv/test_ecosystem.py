"""The parts of PyG that take layers, with ours: explainers, heterogeneous models, ready-made models, pooling."""

import pytest
import torch
from cases import GRAPHS, close, edge_index, on_our_operations
from torch_geometric import nn as pyg
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.nn import models as pyg_models
from torch_geometric.nn.dense import DenseGATConv

from graphattn import conv as ours

LAYERS = ("GATConv", "GATv2Conv", "TransformerConv")
GRAPH = GRAPHS["random"]
EDGES = edge_index(GRAPH)
X = torch.randn(GRAPH.num_senders, 4, generator=torch.Generator().manual_seed(0))
EDGE_ATTR = torch.randn(GRAPH.num_edges, 3, generator=torch.Generator().manual_seed(1))


class Two(torch.nn.Module):
    """A two-layer network of `library`'s layers."""

    def __init__(self, library, layer, width=4, **options):
        super().__init__()
        self.first = getattr(library, layer)(width, 8, heads=2, **options)
        self.second = getattr(library, layer)((-1, -1) if width == (-1, -1) else 16, 3, **options)

    def forward(self, x, edge_index, edge_attr=None):
        attributes = () if edge_attr is None else (edge_attr,)
        return self.second(self.first(x, edge_index, *attributes).relu(), edge_index, *attributes)


def two(layer, **options):
    mine, theirs = Two(ours, layer, **options), Two(pyg, layer, **options)
    theirs.load_state_dict(mine.state_dict())
    return mine.eval(), theirs.eval()


def explained(model, algorithm, **options):
    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    explainer = Explainer(
        model, algorithm, explanation_type="model", edge_mask_type="object", model_config=config, **options
    )
    torch.manual_seed(0)
    return explainer(X, EDGES, index=2)


@pytest.mark.parametrize("layer", LAYERS)
def test_attention_explainer_gives_pygs_explanation(layer):
    mine, theirs = (explained(model, AttentionExplainer()) for model in two(layer))
    assert mine.edge_mask.shape == (GRAPH.num_edges,)
    assert mine.edge_mask.any()
    close(mine.edge_mask, theirs.edge_mask)


@pytest.mark.parametrize("layer", LAYERS)
def test_gnn_explainer_gives_pygs_explanation(layer):
    mine, theirs = (explained(model, GNNExplainer(epochs=3), node_mask_type="attributes") for model in two(layer))
    assert mine.edge_mask.any()
    close(mine.edge_mask, theirs.edge_mask)
    close(mine.node_mask, theirs.node_mask)


@pytest.mark.parametrize("layer", LAYERS)
def test_after_explaining_a_layer_is_back_on_our_path(layer):
    model, _ = two(layer)
    before = model(X, EDGES)
    explained(model, AttentionExplainer())
    assert on_our_operations(model.first, X, EDGES)
    assert torch.equal(model(X, EDGES), before)


class Papers(torch.nn.Module):
    """The part of a heterogeneous model's output that is explained."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x_dict, edge_index_dict):
        return self.model(x_dict, edge_index_dict)["paper"]


X_DICT = {"paper": X, "author": X[:10, :3]}
EDGE_DICT = {
    ("author", "writes", "paper"): torch.stack([torch.arange(10), torch.arange(10) * 2]),
    ("paper", "written_by", "author"): torch.stack([torch.arange(10) * 2, torch.arange(10)]),
    ("paper", "cites", "paper"): EDGES,
}


@pytest.mark.parametrize("layer", LAYERS)
def test_to_hetero_gives_pygs_output(layer):
    options = {} if layer == "TransformerConv" else {"add_self_loops": False}
    outputs = []
    for library in (ours, pyg):
        torch.manual_seed(0)
        model = pyg.to_hetero(Two(library, layer, (-1, -1), **options), (list(X_DICT), list(EDGE_DICT)))
        outputs.append(model(X_DICT, EDGE_DICT))
    for kind in X_DICT:
        close(outputs[0][kind], outputs[1][kind])


@pytest.mark.parametrize("layer", LAYERS)
def test_attention_explainer_gives_pygs_explanation_of_a_heterogeneous_model(layer):
    options = {} if layer == "TransformerConv" else {"add_self_loops": False}
    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    masks = []
    for library in (ours, pyg):
        torch.manual_seed(0)
        model = Papers(pyg.to_hetero(Two(library, layer, (-1, -1), **options), (list(X_DICT), list(EDGE_DICT))))
        explainer = Explainer(
            model, AttentionExplainer(), explanation_type="model", edge_mask_type="object", model_config=config
        )
        masks.append(explainer(X_DICT, EDGE_DICT, index=2).collect("edge_mask"))
    assert masks[0].keys() == masks[1].keys() == EDGE_DICT.keys()
    for kind in EDGE_DICT:
        close(masks[0][kind], masks[1][kind])
    assert masks[0]["paper", "cites", "paper"].any()


@pytest.mark.parametrize("layer", LAYERS)
def test_hetero_conv_with_open_widths_gives_pygs_output(layer):
    options = {"edge_dim": 2} if layer == "TransformerConv" else {"add_self_loops": False, "edge_dim": 2}
    attributes = {key: torch.ones(edges.shape[1], 2) for key, edges in EDGE_DICT.items()}
    outputs = []
    for library in (ours, pyg):
        torch.manual_seed(0)
        model = pyg.HeteroConv({key: getattr(library, layer)((-1, -1), 5, **options) for key in EDGE_DICT})
        outputs.append(model(X_DICT, EDGE_DICT, edge_attr_dict=attributes))
    for kind in X_DICT:
        close(outputs[0][kind], outputs[1][kind])


@pytest.mark.parametrize(
    "options",
    [{}, {"v2": True}, {"heads": 4, "edge_dim": 3}, {"v2": True, "edge_dim": 3, "jk": "cat"}, {"out_channels": 2}],
    ids=str,
)
def test_the_gat_model_gives_pygs_output_with_our_layers(options):
    mine, theirs = ours.GAT(4, 8, num_layers=3, **options), pyg_models.GAT(4, 8, num_layers=3, **options)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    attributes = {"edge_attr": EDGE_ATTR} if "edge_dim" in options else {}
    close(mine(X, EDGES, **attributes), theirs(X, EDGES, **attributes))
    layer = ours.GATv2Conv if options.get("v2") else ours.GATConv
    assert all(type(conv) is layer for conv in mine.convs)
    assert on_our_operations(mine, X, EDGES, **attributes)


def test_the_gat_model_trims_to_the_layers_of_a_sampled_batch_as_pygs_does():
    mine, theirs = ours.GAT(4, 8, num_layers=2), pyg_models.GAT(4, 8, num_layers=2)
    theirs.load_state_dict(mine.state_dict())
    edges = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 1, 2, 2]])
    hops = {"num_sampled_nodes_per_hop": [1, 2, 3], "num_sampled_edges_per_hop": [2, 3]}
    close(mine(X[:6], edges, **hops), theirs(X[:6], edges, **hops))


def test_sag_pooling_takes_our_layer():
    outputs = []
    for library in (ours, pyg):
        torch.manual_seed(0)
        pool = pyg.SAGPooling(4, ratio=0.5, GNN=library.GATConv, heads=1)
        outputs.append(pool(X, EDGES))
    for mine, theirs in zip(outputs[0], outputs[1], strict=True):
        close(mine, theirs)


def test_the_dense_layer_is_the_same_function():
    mine = ours.GATConv(4, 3, heads=2, add_self_loops=False)
    judge = DenseGATConv(4, 3, heads=2)
    judge.load_state_dict({k: v.unsqueeze(0) if k.startswith("att") else v for k, v in mine.state_dict().items()})
    simple = GRAPHS["complete"]
    adjacency = torch.ones(5, 5)
    close(mine(X[:5], edge_index(simple)), judge(X[:5], adjacency, add_loop=False)[0])


@pytest.mark.parametrize("name", ["propagate", "edge_updater"])
def test_an_overridden_propagate_or_edge_updater_is_honoured(name):
    called = []

    def own(self, *args, **kwargs):
        called.append(name)
        return getattr(pyg.MessagePassing, name)(self, *args, **kwargs)

    layer = type("Own", (ours.GATConv,), {name: own})(4, 3)
    layer(X, EDGES)
    assert called == [name]


def test_a_message_set_on_the_instance_and_hooks_of_the_aggregation_are_honoured():
    layer, seen = ours.GATConv(4, 3), []
    layer.message = lambda x_j, alpha: seen.append("message") or alpha.unsqueeze(-1) * x_j
    layer(X, EDGES)
    other = ours.GATConv(4, 3)
    other.aggr_module.register_forward_hook(lambda *_: seen.append("hook"))
    other(X, EDGES)
    assert seen == ["message", "hook"]
