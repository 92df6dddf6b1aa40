"""Networks hop by hop and layer by layer: the same logits as on the whole graph at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import GRAPHS, SQUARE, close, edge_index
from torch import nn
from torch_geometric.data import Data

from graphattn.conv import SparseFeatures
from graphattn.data import NeighborLoader
from graphattn.models import MODELS
from graphattn.models.layered import Layered
from graphattn.training import layerwise

WIDTH, CLASSES = 6, 3
NETWORKS: dict[str, dict[str, Any]] = {
    "gat": {"hidden": 4, "heads": 2, "num_layers": 3, "skip": True},
    "gatv2": {"hidden": 4, "heads": 2},
    "graph-transformer": {"hidden": 4, "heads": 2},
    "const-gat": {"hidden": 4, "heads": 2, "num_layers": 3},
    "mlp": {},
    "sage": {"aggregator": "lstm", "hidden": (8, 8, 4)},
    "residual": {"hidden": 4, "heads": 2, "num_layers": 3, "separate": True},
}


def network(name: str) -> Layered:
    torch.manual_seed(0)
    model = MODELS[name](WIDTH, CLASSES, **NETWORKS[name]).double()
    assert isinstance(model, Layered)
    return model


def features(nodes: int) -> torch.Tensor:
    return torch.randn(nodes, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("graph", SQUARE)
def test_layer_by_layer_gives_what_the_whole_graph_gives(name: str, graph: str, tmp_path: Path) -> None:
    model, edges, x = network(name), edge_index(GRAPHS[graph]), features(GRAPHS[graph].num_senders)
    whole = model.eval()(x, edges)
    model.train()
    close(layerwise(model, x, edges, batch_size=4), whole)
    close(layerwise(model, x, edges, batch_size=1000, folder=tmp_path), whole)
    assert model.training, "as it was before"
    assert len(list(tmp_path.iterdir())) == (1 if len(x) else 0), "only the result's file is left"


@pytest.mark.parametrize("name", NETWORKS)
def test_seeds_need_less_and_less_of_a_batch(name: str) -> None:
    model, graph = network(name).eval(), GRAPHS["random"]
    x = features(30)
    hops = len(model.layers)
    for batch in NeighborLoader(Data(edge_index=edge_index(graph), num_nodes=30), [2] * hops, batch_size=3):
        own = x[batch.n_id]
        expected = model(own, batch.edge_index)[: batch.batch_size]
        trimmed = model(own, batch.edge_index, per_hop=(batch.num_sampled_nodes, batch.num_sampled_edges))
        close(trimmed[: batch.batch_size], expected)
        assert len(trimmed) < len(own)


def test_results_in_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    edges, x = edge_index(GRAPHS["random"]), features(30)
    first = layerwise(network("gat"), x, edges, folder=tmp_path)
    kept = first.clone()
    layerwise(network("mlp"), x, edges, folder=tmp_path)
    layerwise(network("gat"), 2 * x, edges, folder=tmp_path)
    assert torch.equal(first, kept)


def test_torchs_generator_is_not_asked() -> None:
    model = network("gat")
    state = torch.get_rng_state()
    layerwise(model, features(30), edge_index(GRAPHS["random"]))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_run_layer_by_layer() -> None:
    edges = edge_index(GRAPHS["random"])
    with pytest.raises(ValueError, match=r"GCN cannot be run layer by layer: needed a model with step\(\)"):
        layerwise(MODELS["gcn"](WIDTH, CLASSES), features(30), edges)  # type: ignore[arg-type]
    sparse: Any
    for sparse in (features(30).to_sparse(), SparseFeatures.from_dense(features(30))):
        with pytest.raises(ValueError, match=r"x is a sparse .*: needed x.to_dense\(\)"):
            layerwise(network("gat"), sparse, edges)
    with pytest.raises(ValueError, match="batch_size is 0, needed at least 1"):
        layerwise(network("gat"), features(30), edges, batch_size=0)


def test_a_failure_leaves_the_model_as_it_was() -> None:
    model = network("mlp").train()
    model.layers[1] = nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        layerwise(model, features(30), edge_index(GRAPHS["random"]))
    assert model.training
