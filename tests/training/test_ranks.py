"""Two processes train what one does: the same weights, one set of files, and clear ends when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import graphattn
from graphattn.data import load_nodes
from graphattn.experiment import Train
from graphattn.models import MODELS
from graphattn.training.asked import task
from graphattn.training.ranks import Shares, check_same, weighted

ROOT = Path(graphattn.__file__).resolve().parents[1]  # of the package that is tested, installed or not
SAMPLED = ["--set", "train.batch=48", "--set", "train.neighbors=[-1,-1]"]
NO_CHANCE = [f"--set=model.{kind}=0.0" for kind in ("dropout", "attention_dropout", "feature_dropout")]
RUN = ["run", "digits/gat", "--seeds", "2", "--device", "cpu", "--set", "train.epochs=3", *SAMPLED, *NO_CHANCE]


def ranks(arguments: list[str], folder: Path, number: int = 2) -> subprocess.CompletedProcess[str]:
    """Started by torchrun, or alone if `number` is 1."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"] if number > 1 else []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *launcher, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def results(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, torch.Tensor]]]:
    """The seeds' rows without what time it took, and their kept weights."""
    (run,) = (folder / "runs" / "digits" / "gat").iterdir()
    rows = json.loads((run / "result.json").read_text(encoding="utf-8"))["seeds"]
    weights = [torch.load(run / f"seed-{row['seed']}" / "best.pt", weights_only=True)["model"] for row in rows]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows], weights


def test_two_ranks_end_with_the_weights_of_one(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        done = ranks(["-m", "graphattn", *RUN], tmp_path / str(number), number)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("runs in") == 1, "only one rank prints"
    (alone, weights), (together, shared) = results(tmp_path / "1"), results(tmp_path / "2")
    assert [row["seed"] for row in together] == [0, 1]
    for row, other in zip(alone, together, strict=True):
        assert row == pytest.approx(other, abs=0.2), "a node on the border may fall either way"
    for one, other in zip(weights, shared, strict=True):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


SCRIPT = """
import os, shutil, sys
from pathlib import Path
import torch
from torch import nn
from graphattn import experiment
from graphattn.training import Job, run_seed, run_seeds_on_ranks
from graphattn.training.fit import train_epoch
from graphattn.training.ranks import Shares, check_same, joined, number, weighted

fabric = joined("cpu", "32-true")
rank, world = number()
kind = sys.argv[1]
if kind == "gradients":
    x, y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10.0)
    torch.manual_seed(1)
    model = fabric.setup_module(nn.Linear(3, 1))
    for share in Shares(10, 5):  # two shares of unequal size
        loss = weighted((model(x[share]).squeeze(1) - y[share]).square().mean(), len(share))
        fabric.backward(loss)
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], "grads.pt")
elif kind == "order":
    found = []
    for epoch in range(3):
        found.append(list(Shares(9, 5)))
        torch.rand(len(found[-1][0]))  # as dropout on shares of unequal size
    torch.save(found, f"order-{rank}.pt")
elif kind == "epochs":
    found = []
    class Drawing:
        def batches(self):
            found.append(torch.rand(4))  # as what samples
            return [torch.ones(4, 3)]
        def loss(self, model, batch):
            torch.rand(1 + rank)  # as dropout on shares of unequal size
            return model(batch).mean()
    model = nn.Linear(3, 1)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters()))
    for epoch in range(3):
        train_epoch(fabric, model, Drawing(), optimizer)
    torch.save(found, f"epochs-{rank}.pt")
elif kind == "folders":
    definition = experiment.load("digits/gat", ["train.epochs=2", "train.batch=50", "train.neighbors=[2,2]"])
    job = Job(definition, 0, Path(f"runs-{rank}"), device="cpu", checkpoint_every=0.0)
    last, kept = job.seed_folder / "last.pt", Path("last.pt")
    run_seed(job, lambda row: shutil.copy(last, kept) if last.exists() else None)
    for attempt in range(2):
        try:
            list(run_seeds_on_ranks([job]))
        except ValueError as error:
            print(error)
        if rank == 0:
            job.done.unlink(missing_ok=True)
            shutil.copy(kept, last)
elif kind == "disagree":
    check_same("the data", f"set {rank}")
elif kind == "lost":
    if rank == 1:
        os._exit(3)
    torch.distributed.barrier()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_unequal_shares_give_the_gradient_of_the_whole(script: Path, tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        done = ranks([str(script), "gradients"], tmp_path, number)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(tmp_path / "grads.pt", weights_only=True))
    for alone, together in zip(*found, strict=True):
        torch.testing.assert_close(together, alone)


def test_all_ranks_draw_the_same_order_whatever_else_they_draw(script: Path, tmp_path: Path) -> None:
    done = ranks([str(script), "order"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"order-{rank}.pt", weights_only=True) for rank in range(2))
    for one, other in zip(first, second, strict=True):
        assert [len(share) for share in one] == [3, 2]
        assert sorted(node for share in one + other for node in share) == list(range(9)), "each once, in every epoch"
    assert first[0] != first[1] != first[2]


def test_all_ranks_begin_each_epoch_with_the_same_random_numbers(script: Path, tmp_path: Path) -> None:
    done = ranks([str(script), "epochs"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.stack(torch.load(tmp_path / f"epochs-{rank}.pt", weights_only=True)) for rank in range(2))
    assert torch.equal(first, second)
    assert len(first.unique(dim=0)) == 3, "other ones in each epoch"


def test_ranks_that_see_other_runs_do_not_go_on(script: Path, tmp_path: Path) -> None:
    done = ranks([str(script), "folders"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for found in (
        "seed 0 in the folder of runs: rank 0 has its result, rank 1 has none;",
        "the epochs done in the folder of runs: rank 0 has 1, rank 1 has 0;",
    ):
        assert done.stdout.count(f"the ranks disagree on {found}") == 2, "each rank says it"


def test_ranks_that_disagree_say_so(script: Path, tmp_path: Path) -> None:
    done = ranks([str(script), "disagree"], tmp_path)
    assert done.returncode != 0
    assert "the ranks disagree on the data: rank 0 has set 0, rank 1 has set 1" in done.stderr


def test_a_lost_rank_ends_the_others(script: Path, tmp_path: Path) -> None:
    done = ranks([str(script), "lost"], tmp_path)
    assert done.returncode != 0
    assert "exitcode  : 3" in done.stderr, "torchrun says which rank failed, and how"


def test_a_whole_graph_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphattn.training.asked.number", lambda: (0, 2))
    with pytest.raises(ValueError, match=r"digits as a whole cannot be shared by 2 ranks: give train.batch"):
        task(load_nodes("digits"), Train(), MODELS["mlp"](64, 10))


def test_one_process_has_all_shares() -> None:
    torch.manual_seed(0)
    shares = list(Shares(10, 4))
    assert [len(share) for share in shares] == [4, 4, 2]
    assert len(Shares(10, 4)) == 3
    assert sorted(index for share in shares for index in share) == list(range(10))
    loss = torch.tensor(2.0)
    assert weighted(loss, 4) is loss
    check_same("anything", "alone")


def test_a_batch_too_small_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphattn.training.ranks.number", lambda: (1, 3))
    monkeypatch.setattr("graphattn.training.ranks.same_random_state", lambda: None)  # there are no others to ask
    with pytest.raises(ValueError, match="a batch has 2 of 10, which 3 ranks cannot share"):
        Shares(10, 4)
    assert [len(share) for share in Shares(9, 6)] == [2, 1]
