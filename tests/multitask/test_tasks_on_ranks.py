"""Two processes train what one does, whatever is frozen, unused or without a loss in a step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import graphattn

ROOT = Path(graphattn.__file__).resolve().parents[1]

SCRIPT = """
import torch
from torch import nn
from graphattn.multitask import DynamicAverage, GradNorm, PCGrad, Uncertainty, Weighting
from graphattn.multitask import HardSharing, Learner, MMoE, SoftSharing
from graphattn.training.multitask_steps import averaged
from graphattn.training.ranks import Shares, joined, number, weighted

fabric = joined("cpu", "32-true")
rank, _ = number()
x, y = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12.0)[:, None] / 12
found = {}
for kind in (Weighting, Uncertainty, DynamicAverage, GradNorm, PCGrad):
    for sharing in ("hard", "soft", "mmoe"):
        torch.manual_seed(1)
        heads = {task: nn.Linear(4, 1) for task in ("main", "other", "frozen")}
        heads["frozen"].requires_grad_(False)
        trunk = lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4))
        if sharing == "hard":
            shared = HardSharing(trunk(), heads)
        elif sharing == "soft":
            shared = SoftSharing({task: trunk() for task in heads}, heads, strength=0.01)
        else:
            shared = MMoE([trunk(), trunk()], {task: nn.Linear(5, 2) for task in heads}, heads)
        learner = Learner(shared, kind({"main": 1.0, "other": 0.5, "frozen": 0.5}))
        optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
        model, optimizer = fabric.setup(learner, optimizer)
        for step in range(3):
            for share in Shares(12, 7):  # two shares of unequal size
                optimizer.zero_grad()
                aims = {"main": y[share], "other": -3 * y[share], "frozen": 1 - y[share]}
                if step % 2 and not kind.needs_all:
                    aims = {"main": aims["main"]}  # the others have no loss in this step
                out = model(x[share], tasks=tuple(aims))
                losses = {t: weighted((out[t] - aim).square().mean(), len(share)) for t, aim in aims.items()}
                loss = model.weighting(losses, model.sharing, average=averaged)
                fabric.backward(loss)
                optimizer.step()
            model.weighting.next_epoch()
        found[f"{kind.__name__} {sharing}"] = [p.detach().clone() for p in learner.parameters()]
torch.save(found, f"found-{rank}.pt")
"""


def on_ranks(ranks: int, arguments: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_ranks_end_with_the_weights_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    on_ranks(2, ["script.py"], tmp_path)
    first, second = (torch.load(tmp_path / f"found-{rank}.pt", weights_only=True) for rank in (0, 1))
    monkeypatch.chdir(tmp_path)
    exec(SCRIPT, {})
    alone = torch.load(tmp_path / "found-0.pt", weights_only=True)
    assert len(alone) == 15
    for name, weights in alone.items():
        for one, two, other in zip(weights, first[name], second[name], strict=True):
            assert torch.equal(two, other), name
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5, msg=name)


def test_a_definition_on_two_ranks(tmp_path: Path) -> None:
    """A model without batch norms, whose statistics are a rank's own, ends with the weights that one rank gives it."""
    changes = [
        *(f"model.{option}" for option in ("name=vit", "patch=4", "width=8", "heads=2", "depth=1")),
        *(f"train.{option}" for option in ("epochs=2", "batch=17", "optimizer=sgd", "lr=0.1")),
        "multitask.auxiliaries={rotation=0.5, edges=0.5}",
        "multitask.weighting=pcgrad",
        "multitask.sharing=cross-stitch",
    ]
    name = "multitask/digits-rotation"
    options = [f"--set={change}" for change in changes]
    arguments = ["-m", "graphattn", "run", name, "--seeds", "1", "--device", "cpu", *options]
    found = []
    for folder, ranks in (("two", 2), ("one", 1)):
        (tmp_path / folder).mkdir()
        on_ranks(ranks, arguments, tmp_path / folder)
        (best,) = (tmp_path / folder / "runs" / name).glob("*/seed-0/best.pt")
        found.append(torch.load(best, weights_only=True)["model"])
    for key, weight in found[1].items():
        torch.testing.assert_close(found[0][key], weight, rtol=1e-3, atol=1e-5, msg=key)
