"""Images in batches: what a step sees, what is measured, and runs that are killed, diverge or end well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn

from graphattn import experiment
from graphattn.data import Images, load
from graphattn.data.augment import PAD
from graphattn.experiment import Experiment
from graphattn.models import IMAGE_MODELS, MODELS
from graphattn.training import Diverged, Finished, ImageClassification, Job, fit, prepared, run_seed, summary, task
from graphattn.training.image_classification import first_gradient
from graphattn.training.stopping import Last

CLASSES = 3


def made(train: int = 22, val: int = 6, test: int = 9, channels: int = 2, size: int = 6) -> Images:
    """Noise, and a bright row that shows the class."""
    count = train + val + test
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    images[torch.arange(count), :, 1 + labels] = 255
    parts = zip(images.split([train, val, test]), labels.split([train, val, test]), strict=True)
    offset, scale = torch.full((channels, 1, 1), 10.0), torch.full((channels, 1, 1), 200.0)
    return Images("rows", *(tensor for part in parts for tensor in part), CLASSES, offset, scale)


class Small(nn.Module):
    """Convolution, batch norm, mean over the columns, which leaves the rows; with dropout, so that training draws."""

    def __init__(
        self, in_channels: int, num_classes: int, image_size: int, *, hidden: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.head = nn.Linear(hidden * image_size, num_classes)
        self.dropout = dropout
        self.formats: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.formats.append(images.is_contiguous(memory_format=torch.channels_last))
        hidden = F.relu(self.norm(self.conv(images))).mean(3).flatten(1)
        return self.head(F.dropout(hidden, self.dropout, self.training))


class Sized(nn.Module):
    """A model that need not know the size."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for models in (MODELS, IMAGE_MODELS):
        monkeypatch.setitem(models, "small", Small)
        monkeypatch.setitem(models, "sized", Sized)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Images:
    """What a definition finds as its data."""
    found = made()
    monkeypatch.setattr("graphattn.data.load", lambda *args, **options: found)
    return found


TRAIN = {
    "lr": 0.1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "schedule": "one-cycle",
    "epochs": 5,
    "stop": "last",
    "batch": 4,
    "augment": "crop-flip",
}


def defined(model: dict[str, Any] | None = None, **train: Any) -> Experiment:
    model = model or {"name": "small", "dropout": 0.2}
    table = {"title": "Rows", "data": {"name": "digits-images"}, "model": model, "train": TRAIN | train}
    return experiment.from_table("rows/small", table, "here")


def job(folder: Path, definition: Experiment | None = None) -> Job:
    return Job(definition or defined(), 0, folder, device="cpu", checkpoint_every=0.0)


def test_an_epoch_sees_every_image_once_in_another_order() -> None:
    data = made()
    asked = ImageClassification(data, 4)
    epochs = [list(asked.batches()) for _ in range(2)]
    everything = data.pixels(data.train).flatten(1).tolist()
    for batches in epochs:
        assert [len(images) for images, _ in batches] == [4, 4, 4, 4, 4, 2], "the last takes those left over"
        assert asked.steps == len(batches)
        seen = torch.cat([images for images, _ in batches]).flatten(1).tolist()
        assert sorted(seen) == sorted(everything)
        labels = torch.cat([labels for _, labels in batches]).tolist()
        assert labels == [int(data.train_labels[everything.index(image)]) for image in seen]
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


def test_the_order_and_the_moves_come_from_torchs_generator() -> None:
    asked = ImageClassification(made(), 4, augment="crop-flip")

    def epoch(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([images for images, _ in asked.batches()])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))


def test_each_image_is_moved_by_itself_before_it_is_scaled() -> None:
    data = made(train=60)
    asked = ImageClassification(data, 60, augment="crop-flip")
    ((images, labels),) = asked.batches()
    back = (images * data.scale + data.offset).round().to(torch.uint8)
    padded = F.pad(data.train, (PAD,) * 4)
    size = data.image_size
    places = [(y, x) for y in range(2 * PAD + 1) for x in range(2 * PAD + 1)]
    cuts = torch.stack([padded[:, :, y : y + size, x : x + size] for y, x in places], 1)
    cuts = torch.cat([cuts, cuts.flip(-1)], 1)  # [60, 162, C, H, W]
    found = set()
    for image, label in zip(back, labels, strict=True):
        same = (cuts == image).flatten(2).all(2).nonzero()
        assert any(data.train_labels[k] == label for k in same[:, 0].tolist())
        found.add(int(same[0, 1]))
    assert len(found) > 20, "they do not all move alike"


