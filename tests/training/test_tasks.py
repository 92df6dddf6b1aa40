"""Node classification: which nodes are learnt from, which are measured, on logits written by hand."""

from __future__ import annotations

import math

import pytest
import torch
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
