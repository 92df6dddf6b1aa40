"""Auxiliary tasks in training: what they leave alone, what they change, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn import data, experiment
from graphattn.data import Images, NodeData
from graphattn.experiment import Experiment
from graphattn.multitask import CrossStitch, HardSharing, Learner, MMoE, Plan, SoftSharing, Weighting
from graphattn.multitask.image_tasks import turned
from graphattn.training import Job, prepared, run_seed
from graphattn.training.asked import task
from graphattn.training.building import built
from graphattn.training.few_labels import few_of_each
from graphattn.training.multitask_images import MultiTaskImages
from graphattn.training.multitask_nodes import MultiTaskNodes
from graphattn.training.multitask_steps import generator
from graphattn.training.optimizers import optimizer_of

PARITY = [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
NODES: dict[str, Any] = {
    "title": "nodes",
    "data": {"name": "digits"},
    "model": {"name": "supergat", "hidden": 4, "heads": 2},
    "multitask": {"width": 8},
    "train": {"epochs": 3},
}
IMAGES: dict[str, Any] = {
    "title": "images",
    "data": {"name": "digits-images"},
    "model": {"name": "resnet", "depth": 8, "width": 4},
    "multitask": {"width": 8, "labels_per_class": 3},
    "train": {"epochs": 3, "batch": 16},
}
NODE_TASKS = {"link": 0.5, "features": 0.5, "degree": 0.5, "centrality": 0.5, "attention": 0.5}
IMAGE_TASKS = {"coarse": 0.5, "reconstruction": 0.5, "rotation": 0.5, "edges": 0.5}
SHARINGS = {
    "hard": HardSharing,
    "soft": SoftSharing,
    "soft-trace-norm": SoftSharing,
    "cross-stitch": CrossStitch,
    "mmoe": MMoE,
}
WEIGHTINGS = ("fixed", "uncertainty", "dwa", "gradnorm", "pcgrad")


def defined(table: Mapping[str, Any], train: Mapping[str, Any] | None = None, **plan: Any) -> Experiment:
    changed = {**table, "train": {**table["train"], **(train or {})}, "multitask": {**table["multitask"], **plan}}
    if "coarse" in plan.get("auxiliaries", {}):
        changed["multitask"].setdefault("groups", PARITY)
    return experiment.from_table("multitask/test", changed, "test")


def both(**plan: Any) -> list[Experiment]:
    return [defined(NODES, auxiliaries=NODE_TASKS, **plan), defined(IMAGES, auxiliaries=IMAGE_TASKS, **plan)]


def loaded(definition: Experiment) -> NodeData | Images:
    return data.load(name=definition.data.name)


def result(definition: Experiment, folder: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    job = Job(definition, 0, folder, device="cpu", **options)
    row = run_seed(job)
    weights = torch.load(job.seed_folder / "best.pt", weights_only=True)["model"]
    return {name: value for name, value in row.items() if name not in ("seconds", "parameters")}, weights


@cache
def _once(options: tuple[tuple[str, Any], ...]) -> Any:
    return LOAD(**dict(options))


LOAD = data.load


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", lambda **options: _once(tuple(options.items())))


# --- without auxiliaries


@pytest.mark.parametrize("zero", [{}, {"weighting": "pcgrad"}, {"schedule": "fade"}])
def test_single_task_learning_on_a_graph(zero: dict[str, Any], tmp_path: Path) -> None:
    """Weights of zero, and other ways of weighting one task, are the model with one head, to the last bit."""
    alone, weights = result(defined(NODES), tmp_path / "a")
    none = dict.fromkeys(("link", "features"), 0.0)
    other, found = result(defined(NODES, auxiliaries=none, **zero), tmp_path / "b")
    assert alone == other and weights.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


SOME = {
    "nodes": {"auxiliaries": {"link": 0.5, "features": 0.5, "degree": 0.5}},
    "images": {"auxiliaries": {"coarse": 0.5, "reconstruction": 0.5, "edges": 0.5}},
    "images, turned": {"auxiliaries": {"coarse": 0.5, "rotation": 0.5}},
    "images, few labels": {"auxiliaries": {"coarse": 0.5, "rotation": 0.5}, "labels_per_class": 3},
    "images, soft": {"auxiliaries": {"coarse": 0.5, "rotation": 0.5}, "sharing": "soft", "strength": 0.0},
}


@pytest.mark.parametrize("case", SOME)
def test_weights_that_are_zero_in_every_epoch(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the auxiliaries are computed, and the main task's numbers are still those without them.

    Where their towers draw no dropout, which would come out of the same generator.
    """
    monkeypatch.setattr("graphattn.training.multitask_building.factor", lambda *_: 0.0)
    table, train = (NODES, {"epochs": 2}) if case == "nodes" else (IMAGES, {"epochs": 2, "batch": 512})
    plan = {"labels_per_class": None, "schedule": "fade", **SOME[case]}
    alone, weights = result(defined(table, train, labels_per_class=plan["labels_per_class"]), tmp_path / "a")
    other, found = result(defined(table, train, **plan), tmp_path / "b")
    assert alone == other
    for name, weight in weights.items():
        if "weighting" not in name:
            there = name.replace("trunk.", "towers.class.") if case == "images, soft" else name
            assert torch.equal(found[there], weight), name


