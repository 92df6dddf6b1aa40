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
    assert isinstance(task(digits, Train()), NodeClassification)
    assert isinstance(task(digits, Train(batch=32, neighbors=(5, 5))), SampledNodeClassification)
    with pytest.raises(ValueError, match=r"train\.batch is 32 without train\.neighbors: .*needed both"):
        task(digits, Train(batch=32))
    with pytest.raises(ValueError, match=r"train\.neighbors is \(5,\) without train\.batch"):
        task(digits, Train(neighbors=(5,)))


def test_sparse_features_are_refused(digits: NodeData, data_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"cora: sampling needs dense features: set data.dense = true"):
        SampledNodeClassification(data.load_nodes("cora", folder=data_folder), 32, (5,))
