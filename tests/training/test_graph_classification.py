"""A class for each graph: batches, loss and accuracy, on small graphs written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from graphattn import experiment
from graphattn.data import GraphSet
from graphattn.models import MODELS, GraphNetwork
from graphattn.training import GraphClassification, Job, fit, prepared, task
from graphattn.training.stopping import BestScore

CLASSES = 3


def graph(seed: int) -> Data:
    """A ring of 4 to 8 nodes of noise, one of which, told by its fourth feature, shows the class."""
    generator = torch.Generator().manual_seed(seed)
    nodes, label = 4 + seed % 5, seed % CLASSES
    x = torch.randn(nodes, 4, generator=generator) * torch.tensor([1.0, 1.0, 1.0, 0.0])
    x[seed % nodes] = torch.tensor([*(2.0 * (torch.arange(3) == label)), 3.0])
    ring = torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)])
    return Data(x=x, edge_index=torch.cat([ring, ring.flip(0)], 1), y=torch.tensor([label]))


@pytest.fixture
def data() -> GraphSet:
    parts = ([graph(k) for k in seeds] for seeds in (range(23), range(30, 35), range(40, 47)))
    return GraphSet("rings", *parts, num_features=4, num_classes=CLASSES, labels_of="graphs")


class Given(nn.Module):
    """Logits [G, C] that are a function of each graph's first node."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, num_graphs: int, edge_attr: None) -> Tensor:
        first = [int((batch == g).nonzero()[0]) for g in range(num_graphs)]
        return self.logits(x[first])


def test_an_epoch_sees_every_graph_once_in_another_order(data: GraphSet) -> None:
    asked = GraphClassification(data, batch=4)
    epochs = [[batch.x for batch in asked.batches()] for _ in range(2)]
    everything = torch.cat([graph.x for graph in data.train]).sort(0).values
    for batches in epochs:
        assert len(batches) == 6
        assert torch.equal(torch.cat(batches).sort(0).values, everything)
    assert not torch.equal(epochs[0][0], epochs[1][0])


def test_the_loss_is_the_mean_over_graphs_whatever_their_sizes(data: GraphSet) -> None:
    asked = GraphClassification(data, batch=23)
    (batch,) = asked.batches()
    loss = asked.loss(Given(lambda x: x.new_tensor([[0.0, math.log(2), 0.0]]).expand(len(x), -1)), batch)
    ones = int((batch.y == 1).sum())
    assert float(loss) == pytest.approx((ones * math.log(2) + (23 - ones) * math.log(4)) / 23)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_accuracy_counts_graphs(data: GraphSet, batch: int) -> None:
    asked = GraphClassification(data, batch)
    measures = asked.measures(Given(lambda x: x[:, :3]))
    for part in ("val", "test"):
        right = [int(graph.x[0, :3].argmax()) == int(graph.y) for graph in getattr(data, part)]
        assert 0 < sum(right) < len(right)
        assert measures[f"{part}_accuracy"] == pytest.approx(100 * sum(right) / len(right), abs=1e-3)
    assert list(measures) == ["val_loss", "val_accuracy", "test_accuracy"]
    assert all(type(value) is float for value in measures.values())


def trained(data: GraphSet, folder: Path, readout: str = "attention", kill: int | None = None) -> dict[str, float]:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == kill:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    nodes = MODELS["mlp"](4, 8, hidden=16, dropout=0.1)
    model = GraphNetwork(nodes, 8, CLASSES, readout=readout)  # type: ignore[arg-type]
    outcome = fit(
        model,
        GraphClassification(data, batch=4),
        torch.optim.Adam(model.parameters(), lr=0.02),
        BestScore(),
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=60,
        folder=folder,
        checkpoint_every=0.0,
        on_epoch=on_epoch,
    )
    return outcome.measures


def test_attention_finds_the_node_that_tells(data: GraphSet, tmp_path: Path) -> None:
    assert trained(data, tmp_path)["test_accuracy"] == 100


def test_it_resumes_to_the_same_numbers(data: GraphSet, tmp_path: Path) -> None:
    whole = trained(data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "killed", kill=11)
    assert trained(data, tmp_path / "killed") == whole


TABLE = {
    "title": "Rings",
    "data": {"name": "rings"},
    "model": {"name": "gcn", "hidden": 5},
    "readout": {"width": 7, "dropout": 0.5},
}


def made(data: GraphSet, monkeypatch: pytest.MonkeyPatch, **changed: object) -> nn.Module:
    monkeypatch.setattr("graphattn.data.load", lambda *args, **options: data)
    table = {key: value for key, value in {**TABLE, **changed}.items() if value is not None}
    return prepared(Job(experiment.from_table("rings/gcn", table, "here"), 0, Path(), device="cpu"))[0]


def test_the_read_out_of_a_definition_is_built(data: GraphSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(data, monkeypatch)
    assert isinstance(model, GraphNetwork)
    assert (model.dropout, model.classifier.weight.shape) == (0.5, (CLASSES, 7))
    assert model.nodes.layers[0].out_channels == 5  # type: ignore[union-attr, index]
    asked = task(data, experiment.Train(batch=2), model)
    assert isinstance(asked, GraphClassification)


def test_a_read_out_goes_with_labels_of_graphs(data: GraphSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"rings has labels of graphs: needed a section \[readout\]"):
        made(data, monkeypatch, readout=None)
    nodes = GraphSet("rings", data.train, data.val, data.test, 4, CLASSES)
    with pytest.raises(ValueError, match=r"rings has labels of nodes: leave out the section \[readout\]"):
        made(nodes, monkeypatch)


def test_neighbours_are_not_sampled(data: GraphSet) -> None:
    with pytest.raises(ValueError, match="rings has labels of graphs: leave it out"):
        task(data, experiment.Train(batch=2, neighbors=(3,)), nn.Module())
