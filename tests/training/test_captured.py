"""A captured training step: refused where it cannot be, and the same training as without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn
from typer.testing import CliRunner

from graphattn import data
from graphattn.cli import app
from graphattn.models import MODELS
from graphattn.training import ImageClassification, NodeClassification, captured, fit
from graphattn.training.captured import CapturedGradients
from graphattn.training.fit import _replayed
from graphattn.training.stopping import rule

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_parameters_that_are_not_on_a_gpu_are_refused() -> None:
    for model, where in ((nn.Linear(2, 2), "cpu"), (nn.ReLU(), "no device")):
        optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))])
        with pytest.raises(ValueError, match=f"the parameters are on {where}: leave out --cuda-graph"):
            captured(lambda: torch.zeros(()), model, optimizer)


def test_batches_for_a_model_on_the_cpu_are_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the parameters are on cpu: leave out --cuda-graph"):
        CapturedGradients(lambda batch: model(batch[0]).sum(), model, optimizer)((torch.ones(1, 2),))


def test_several_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="captured in one process, here are 2"):
        _replayed(SimpleNamespace(world_size=2), nn.Linear(2, 2), None, None, None)  # type: ignore[arg-type]


def test_fit_refuses_too(tmp_path: Path) -> None:
    loaded = data.load("digits")
    model = MODELS["mlp"](loaded.num_features, loaded.num_classes, hidden=4)
    fabric, optimizer = Fabric(accelerator="cpu", devices=1), torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="leave out --cuda-graph"):
        fit(
            model,
            NodeClassification(loaded),
            optimizer,
            rule("none", 0, 2),
            fabric=fabric,
            epochs=2,
            folder=tmp_path,
            cuda_graph=True,
        )


def test_the_command_refuses_before_anything_runs(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["run", "digits/mlp", "--device", "cpu", "--cuda-graph", "--runs", str(tmp_path)])
    assert said.exit_code != 0
    assert "--cuda-graph needs a GPU" in said.output
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("rate", [None, lambda step: 1 / (1 + step)], ids=["constant", "falling"])
@pytest.mark.parametrize(
    ("name", "dropouts"), [("gat", ["dropout", "attention_dropout", "feature_dropout"]), ("mlp", ["dropout"])]
)
def test_a_captured_step_trains_as_one_that_is_not(
    name: str, dropouts: list[str], rate: Callable[[int], float] | None, tmp_path: Path
) -> None:
    outcomes = []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        loaded = data.load("digits").to("cuda")
        model = MODELS[name](loaded.num_features, loaded.num_classes, hidden=4, **dict.fromkeys(dropouts, 0.0))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
        folder = tmp_path / str(cuda_graph)
        outcomes.append(
            fit(
                model,
                NodeClassification(loaded),
                optimizer,
                rule("none", 0, 6),
                fabric=Fabric(accelerator="cuda", devices=1),
                epochs=6,
                folder=folder,
                rate=rate,
                cuda_graph=cuda_graph,
            )
        )
    for plain, replayed in zip(outcomes[0].history, outcomes[1].history, strict=True):
        assert replayed["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-4)
    assert outcomes[1].history[-1]["train_loss"] < outcomes[1].history[0]["train_loss"]


@pytest.mark.gpu
@needs_gpu
def test_captured_gradients_and_statistics_are_those_of_the_step() -> None:
    """Also those of a smaller batch, and of one that is replayed after it."""
    model = MODELS["resnet"](1, 10, depth=8).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def gradients(batch: Sequence[torch.Tensor]) -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss.detach()

    recorded = CapturedGradients(gradients, model, optimizer)
    buffers = list(model.buffers())
    for count in (100, 37, 100):
        batch = (torch.rand(count, 1, 8, 8, device="cuda"), torch.arange(count, device="cuda") % 10)
        before = [buffer.clone() for buffer in buffers]
        loss = gradients(batch)
        expected = [loss, *(p.grad.clone() for p in model.parameters()), *(b.clone() for b in buffers)]  # type: ignore[union-attr]
        for buffer, was in zip(buffers, before, strict=True):
            buffer.copy_(was)
        found = [recorded(batch), *(p.grad for p in model.parameters()), *buffers]
        for own, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(own, theirs)


@pytest.mark.gpu
@needs_gpu
def test_captured_batches_train_as_those_that_are_not(tmp_path: Path) -> None:
    """With norms' statistics, momentum, a rate that changes, and a last batch that is smaller."""
    outcomes, states = [], []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        loaded = data.load_images("digits-images").to("cuda")
        model = MODELS["resnet"](loaded.in_channels, loaded.num_classes, depth=8)
        task = ImageClassification(loaded, 100)
        assert len(loaded.train) % 100
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        outcome = fit(
            model,
            task,
            optimizer,
            rule("last", 0, 3),
            fabric=Fabric(accelerator="cuda", devices=1),
            epochs=3,
            folder=tmp_path / str(cuda_graph),
            rate=lambda step: 1 / (1 + step),
            cuda_graph=cuda_graph,
        )
        outcomes.append(outcome)
        states.append(model.state_dict())
    for plain, replayed in zip(outcomes[0].history, outcomes[1].history, strict=True):
        assert replayed["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-2)
    assert outcomes[1].history[-1]["train_loss"] < 0.9 * outcomes[1].history[0]["train_loss"]
    counted = [name for name in states[0] if name.endswith("num_batches_tracked")]
    assert counted and all(states[0][name] == states[1][name] == 3 * task.steps for name in counted)


def test_batches_that_are_not_tensors_are_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="a batch here is a str: leave out --cuda-graph"):
        CapturedGradients(lambda batch: model(batch[0]).sum(), model, optimizer)("some graphs")  # type: ignore[arg-type]


@pytest.mark.gpu
@needs_gpu
def test_a_step_that_waits_for_the_gpu_is_refused(tmp_path: Path) -> None:
    """PyG's GCNConv asks how many loops a graph has, at every step."""
    loaded = data.load("digits").to("cuda")
    model = MODELS["gcn"](loaded.num_features, loaded.num_classes)
    with pytest.raises(ValueError, match="waits for the GPU, which a CUDA graph cannot"):
        fit(
            model,
            NodeClassification(loaded),
            torch.optim.Adam(model.parameters()),
            rule("none", 0, 6),
            fabric=Fabric(accelerator="cuda", devices=1),
            epochs=6,
            folder=tmp_path,
            cuda_graph=True,
        )


@pytest.mark.gpu
@needs_gpu
def test_recording_trains_nothing_and_every_replay_draws_anew() -> None:
    model = nn.Linear(4, 4, device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.ones(100, 4, device="cuda")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.dropout(model(x), 0.5).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    before = [parameter.detach().clone() for parameter in model.parameters()]
    replay = captured(step, model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    losses = [float(replay()) for _ in range(3)]
    assert len(set(losses)) == 3
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
