"""Several labels a node on graphs not seen in training: batches, loss and F1, on small graphs written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from graphattn.data import GraphSet
from graphattn.models import MODELS
from graphattn.training import MultiLabelNodes, fit
from graphattn.training.stopping import Never

LABELS = 3


def graph(nodes: int, seed: int) -> Data:
    """A ring; the labels of a node are the signs of its first features and of its neighbours'."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 4, generator=generator)
    ring = torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)])
    y = torch.stack([x[:, 0] > 0, x[:, 1] > 0, x[:, 0].roll(1) > 0], 1).float()
    return Data(x=x, edge_index=torch.cat([ring, ring.flip(0)], 1), y=y)


@pytest.fixture
def data() -> GraphSet:
    sizes = iter(range(100))
    return GraphSet(
        "rings",
        [graph(5 + k, next(sizes)) for k in range(5)],
        [graph(6, next(sizes)), graph(4, next(sizes))],
        [graph(7, next(sizes))],
        num_features=4,
        num_classes=LABELS,
    )


class Given(nn.Module):
    """Logits that are a function of the features."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.logits(x)


def test_an_epoch_sees_every_graph_once_in_another_order(data: GraphSet) -> None:
    task = MultiLabelNodes(data, batch=2)
    epochs = [[batch.x for batch in task.batches()] for _ in range(3)]
    assert [len(batches) for batches in epochs] == [3, 3, 3]
    everything = torch.cat([graph.x for graph in data.train]).sort(0).values
    for batches in epochs:
        assert torch.equal(torch.cat(batches).sort(0).values, everything)
    assert len({tuple(batch.shape[0] for batch in batches) for batches in epochs}) > 1


def test_an_epoch_of_sampled_neighbours_sees_every_node_once(data: GraphSet) -> None:
    task = MultiLabelNodes(data, batch=8, neighbors=(2, 1))
    nodes = sum(graph.num_nodes for graph in data.train)
    batches = list(task.batches())
    assert [batch.batch_size for batch in batches] == [8] * (nodes // 8) + ([nodes % 8] if nodes % 8 else [])
    seen = torch.cat([batch.x[: batch.batch_size] for batch in batches])
    assert torch.equal(seen.sort(0).values, torch.cat([graph.x for graph in data.train]).sort(0).values)


def test_the_loss_of_a_sampled_batch_is_that_of_its_seeds(data: GraphSet) -> None:
    task = MultiLabelNodes(data, batch=4, neighbors=(2,))
    batch = next(iter(task.batches()))
    assert batch.num_nodes > batch.batch_size
    batch.y[batch.batch_size :] = torch.nan
    assert task.loss(Given(lambda x: x[:, :LABELS]), batch).isfinite()


def test_the_loss_is_the_mean_over_nodes_and_labels(data: GraphSet) -> None:
    task = MultiLabelNodes(data, batch=2)
    batch = next(iter(task.batches()))
    constant = Given(lambda x: x.new_full((len(x), LABELS), math.log(3)))
    expected = (batch.y * math.log(4 / 3) + (1 - batch.y) * math.log(4)).mean()
    torch.testing.assert_close(task.loss(constant, batch), expected)


def test_f1_counts_all_labels_of_all_held_out_graphs_together(data: GraphSet) -> None:
    task = MultiLabelNodes(data, batch=2)
    measures = task.measures(Given(lambda x: x[:, :LABELS]))
    for part in ("val", "test"):
        graphs = getattr(data, part)
        given = torch.cat([graph.x[:, :LABELS] > 0 for graph in graphs])
        y = torch.cat([graph.y.bool() for graph in graphs])
        right = int((given & y).sum())
        f1 = 2 * right / int(given.sum() + y.sum())
        assert 0 < f1 < 1
        assert measures[f"{part}_f1"] == pytest.approx(100 * f1, abs=1e-3)
    assert set(measures) == {"val_loss", "val_f1", "test_f1"}
    assert all(type(value) is float for value in measures.values())


def test_a_perfect_and_a_silent_model(data: GraphSet) -> None:
    task = MultiLabelNodes(data, batch=1)
    answers = iter([graph.y for graph in (*data.val, *data.test)])
    assert task.measures(Given(lambda x: 2 * next(answers) - 1))["test_f1"] == 100
    assert task.measures(Given(lambda x: x.new_full((len(x), LABELS), -1.0)))["test_f1"] == 0


@pytest.mark.parametrize("neighbors", [None, (2, 2)])
def test_it_learns_and_resumes_to_the_same_numbers(
    data: GraphSet, tmp_path: Path, neighbors: tuple[int, ...] | None
) -> None:
    class Killed(BaseException):
        pass

    def trained(folder: Path, kill: int | None = None) -> dict[str, float]:
        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == kill:
                raise Killed

        torch.manual_seed(0)
        model = MODELS["gat"](4, LABELS, hidden=8, heads=2, dropout=0.1, attention_dropout=0.1, feature_dropout=0.0)
        outcome = fit(
            model,
            MultiLabelNodes(data, batch=2 if neighbors is None else 8, neighbors=neighbors),
            torch.optim.Adam(model.parameters(), lr=0.02),
            Never(),
            fabric=Fabric(accelerator="cpu", devices=1),
            epochs=30,
            folder=folder,
            checkpoint_every=0.0,
            on_epoch=on_epoch,
        )
        assert outcome.history[0]["train_loss"] > 1.3 * outcome.history[-1]["train_loss"]
        return outcome.measures

    whole = trained(tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tmp_path / "killed", kill=11)
    assert trained(tmp_path / "killed") == whole


def test_a_captured_step_needs_one_batch(data: GraphSet, tmp_path: Path) -> None:
    model = MODELS["mlp"](4, LABELS)
    with pytest.raises(ValueError, match=r"captured on tensors, a batch here is a .*: leave out --cuda-graph"):
        fit(
            model,
            MultiLabelNodes(data, batch=5),
            torch.optim.Adam(model.parameters()),
            Never(),
            fabric=Fabric(accelerator="cpu", devices=1),
            epochs=1,
            folder=tmp_path,
            cuda_graph=True,
        )
