"""Node classification: which nodes are learnt from, which are measured, on logits written by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from graphattn.data import NodeData
from graphattn.training import NodeClassification


class Given(nn.Module):
    """Its logits do not depend on anything."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.logits


class Known(nn.Module):
    """A model that is told labels, and keeps what it was told."""

    uses_labels = True

    def forward(self, x: Tensor, edge_index: Tensor, known: Tensor) -> Tensor:
        self.told = known
        return known


@pytest.fixture
def data() -> NodeData:
    """Eight nodes of two classes: 0 and 1 train, 2 and 3 validate, 4 to 6 are tested, 7 is in no set."""
    return NodeData(
        name="eight",
        x=torch.eye(8),
        edge_index=torch.tensor([[0, 1], [1, 0]]),
        y=torch.tensor([0, 1, 0, 1, 0, 1, 1, 0]),
        train=torch.tensor([0, 1]),
        val=torch.tensor([2, 3]),
        test=torch.tensor([4, 5, 6]),
        num_classes=2,
    )


def logits(*right: float, data: NodeData) -> Tensor:
    """Rows whose softmax gives the right class these probabilities."""
    rows = torch.tensor([[math.log(p), math.log(1 - p)] for p in right])
    return torch.where(data.y[:, None] == 0, rows, rows.flip(1))


def test_loss_is_the_mean_over_the_training_nodes(data: NodeData) -> None:
    model = Given(logits(0.5, 0.25, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, data=data))
    loss = NodeClassification(data).loss(model, data)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    loss.backward()
    assert model.logits.grad.any(1).nonzero().flatten().tolist() == [0, 1], "no other label is learnt from"


def test_measures_are_those_of_validation_and_test_nodes(data: NodeData) -> None:
    model = Given(logits(0.1, 0.1, 0.5 + 1e-6, 0.25, 0.9, 0.9, 0.4, 0.1, data=data))
    measures = NodeClassification(data).measures(model)
    assert measures == {
        "val_loss": pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-5),
        "val_accuracy": 50.0,
        "test_accuracy": 66.6667,
    }
    assert all(type(value) is float for value in measures.values())


def test_two_classes_can_be_judged_by_the_order_of_their_nodes(data: NodeData) -> None:
    """Of the tested nodes 4 is of class 0, 5 and 6 of class 1: 5 is in the right order with it, 6 is not."""
    model = Given(logits(0.5, 0.5, 0.9, 0.9, 0.3, 0.9, 0.2, 0.5, data=data))
    task = NodeClassification(replace(data, score="roc_auc"))
    measures = task.measures(model)
    assert task.score == "roc_auc"
    assert list(measures) == ["val_loss", "val_roc_auc", "test_roc_auc"]
    assert (measures["val_roc_auc"], measures["test_roc_auc"]) == (100.0, 50.0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_roc_auc_is_scikit_learns_however_sure_the_model_is(data: NodeData, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    y, nodes = torch.randint(2, (300,), generator=generator), torch.arange(300)
    given = scale * torch.randn(300, 2, generator=generator)
    given[:50] = given[50:100]  # ties
    many = replace(data, x=torch.eye(300), y=y, train=nodes[:1], val=nodes[1:150], test=nodes[150:], score="roc_auc")
    measures = NodeClassification(many).measures(Given(given))
    margin = (given[:, 1] - given[:, 0]).numpy()
    for part in ("val", "test"):
        chosen = getattr(many, part).numpy()
        judge = 100 * roc_auc_score(y.numpy()[chosen], margin[chosen])
        assert measures[f"{part}_roc_auc"] == pytest.approx(judge, abs=1e-3)


def test_measuring_builds_no_gradient(data: NodeData) -> None:
    model = Given(torch.zeros(8, 2))
    NodeClassification(data).measures(model)
    assert model.logits.grad is None
    model.register_forward_hook(lambda _, __, out: assert_no_grad())
    NodeClassification(data).measures(model)


def assert_no_grad() -> None:
    assert not torch.is_grad_enabled()


def test_a_model_that_uses_labels_is_told_those_of_training_nodes_only(data: NodeData) -> None:
    model = Known()
    NodeClassification(data).measures(model)
    expected = torch.zeros(8, 2)
    expected[0, 0] = expected[1, 1] = 1
    assert torch.equal(model.told, expected)
