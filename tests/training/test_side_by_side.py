"""What a stack is asked: each model what it would be asked alone, on its own split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from graphattn import experiment
from graphattn.data import NodeData
from graphattn.experiment import CorrectAndSmooth, Experiment, Train
from graphattn.models import MODELS
from graphattn.training import NodeClassification, stacked


def split(seed: int, first: int = 5) -> NodeData:
    """Thirty nodes; `first` of them train, in an order that the seed draws."""
    generator = torch.Generator().manual_seed(9)
    x, edge_index = torch.rand(30, 6, generator=generator), torch.randint(30, (2, 90), generator=generator)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    train, val, test = (part.sort().values for part in order.split([first, 10, 20 - first]))
    return NodeData("made", x, edge_index, torch.arange(30) % 3, train, val, test, 3)


def made(train: Train, **sections: Any) -> Experiment:
    return Experiment(
        "made", "made", experiment.Data("made"), experiment.Model("gat"), train, experiment.Run(), **sections
    )


@pytest.mark.parametrize("sizes", [(5, 5, 5), (5, 6, 7)], ids=["splits of a size", "of several"])
def test_losses_and_measures_are_those_of_each_alone(sizes: tuple[int, ...]) -> None:
    loaded = [split(seed, size) for seed, size in enumerate(sizes)]
    models = [MODELS["gat"](6, 3).eval() for _ in loaded]
    stack, task = stacked(models, loaded, made(Train()))
    stack.eval()
    alone = [NodeClassification(its) for its in loaded]
    (batch,) = task.batches()
    due = torch.stack([one.loss(model, one.data) for one, model in zip(alone, models, strict=True)])
    torch.testing.assert_close(task.loss(stack, batch), due)
    assert due.unique().numel() == 3
    expected = [pytest.approx(one.measures(model), rel=1e-5) for one, model in zip(alone, models, strict=True)]
    assert task.measures(stack) == expected
    assert task.score == "accuracy"


def test_there_is_one_copy_of_the_graph() -> None:
    _, task = stacked([MODELS["mlp"](6, 3) for _ in range(3)], [split(seed) for seed in range(3)], made(Train()))
    assert len({id(one.data.x) for one in task.tasks}) == len({id(one.data.edge_index) for one in task.tasks}) == 1


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (Train(batch=2, neighbors=(3, 3)), "made asks for SampledNodeClassification, --batch-seeds needs"),
        (Train(epochs=0), "train.epochs is 0, needed at least 1"),
    ],
)
def test_what_is_not_asked_side_by_side(train: Train, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stacked([MODELS["gat"](6, 3)], [split(0)], made(train))


def test_graphs_that_differ() -> None:
    other = replace(split(1), edge_index=split(1).edge_index.flip(0))
    with pytest.raises(ValueError, match="made: the graph differs from seed to seed, needed one"):
        stacked([MODELS["gat"](6, 3) for _ in range(2)], [split(0), other], made(Train()))


def test_what_is_done_to_predictions_is_done_alone() -> None:
    smoothed = made(Train(), correct_and_smooth=CorrectAndSmooth())
    with pytest.raises(
        ValueError, match=r"\[correct_and_smooth\] is for models by themselves: leave out --batch-seeds"
    ):
        stacked([MODELS["gat"](6, 3)], [split(0)], smoothed)


def test_what_has_more_than_its_layers_is_trained_alone() -> None:
    mapped = MODELS["gat"](6, 3, num_layers=3, skip=True, skip_mapped=True)
    others = [MODELS["gat"](6, 3, 2), *(MODELS["gat"](6, 3, **{name: True}) for name in ("batch_norm", "residual"))]
    for model in (mapped, *others):
        with pytest.raises(ValueError, match="with residual, skip_mapped, batch_norm or features of edges cannot be"):
            stacked([model], [split(0)], made(Train()))