def test_labels_are_smoothed_in_training_alone() -> None:
    data = made()
    logits = torch.tensor([2.0, 0.0, -1.0])
    asked = ImageClassification(data, 22, label_smoothing=0.3)
    ((images, labels),) = asked.batches()

    def model(images: Tensor) -> Tensor:
        return logits.expand(len(images), -1)

    logs = logits.log_softmax(0)
    due = -(0.7 * logs[labels].mean() + 0.3 * logs.mean())
    torch.testing.assert_close(asked.loss(model, (images, labels)), due)  # type: ignore[arg-type]
    plain = -logs[data.val_labels].mean()
    assert asked.measures(model)["val_loss"] == pytest.approx(float(plain))  # type: ignore[arg-type]


class Reading(nn.Module):
    """Finds the bright row, but takes class 0 for class 1; counts the images it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(len(images))
        rows = images.mean((1, 3))[:, 1:4]
        return rows[:, [1, 0, 2]] * torch.tensor([1.0, 0.0, 1.0])


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_measures_are_of_all_images_however_many_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphattn.training.image_classification._AT_ONCE", at_once)
    data, model = made(val=6, test=9), Reading()
    found = ImageClassification(data, 4).measures(model)
    logits = model(data.pixels(data.val))
    assert found["val_loss"] == pytest.approx(float(F.cross_entropy(logits, data.val_labels)), rel=1e-5)
    for part in ("val", "test"):
        right = (model(data.pixels(getattr(data, part))).argmax(1) == getattr(data, f"{part}_labels")).float().mean()
        assert found[f"{part}_accuracy"] == pytest.approx(100 * float(right), abs=1e-4)
    assert list(found) == ["val_loss", "val_accuracy", "test_accuracy"]
    assert max(model.given) <= max(at_once, 9)


def test_without_validation_none_is_claimed() -> None:
    assert list(ImageClassification(made(val=0), 4).measures(Reading())) == ["test_accuracy"]


def test_the_best_epoch_is_told_beside_the_kept_one() -> None:
    history = [{"test_accuracy": x, "train_loss": 1 / x} for x in (50.0, 80.0, 70.0)]
    found = ImageClassification(made(), 4).over_epochs(history, kept=2)
    assert found == {"best_test_accuracy": 80.0, "train_loss": 1 / 70}


def test_a_run_learns_and_says_what_it_took(images: Images, tmp_path: Path) -> None:
    definition = defined({"name": "small"}, augment="none", epochs=12)
    result = run_seed(job(tmp_path, definition))
    assert result["test_accuracy"] == 100.0
    assert result["best_epoch"] == 11, "the last epoch is kept"
    rows = (tmp_path / "seed-0" / "metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,train_loss,val_loss,val_accuracy,test_accuracy"
    assert result["train_loss"] == float(rows[-1].split(",")[1])
    assert result["best_test_accuracy"] == max(float(row.split(",")[4]) for row in rows[1:])
    whole = summary(definition, [Finished(0, result)], tmp_path, "cpu")
    assert list(whole["result"]) == [
        "val_loss",
        "val_accuracy",
        "test_accuracy",
        "best_test_accuracy",
        "train_loss",
        "epochs",
        "seconds",
    ]
    json.dumps(whole, allow_nan=False)


def state(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "seed-0" / "best.pt", weights_only=True)["model"]


class Killed(BaseException):
    """As if the process had ended here."""


RECIPES: dict[str, dict[str, Any]] = {
    "one-cycle": {},
    "steps": {"schedule": "steps", "milestones": [2], "nesterov": True, "warmup": 1, "warmup_lr": 0.01},
    "adabound": {"optimizer": "adabound", "momentum": 0.0, "schedule": "cosine", "lr": 0.01},
    "chosen": {"stop": "best-score", "optimizer": "adamw", "momentum": 0.0, "schedule": "constant"},
    "narrow": {"precision": "bf16-mixed", "channels_last": True},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_killed_run_ends_as_one_never_stopped(images: Images, tmp_path: Path, recipe: dict[str, Any]) -> None:
    definition = defined(**recipe)
    whole = run_seed(job(tmp_path / "whole", definition))
    for epoch in (0, 2, 4):
        folder = tmp_path / f"killed-{epoch}"

        def kill(row: dict[str, float], epoch: int = epoch) -> None:
            if row["epoch"] == epoch:
                raise Killed

        with pytest.raises(Killed):
            run_seed(job(folder, definition), kill)
        again = run_seed(job(folder, definition))
        assert {**again, "seconds": 0} == {**whole, "seconds": 0}
        due, found = state(tmp_path / "whole"), state(folder)
        assert all(torch.equal(due[name], found[name]) for name in due), f"killed at epoch {epoch}"
        curves = [(path / "seed-0" / "metrics.csv").read_text() for path in (tmp_path / "whole", folder)]
        assert curves[0] == curves[1]


def test_a_rate_too_high_ends_the_run_and_names_the_checkpoint(images: Images, tmp_path: Path) -> None:
    definition = defined(lr=1e20, schedule="steps", milestones=[3], warmup=2, warmup_lr=0.01, momentum=0.0)
    with pytest.raises(
        Diverged, match=r"at epoch [23]; the last good checkpoint is .*last\.pt.*lower train\.lr \(it is 1e\+20\)"
    ):
        run_seed(job(tmp_path, definition))
    content = torch.load(tmp_path / "seed-0" / "last.pt", weights_only=True)
    assert content["progress"]["epoch"] >= 2


def test_the_rate_of_each_step_is_the_schedules(images: Images, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            seen.append(self.param_groups[0]["lr"])
            super().step(closure)

    model = Small(2, CLASSES, 6)
    fit(
        model,
        ImageClassification(images, 4),
        Watching(model.parameters(), lr=0.5),
        Last(),
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=3,
        folder=tmp_path,
        rate=lambda step: 1 / (step + 1),
    )
    assert seen == [0.5 / (step + 1) for step in range(18)]


def prepared_model(definition: Experiment) -> Any:
    return prepared(job(Path(), definition))[0]


def test_a_model_is_told_the_size_if_it_asks(images: Images) -> None:
    assert prepared_model(defined({"name": "small", "hidden": 5})).head.weight.shape == (CLASSES, 5 * 6)
    assert prepared_model(defined({"name": "sized"})).head.weight.shape == (CLASSES, 2)


def test_weights_and_images_lie_by_pixel(images: Images, tmp_path: Path) -> None:
    definition = defined(channels_last=True, epochs=1)
    model = prepared_model(definition)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    asked = ImageClassification(images, 4, channels_last=True)
    for images_seen, labels in asked.batches():
        asked.loss(model, (images_seen, labels))
    asked.measures(model)
    assert model.formats and all(model.formats)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler uses it
def test_a_compiled_model_gives_the_same(images: Images) -> None:
    torch._dynamo.reset()
    plain, compiled = prepared_model(defined(compile=False)), prepared_model(defined(compile=True))
    assert compiled._compiled_call_impl is not None
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    x = images.pixels(images.test)
    torch.testing.assert_close(compiled.eval()(x), plain.eval()(x))


def test_the_first_layers_gradient_is_that_of_the_epochs_last_step(images: Images, tmp_path: Path) -> None:
    definition = defined(
        {"name": "small"}, augment="none", momentum=0.0, schedule="constant", batch=22, log_gradient=True
    )
    model, _, _ = prepared(job(tmp_path, definition))
    before = model.conv.weight.detach().clone()
    result = run_seed(job(tmp_path, replace(definition, train=replace(definition.train, epochs=1))))
    moved = state(tmp_path)["conv.weight"] - before  # by the rate times the gradient, which decay is added to
    gradient = (-moved / definition.train.lr - definition.train.weight_decay * before).abs().mean()
    assert result["gradient"] == pytest.approx(float(gradient), rel=1e-3)
    assert "gradient" in (tmp_path / "seed-0" / "metrics.csv").read_text().splitlines()[0]


def test_of_a_layer_all_gradients_count_and_of_others_none() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(11)))
    assert first_gradient(model) != first_gradient(model), "NaN, as nothing was stepped"
    for k, layer in enumerate(model, 1):
        layer.weight.grad, layer.bias.grad = torch.full((1, 1), -2.0 * k), torch.full((1,), 1.0 * k)
    assert first_gradient(model) == 1.5
    assert first_gradient(model[3]) == 6.0, "a layer by itself"


def test_images_that_are_not_square_have_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    long = made()
    oblong = Images(**{**vars(long), "train": long.train[:, :, :4]})
    monkeypatch.setattr("graphattn.data.load", lambda *args, **options: oblong)
    with pytest.raises(ValueError, match="rows has images of 4 x 6, needed square ones"):
        prepared_model(defined())
    assert prepared_model(defined({"name": "sized"})).head.weight.shape == (CLASSES, 2)


def test_graphs_and_images_are_not_mixed_up(images: Images) -> None:
    with pytest.raises(ValueError, match=r"rows needs a model of images, mlp is none: there are .*resnet"):
        prepared_model(defined({"name": "mlp"}))


def test_images_and_graphs_are_not_mixed_up() -> None:
    table = {"title": "x", "data": {"name": "digits"}, "model": {"name": "resnet"}}
    with pytest.raises(ValueError, match=r"digits needs a model of graphs, resnet is none: there are cheb, .*gat"):
        prepared_model(experiment.from_table("digits/resnet", table, "here"))


def asked_for(definition: Experiment, data: Any) -> Any:
    return task(data, definition.train, Reading(), definition.labels, definition.correct_and_smooth)


def test_the_recipe_reaches_the_task() -> None:
    asked = asked_for(defined(label_smoothing=0.25, channels_last=True, batch=5), made())
    assert isinstance(asked, ImageClassification)
    assert (asked.augment, asked.label_smoothing, asked.steps) == ("crop-flip", 0.25, 5)
    assert next(asked.batches())[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"batch": None}, "rows has images: needed train.batch"),
        ({"neighbors": [3]}, "train.neighbors is for graphs, rows has images: leave it out"),
        ({"recompute": True}, "train.recompute is for graphs, rows has images: leave it out"),
    ],
)
def test_options_of_graphs(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asked_for(defined(**train), made())


def test_sections_of_graphs(images: Images) -> None:
    table = {"title": "x", "data": {"name": "rows"}, "model": {"name": "small"}, "train": TRAIN}
    for section in ("labels", "correct_and_smooth"):
        with pytest.raises(ValueError, match=rf"\[{section}\] is for graphs, rows has images: leave it out"):
            asked_for(experiment.from_table("x", {**table, section: {}}, "here"), made())
    with pytest.raises(ValueError, match=r"\[readout\] is for graphs, rows has images: leave it out"):
        prepared_model(experiment.from_table("x", {**table, "readout": {}}, "here"))


@pytest.mark.parametrize("stop", ["none", "best-score"])
def test_nothing_is_chosen_without_validation(stop: str) -> None:
    with pytest.raises(ValueError, match=f"train.stop is '{stop}', which chooses an epoch by validation images, and"):
        asked_for(defined(stop=stop), made(val=0))
    asked_for(defined(stop=stop), made(val=1))
    asked_for(defined(stop="last"), made(val=0))


@pytest.mark.parametrize(
    "option",
    [
        {"augment": "crop-flip"},
        {"label_smoothing": 0.1},
        {"channels_last": True},
        {"compile": True},
        {"log_gradient": True},
    ],
)
def test_options_of_images(option: dict[str, Any]) -> None:
    table = {"title": "x", "data": {"name": "digits"}, "model": {"name": "mlp"}, "train": option}
    definition = experiment.from_table("digits/mlp", table, "here")
    with pytest.raises(ValueError, match=f"train.{next(iter(option))} is for images, digits has none: leave it out"):
        asked_for(definition, load("digits"))


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_ranks_share_each_batch(augment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images, moved alike, as one process has."""

    def epochs() -> list[list[Tensor]]:
        torch.manual_seed(5)
        asked = ImageClassification(made(train=22), 6, augment=augment)
        return [[images for images, _ in asked.batches()] for _ in range(2)]

    whole, shares = epochs(), []
    monkeypatch.setattr("graphattn.training.ranks.same_random_state", lambda: None)  # there are no others to ask
    for rank in (0, 1):
        monkeypatch.setattr("graphattn.training.ranks.number", lambda rank=rank: (rank, 2))
        shares.append(epochs())
    for alone, first, second in zip(whole, *shares, strict=True):
        for batch, one, other in zip(alone, first, second, strict=True):
            assert torch.equal(batch[0::2], one) and torch.equal(batch[1::2], other)
