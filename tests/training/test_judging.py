"""Loss and scores against scikit-learn and OGB's own Evaluators."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from graphattn.training.judging import accuracy, loss_of, measures_of, roc_auc


def answers(rows: int, tasks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with ties, and labels of which a fifth is unknown; the last task has no 1, the first no 0."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(rows, tasks, generator=generator) < 0.4).float()
    y[:, 0], y[:, -1] = 1, 0
    y[torch.rand(rows, tasks, generator=generator) < 0.2] = torch.nan
    logits = (4 * torch.randn(rows, tasks, generator=generator)).round() / 2 + y.nan_to_num()
    return logits, y


@pytest.mark.parametrize(("name", "tasks"), [("ogbn-proteins", 112), ("ogbg-molhiv", 1)])
def test_roc_auc_is_that_of_ogbs_evaluators(name: str, tasks: int) -> None:
    node = pytest.importorskip("ogb.nodeproppred.evaluate").Evaluator
    graph = pytest.importorskip("ogb.graphproppred.evaluate").Evaluator
    logits, y = answers(200, tasks + 2)
    if tasks == 1:
        logits, y = logits[:, 1:2], y[:, 1:2]
    else:
        logits, y = logits[:, 1:-1], y[:, 1:-1]
        y[:, 0], y[:, -1] = torch.where(y[:, 0].isnan(), y[:, 0], 1), torch.where(y[:, -1].isnan(), y[:, -1], 0)
    judge = (graph if name.startswith("ogbg") else node)(name)
    expected = judge.eval({"y_true": y.numpy(), "y_pred": logits.numpy()})["rocauc"]
    assert 0.5 < expected < 0.95
    assert float(roc_auc(logits, y)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "classes"), [("ogbn-arxiv", 40), ("ogbn-products", 47)])
def test_accuracy_is_that_of_ogbs_evaluators(name: str, classes: int) -> None:
    judge = pytest.importorskip("ogb.nodeproppred.evaluate").Evaluator(name)
    y = torch.randint(classes, (300,), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(300, classes, generator=torch.Generator().manual_seed(1)) + 2 * F.one_hot(y, classes)
    expected = judge.eval({"y_true": y[:, None].numpy(), "y_pred": logits.argmax(1, keepdim=True).numpy()})["acc"]
    assert 0.2 < expected < 0.8
    assert float(accuracy(logits, y)) == pytest.approx(expected, abs=1e-6)


def test_roc_auc_of_two_classes_is_that_of_their_margin() -> None:
    y = torch.tensor([0, 1, 1, 0, 1])
    logits = torch.tensor([[0.0, 1.0], [2.0, 2.5], [0.0, 3.0], [1.0, 0.0], [5.0, 4.0]])
    assert float(roc_auc(logits, y)) == pytest.approx(roc_auc_score(y, logits[:, 1] - logits[:, 0]))


def test_large_logits_are_told_apart() -> None:
    """Their sigmoids are all 1 in float32."""
    y = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert float(roc_auc(torch.tensor([[20.0], [21.0], [22.0], [23.0]]), y)) == 0.75


def test_without_both_answers_there_is_no_roc_auc() -> None:
    with pytest.raises(ValueError, match="no task has both a 0 and a 1"):
        roc_auc(torch.zeros(2, 2), torch.tensor([[0.0, torch.nan], [0.0, 1.0]]))


def test_the_loss_is_the_mean_over_known_answers() -> None:
    logits = torch.tensor([[math.log(3), 5.0], [0.0, 0.0]], requires_grad=True)
    y = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    loss = loss_of(logits, y)
    assert loss.item() == pytest.approx((math.log(4 / 3) + 2 * math.log(2)) / 3)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert float(loss_of(logits.detach(), torch.full((2, 2), torch.nan))) == 0


def test_measures_are_floats_in_percent() -> None:
    logits, y = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]), torch.tensor([1, 1, 1])
    measures = measures_of("accuracy", {"val": (logits, y), "test": (logits[1:], y[1:])})
    assert list(measures) == ["val_loss", "val_accuracy", "test_accuracy"]
    assert measures["val_accuracy"] == 66.6667
    assert measures["test_accuracy"] == 50
    assert measures["val_loss"] == pytest.approx(float(F.cross_entropy(logits, y)))
    assert all(type(value) is float for value in measures.values())