# --- with them


@pytest.mark.parametrize("definition", both(), ids=["nodes", "images"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_every_way_of_sharing_learns_every_task(definition: Experiment, sharing: str) -> None:
    plan = replace(definition.multitask, sharing=sharing)  # type: ignore[type-var]
    definition = replace(definition, multitask=plan)
    known = loaded(definition)
    torch.manual_seed(0)
    model: Any = built(definition, known)
    assert isinstance(model, Learner) and type(model.sharing) is SHARINGS[sharing]
    asked = task(known, definition.train, model, plan=plan)
    assert plan is not None
    assert model.sharing.tasks == ("class", *plan.auxiliaries)
    for batch in asked.batches():
        asked.loss(model, batch).backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # What the tower of `attention` gives is not looked at, its layers are.
    allowed = ("model.layers.1.conv.bias", "heads.attention", "gates.attention")
    own_tower = {name for name in unused if "towers.attention" in name}
    assert {name for name in unused - own_tower if not any(part in name for part in allowed)} == set()
    assert own_tower <= {f"sharing.towers.attention.model.layers.1.conv.{part}" for part in ("bias",)}


@pytest.mark.parametrize("table", [NODES, IMAGES], ids=["nodes", "images"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_resumed_run_ends_as_one_never_stopped(table: dict[str, Any], weighting: str, tmp_path: Path) -> None:
    some = {"link": 0.5, "degree": 0.2} if table is NODES else {"reconstruction": 0.5, "rotation": 0.2}
    definition = defined(table, {"epochs": 4}, auxiliaries=some, weighting=weighting, log_conflicts=True)
    whole, weights = result(definition, tmp_path / "whole")
    epochs = 0

    def stop(row: dict[str, float]) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 3:
            raise KeyboardInterrupt

    job = Job(definition, 0, tmp_path / "cut", device="cpu", checkpoint_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_seed(job, on_epoch=stop)
    assert (job.seed_folder / "last.pt").exists()
    resumed, found = result(definition, tmp_path / "cut", checkpoint_every=0.0)
    assert whole == resumed
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert {f"cosine_{name}" for name in some} <= whole.keys()


@pytest.mark.parametrize("table", [NODES, IMAGES], ids=["nodes", "images"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_mixed_precision(table: dict[str, Any], sharing: str, tmp_path: Path) -> None:
    some = {"auxiliaries": NODE_TASKS if table is NODES else IMAGE_TASKS, "sharing": sharing}
    exact, mixed = (
        result(defined(table, {"epochs": 1, "precision": precision}, **some), tmp_path / precision)[0]
        for precision in ("32-true", "bf16-mixed")
    )
    assert mixed["val_loss"] == pytest.approx(exact["val_loss"], rel=0.1) and mixed["val_loss"] != exact["val_loss"]
    for bad in ({"log_conflicts": True}, {"weighting": "gradnorm"}, {"weighting": "pcgrad"}):
        if sharing == "hard":
            definition = defined(table, {"precision": "bf16-mixed"}, **some, **bad)
            with pytest.raises(ValueError, match=r"train\.precision is 'bf16-mixed', which gives no gradients task by"):
                result(definition, tmp_path / "bad")


@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_main_task_is_taken_out_after_a_step(sharing: str) -> None:
    """Layers that keep what entered them, to be asked about it, keep none of it in copies, nor for inference."""
    definition = defined(NODES, auxiliaries={"link": 0.5, "attention": 0.5}, sharing=sharing)
    known: Any = loaded(definition)
    model: Any = built(definition, known)
    asked = task(known, definition.train, model, plan=definition.multitask)
    asked.loss(model, known).backward()
    asked.loss(model, known)  # and before its gradients are there
    out = model.sharing.only().eval()(known.x, known.edge_index)
    assert torch.equal(out, model.eval()(known.x, known.edge_index)["class"])
    assert all(layer._entered is None for layer in model.modules() if hasattr(layer, "_entered"))


@pytest.mark.parametrize("definition", both(), ids=["nodes", "images"])
def test_measures_are_the_main_tasks_alone(definition: Experiment) -> None:
    """Heads of auxiliaries are not run, and what they would say changes nothing: model choice sees the main task."""
    known = loaded(definition)
    model: Any = built(definition, known)
    asked = task(known, definition.train, model, plan=definition.multitask)
    model.eval()
    before = asked.measures(model)
    score = {"val_loss", "val_accuracy", "test_accuracy"}
    assert before.keys() == score
    for name in definition.multitask.auxiliaries:  # type: ignore[union-attr]
        model.sharing.heads[name] = torch.nn.Flatten(7, 9)  # it cannot be run
    assert asked.measures(model) == before
    alone = model.sharing.only()
    if isinstance(known, NodeData):
        assert torch.equal(alone(known.x, known.edge_index), asked.logits(model))  # type: ignore[attr-defined]


def test_what_auxiliaries_draw_is_no_draw_of_the_models() -> None:
    for definition in both():
        known = loaded(definition)
        states = []
        for plan in (definition.multitask, replace(definition.multitask, auxiliaries={}, groups=None)):  # type: ignore[type-var]
            torch.manual_seed(5)
            model = built(replace(definition, multitask=plan), known)
            states.append(torch.get_rng_state())
            first = next(model.parameters()).detach().clone()
            states.append(first)
        assert torch.equal(states[0], states[2]) and torch.equal(states[1], states[3])


def test_auxiliaries_draw_anew_in_each_step_and_seed() -> None:
    weighting, found = Weighting({"class": 1.0}), set()
    for seed in (0, 1):
        for weighting.step in (0, 1, 2):
            torch.manual_seed(seed)
            first, second = (generator(weighting).initial_seed() for _ in range(2))
            assert first == second
            found.add(first)
    assert len(found) == 6


def test_few_labels_train_and_all_else_is_seen() -> None:
    torch.manual_seed(3)
    definition = defined(IMAGES, auxiliaries={"coarse": 1.0, "rotation": 1.0})
    known = data.load(name="digits-images")
    asked = MultiTaskImages(known, 16, definition.multitask)  # type: ignore[arg-type]
    assert torch.bincount(asked.data.train_labels).tolist() == [3] * 10
    model: Any = built(definition, known)
    shapes = []
    model.sharing.trunk.register_forward_pre_hook(lambda _, args: shapes.append(len(args[0])))
    for batch in asked.batches():
        asked.loss(model, batch)
    assert shapes == [16, 16 + 16, 14, 16 + 16], "labelled, then others and these turned"
    assert model.weighting.step == asked.steps == 2
    assert definition.multitask is not None
    thrice = MultiTaskImages(known, 16, replace(definition.multitask, passes=3))
    orders = [labels.tolist() for _, labels in thrice.batches()]
    assert [len(labels) for labels in orders] == [16, 14] * 3 and thrice.steps == 6
    assert len({tuple(orders[k] + orders[k + 1]) for k in (0, 2, 4)}) == 3, "each pass in an order of its own"
    nodes = MultiTaskNodes(data.load(name="digits"), Plan(labels_per_class=4))
    assert torch.bincount(nodes.data.y[nodes.data.train]).tolist() == [4] * 10
    assert set(nodes.data.train.tolist()) <= set(data.load(name="digits").train.tolist())


def test_few_of_each_class_are_the_seeds() -> None:
    labels = torch.arange(40) % 4
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        torch.rand(seed)
        found.append(few_of_each(labels, 3, 4, "set"))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.bincount(labels[found[2]]).tolist() == [3] * 4
    with pytest.raises(ValueError, match="labels_per_class is 11, and set has 10 of class 0"):
        few_of_each(labels, 11, 4, "set")


@pytest.mark.parametrize(("sharing", "free"), [("hard", 1), ("cross-stitch", 3)])
def test_what_weighs_the_losses_or_the_towers_does_not_decay(sharing: str, free: int) -> None:
    plan = {"auxiliaries": {"link": 1.0}, "weighting": "uncertainty", "sharing": sharing}
    definition = defined(NODES, {"decay": "all"}, **plan)
    model = built(definition, data.load(name="digits"))
    optimizer = optimizer_of(model, definition.train)
    assert optimizer is not None
    by_decay = {bool(group["weight_decay"]): len(group["params"]) for group in optimizer.param_groups}
    assert by_decay[False] == free and by_decay[True] == len(list(model.parameters())) - free


# --- what is refused


def test_sets_and_models_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="unknown auxiliary task on one graph 'rotation'"):
        built(defined(NODES, auxiliaries={"rotation": 1.0}), data.load(name="digits"))
    with pytest.raises(ValueError, match="unknown auxiliary task on images 'link'"):
        built(defined(IMAGES, auxiliaries={"link": 1.0}), data.load(name="digits-images"))
    table = {**NODES, "model": {"name": "gat"}}
    definition = defined(table, auxiliaries={"attention": 1.0})
    model = built(definition, data.load(name="digits"))
    asked = MultiTaskNodes(data.load(name="digits"), definition.multitask)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="take the model supergat"):
        asked.loss(model, data.load(name="digits"))


def test_sections_that_do_not_go_together() -> None:
    known, plan = data.load(name="digits"), Plan()
    model = built(defined(NODES), known)
    for train in ({"batch": 8, "neighbors": [2, 2]},):
        definition = defined(NODES, train)
        with pytest.raises(ValueError, match=r"\[multitask\] is for a model with features on one graph as a whole"):
            task(known, definition.train, model, plan=plan)
    with pytest.raises(ValueError, match=r"\[labels\] are for a model of one task"):
        built(experiment.from_table("x", {**NODES, "labels": {}}, "test"), known)
    with pytest.raises(ValueError, match="does not move what the auxiliaries see"):
        task(
            data.load(name="digits-images"),
            defined(IMAGES, {"augment": "crop-flip"}).train,
            model,
            plan=Plan(labels_per_class=1),
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"auxiliaries": {"link": -1.0}}, "link is -1.0"),
        ({"strength": float("nan"), "sharing": "soft"}, "strength is nan"),
        ({"experts": 0}, "experts is 0"),
        ({"width": 0}, "width is 0"),
        ({"labels_per_class": 0}, "labels_per_class is 0"),
        ({"passes": 0}, "passes is 0"),
        ({"passes": 2}, "passes is 2, which is of few labels only"),
        (
            {"schedule": "fade", "weighting": "dwa"},
            "schedule is 'fade', and weighting = 'dwa' finds weights of its own",
        ),
        ({"groups": [[0]]}, "needed groups of classes for 'coarse'"),
        ({"auxiliaries": {"coarse": 1.0}, "groups": None}, "needed groups of classes for 'coarse'"),
        ({"strength": 2.0}, "strength is 2.0, which sharing = 'hard' does not look at"),
        ({"experts": 5, "sharing": "soft"}, "experts is 5, which sharing = 'soft' does not look at"),
        ({"weighting": "pcgrad", "sharing": "soft", "auxiliaries": {"link": 1.0}}, "weighting is 'pcgrad', and in"),
        ({"log_conflicts": True, "sharing": "soft-trace-norm"}, "log_conflicts is True, and in"),
        ({"weighting": "dwa"}, "weighting is 'dwa', which is nothing without auxiliaries"),
        ({"sharing": "soft"}, "sharing is 'soft', which is nothing without auxiliaries"),
        ({"schedule": "fade"}, "schedule is 'fade', which is nothing without auxiliaries"),
        ({"log_conflicts": True}, "log_conflicts is True, which is nothing without auxiliaries"),
        ({"sharing": "firm"}, "unknown value for test, .multitask.: sharing: 'firm'"),
    ],
)
def test_plans_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment.from_table("x", {**NODES, "multitask": wrong}, "test")


def test_a_plan_changes_the_key_and_its_absence_does_not() -> None:
    table = {key: value for key, value in NODES.items() if key != "multitask"}
    plain = experiment.from_table("x", table, "test")
    assert plain.multitask is None
    assert len({plain.key(), defined(NODES).key(), defined(NODES, labels_per_class=3).key()}) == 3
    assert defined(IMAGES, passes=1).key() == defined(IMAGES).key() != defined(IMAGES, passes=2).key()


def test_what_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[multitask\] is for images, or nodes of one graph, .*, ppi-like has none"):
        built(defined(NODES), data.load(name="ppi-like"))
    table = {**NODES, "model": {"name": "label-propagation"}}
    with pytest.raises(ValueError, match="label-propagation gives no features for other tasks"):
        built(defined(table), data.load(name="digits"))
    with pytest.raises(ValueError, match=r"train\.recompute is for a model of one task"):
        built(defined(NODES, {"recompute": True}), data.load(name="digits"))
    nodes = data.load(name="digits")
    with pytest.raises(ValueError, match=r"passes of \[multitask\] is 2, and an epoch of digits is one step"):
        task(nodes, defined(NODES).train, built(defined(NODES), nodes), plan=Plan(labels_per_class=3, passes=2))
    known = data.load(name="digits-images")
    with pytest.raises(ValueError, match=r"train\.log_gradient is of the first layer of a model of one task"):
        task(known, defined(IMAGES, {"log_gradient": True}).train, built(defined(IMAGES), known), plan=Plan())


def test_a_step_is_not_replayed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[multitask\] draws and counts between steps"):
        prepared(Job(defined(IMAGES), 0, tmp_path, device="cpu", cuda_graph=True))


def test_epochs_are_counted_and_gradients_compared_at_their_ends() -> None:
    definition = defined(IMAGES, {"batch": 8}, auxiliaries={"coarse": 1.0, "edges": 1.0}, log_conflicts=True)
    known, plan = loaded(definition), definition.multitask
    assert plan is not None
    model: Any = built(definition, known)
    asked = task(known, definition.train, model, plan=plan)
    assert asked.steps == 4
    for epoch in range(3):
        seen = []
        for batch in asked.batches():
            model.weighting.cosines = None
            asked.loss(model, batch)
            seen.append(model.weighting.cosines is not None)
        assert seen == [False, False, False, True]
        assert (model.weighting.step, model.weighting.epoch) == (4 * (epoch + 1), epoch + 1)
    model.eval()
    found = asked.measures(model)
    expected = model.weighting.cosines[0].tolist()
    assert [found["cosine_coarse"], found["cosine_edges"]] == pytest.approx(expected[1:], abs=1e-4)


@pytest.mark.parametrize("few", [None, 3])
def test_each_task_is_asked_about_its_own_images(few: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation mode images do not depend on the others in a batch: each output is that of the task's images."""
    definition = defined(IMAGES, auxiliaries=IMAGE_TASKS, labels_per_class=few)
    known = loaded(definition)
    assert isinstance(known, Images) and definition.multitask is not None
    model: Any = built(definition, known).eval()
    asked = MultiTaskImages(known, 16, definition.multitask)
    seen: dict[str, tuple[Tensor, ...]] = {}
    losses: dict[str, Tensor] = {}

    def one_loss(model: Any, found: dict[str, Tensor], *rest: Any) -> Tensor:
        losses.update(found)
        return found["class"]

    monkeypatch.setattr("graphattn.training.multitask_images.one_loss", one_loss)
    for name, asks in asked.tasks.items():
        monkeypatch.setattr(asks, "loss", lambda *of, name=name: seen.update({name: of}) or of[0].sum())
    images, labels = batch = next(asked.batches())
    asked.loss(model, batch)
    torch.testing.assert_close(losses["class"], F.cross_entropy(model(images)["class"], labels))
    for name, (output, its, _) in seen.items():
        torch.testing.assert_close(output, model(its)[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(seen["coarse"][1], images) == (few is None)
    assert torch.equal(seen["coarse"][1], seen["edges"][1])
    turns = seen["rotation"][2]
    assert torch.equal(seen["rotation"][1], turned(seen["edges"][1], turns)) and len(turns.unique()) > 1
    if few is not None:
        pool = {tuple(x.tolist()): int(y) for x, y in zip(known.train.flatten(1), known.train_labels, strict=True)}
        drawn = [tuple(round(v * 255) for v in x.tolist()) for x in seen["coarse"][1].flatten(1)]
        assert [pool[x] for x in drawn] == seen["coarse"][2].tolist() and len(set(drawn)) == 16
