"""Labels shown to a model, and predictions corrected and smoothed, on the digits and on a path written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphattn import experiment
from graphattn.conv import SparseFeatures
from graphattn.data import NodeData, load_nodes
from graphattn.experiment import CorrectAndSmooth
from graphattn.models import MODELS
from graphattn.models.correct_and_smooth import correct, smooth
from graphattn.training import Job, LabelInputs, NodeClassification, run_seed, smoothed_measures, task
from graphattn.training.runs import prepared

PATH = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 5], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]])
PARTS = {"train": torch.tensor([0, 2, 5]), "val": torch.tensor([1, 4]), "test": torch.tensor([3])}
DATA = NodeData("path", torch.arange(6.0)[:, None], PATH, torch.tensor([0, 1, 1, 0, 1, 0]), **PARTS, num_classes=2)


class Seen(nn.Module):
    """Keeps its inputs; the logits are 1, 2, .. in class 1 at the first, second, .. call, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.inputs.append(x.detach().clone())
        return torch.stack([torch.zeros(len(x)), torch.full((len(x),), float(len(self.inputs)))], 1) * self.weight


def test_in_measuring_the_training_labels_are_shown_and_no_other() -> None:
    model = Seen()
    LabelInputs(DATA).logits(model)
    (x,) = model.inputs
    assert x[:, 0].tolist() == list(range(6))
    assert x[:, 1:].tolist() == [[1, 0], [0, 0], [0, 1], [0, 0], [0, 0], [1, 0]]


def test_reuse_shows_what_was_predicted_where_nothing_is_known() -> None:
    model = Seen()
    logits = LabelInputs(DATA, reuse=2).logits(model)
    assert len(model.inputs) == 3
    assert logits[0, 1] == 3, "the last run counts"
    for number, x in enumerate(model.inputs[1:], 1):
        softmax = torch.tensor([0.0, number]).softmax(0)
        for node, shown in {0: [1, 0], 2: [0, 1], 5: [1, 0]}.items():
            assert x[node, 1:].tolist() == shown
        torch.testing.assert_close(x[[1, 3, 4], 1:], softmax.expand(3, 2))


@pytest.mark.parametrize("reuse", [0, 1])
def test_a_step_never_shows_the_labels_that_it_asks_for(reuse: int) -> None:
    asked = LabelInputs(DATA, rate=0.5, reuse=reuse)
    shown = set()
    for _ in range(30):
        model = Seen()
        loss = asked.loss(model, DATA)
        given = model.inputs[0][:, 1:].any(1).nonzero().flatten().tolist()
        assert set(given) <= {0, 2, 5}
        shown.add(tuple(given))
        left = [node for node in (0, 2, 5) if node not in given]
        if left:
            logits = torch.tensor([[0.0, 1.0 + reuse]]).expand(len(left), 2)
            torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, DATA.y[left]))
    assert len(shown) == 8, "each of three labels is shown half of the time"


def test_a_step_that_shows_all_labels_has_a_gradient_of_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.zeros(size))
    model = Seen()
    loss = LabelInputs(DATA).loss(model, DATA)
    loss.backward()
    assert float(loss.detach()) == 0
    assert model.weight.grad == 0


def test_what_cannot_be_shown_labels_says_so() -> None:
    sparse = replace(DATA, x=SparseFeatures.from_dense(torch.eye(6)))
    with pytest.raises(ValueError, match="path: labels as inputs need dense features and a class a node"):
        LabelInputs(sparse)
    tasks = replace(DATA, y=torch.zeros(6, 3), num_classes=3)
    with pytest.raises(ValueError, match="a class a node"):
        LabelInputs(tasks)
    with pytest.raises(ValueError, match=r"\[labels\] are for a model with features on one graph as a whole"):
        task(DATA, experiment.Train(batch=2, neighbors=(2,)), Seen(), experiment.Labels())
    with pytest.raises(ValueError, match=r"\[correct_and_smooth\] is for predictions of one class a node on one graph"):
        task(tasks, experiment.Train(), Seen(), None, CorrectAndSmooth())


def test_smoothed_measures_are_those_of_corrected_and_smoothed_predictions() -> None:
    model = Seen()
    how = CorrectAndSmooth(correct_steps=2, correct_alpha=0.5, scale=0.8, smooth_steps=3, smooth_alpha=0.6)
    asked = NodeClassification(DATA)
    found = smoothed_measures(asked, model, how)
    z = torch.tensor([[0.0, 1.0]]).softmax(1).expand(6, 2)
    labels = (torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), DATA.train, PATH)
    z = smooth(correct(z, *labels, steps=2, alpha=0.5, scale=0.8), *labels, steps=3, alpha=0.6)
    for part, nodes in (("val", DATA.val), ("test", DATA.test)):
        right = (z[nodes].argmax(1) == DATA.y[nodes]).float().mean()
        assert found[f"{part}_accuracy"] == pytest.approx(100 * float(right), abs=1e-3)
    assert (found["plain_val_accuracy"], found["plain_test_accuracy"]) == (100, 0)
    assert found["val_accuracy"] != found["plain_val_accuracy"], "smoothing does something here"
    own = z[DATA.val] / z[DATA.val].sum(1, keepdim=True)
    expected = nn.functional.nll_loss(own.log(), DATA.y[DATA.val])
    assert found["val_loss"] == pytest.approx(float(expected), abs=1e-5)


TABLE: dict[str, Any] = {
    "title": "Digits",
    "data": {"name": "digits", "dense": True},
    "model": {"name": "gcn", "hidden": 16},
    "train": {"epochs": 8},
    "labels": {"rate": 0.5, "reuse": 1},
    "correct_and_smooth": {"correct_steps": 5, "smooth_steps": 5},
}


def test_a_definition_with_labels_is_trained_and_smoothed(tmp_path: Path) -> None:
    definition = experiment.from_table("digits/tricks", TABLE, "here")
    model, data, _ = prepared(Job(definition, 0, tmp_path, device="cpu"))
    assert isinstance(data, NodeData)
    assert model.layers[0].in_channels == data.num_features + data.num_classes  # type: ignore[union-attr, index]
    result = run_seed(Job(definition, 0, tmp_path, device="cpu"))
    assert {"test_accuracy", "plain_test_accuracy", "plain_val_accuracy", "val_accuracy"} <= set(result)
    assert result["test_accuracy"] > 60
    widths = (data.num_features + data.num_classes) * 16 + 16 + 16 * data.num_classes + data.num_classes
    assert result["parameters"] == widths
    plain = {key: value for key, value in TABLE.items() if key not in ("labels", "correct_and_smooth")}
    assert experiment.from_table("digits/tricks", plain, "here").key() != definition.key()


def test_labels_help_where_features_say_nothing() -> None:
    data = load_nodes("digits", dense=True)
    blank = replace(data, x=torch.zeros(data.num_nodes, 1))
    scores = []
    for asked, width in ((NodeClassification(blank), 1), (LabelInputs(blank), 1 + data.num_classes)):
        model = MODELS["gcn"](width, data.num_classes, hidden=32, dropout=0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            asked.loss(model, blank).backward()
            optimizer.step()
        scores.append(asked.measures(model.eval())["test_accuracy"])
    assert scores[0] < 25 < 60 < scores[1]
