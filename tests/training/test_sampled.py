"""Mini-batches on one graph: which nodes a step is about, and that it learns what the whole graph teaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from graphattn import data
from graphattn.data import NodeData
from graphattn.experiment import Train
from graphattn.models import MODELS
from graphattn.training import NodeClassification, SampledNodeClassification, fit
from graphattn.training.runs import task
from graphattn.training.sampled import seeds_output
from graphattn.training.stopping import Never

NETWORK = {"hidden": 8, "heads": 4, "dropout": 0.2, "attention_dropout": 0.2, "feature_dropout": 0.0}


@pytest.fixture(scope="module")
def digits() -> NodeData:
    return data.load_nodes("digits")


def test_an_epoch_is_about_every_training_node_once(digits: NodeData) -> None:
    batches = list(SampledNodeClassification(digits, 64, (5, 5)).batches())
    assert torch.cat([batch.n_id[: batch.batch_size] for batch in batches]).sort().values.tolist() == (
        digits.train.tolist()
    )
    assert [batch.batch_size for batch in batches] == [64, 64, 64, 8]


def test_with_all_neighbours_the_loss_is_that_of_the_whole_graph(digits: NodeData) -> None:
    torch.manual_seed(0)
    model = MODELS["gat"](digits.num_features, digits.num_classes, **NETWORK).eval()
    sampled = SampledNodeClassification(digits, 1000, (-1, -1))
    (batch,) = sampled.batches()
    whole = NodeClassification(digits)
    torch.testing.assert_close(sampled.loss(model, batch), whole.loss(model, digits))
    assert sampled.measures(model) == pytest.approx(whole.measures(model), rel=1e-5)


def test_it_learns(digits: NodeData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS["gat"](digits.num_features, digits.num_classes, **NETWORK)
    outcome = fit(
        model,
        SampledNodeClassification(digits, 50, (4, 4)),
        torch.optim.Adam(model.parameters(), lr=0.01),
        Never(),
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=25,
        folder=tmp_path,
    )
    assert outcome.measures["test_accuracy"] > 90


def test_the_definition_says_which_task(digits: NodeData) -> None:
    mlp, gcn = MODELS["mlp"](64, 10), MODELS["gcn"](64, 10)
    assert isinstance(task(digits, Train(), gcn), NodeClassification)
    assert isinstance(task(digits, Train(batch=32, neighbors=(5, 5)), mlp), SampledNodeClassification)
    with pytest.raises(ValueError, match=r"train\.batch is 32 without train\.neighbors: .*needed both"):
        task(digits, Train(batch=32), mlp)
    with pytest.raises(ValueError, match=r"train\.neighbors is \(5,\) without train\.batch"):
        task(digits, Train(neighbors=(5,)), mlp)
    with pytest.raises(ValueError, match=r"GCN cannot be measured layer by layer.*leave out train\.batch"):
        task(digits, Train(batch=32, neighbors=(5,)), gcn)
    with pytest.raises(ValueError, match=r"neighbors is .* needed a number for each hop"):
        Train(batch=32, neighbors=())


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_are_measured_in_themselves(digits: NodeData, tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    model = MODELS["gat"](digits.num_features, digits.num_classes, **NETWORK)
    wrapped = fabric.setup_module(model).eval()
    found = SampledNodeClassification(digits, 64, (3, 3)).measures(wrapped)
    assert found == pytest.approx(NodeClassification(digits).measures(wrapped), rel=1e-3)


def test_more_or_fewer_hops_than_layers(digits: NodeData) -> None:
    """What is left out of a batch never changes what its seeds get."""
    model = MODELS["gat"](digits.num_features, digits.num_classes, num_layers=3, **NETWORK).eval()
    for hops in (1, 2, 3, 4, 5):
        for batch in SampledNodeClassification(digits, 100, (2,) * hops).batches():
            whole = model(batch.x, batch.edge_index)[: batch.batch_size]
            torch.testing.assert_close(seeds_output(model, batch), whole, rtol=1e-4, atol=1e-5)


def test_sparse_features_are_refused(digits: NodeData, data_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"cora: sampling needs dense features: set data.dense = true"):
        SampledNodeClassification(data.load_nodes("cora", folder=data_folder), 32, (5,))
