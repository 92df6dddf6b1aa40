"""Average precision: the library's numbers are those of its definition, written out."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from graphattn.data import Scenes, shapes
from graphattn.models.detector import Found
from graphattn.training.average_precision import average_precision

SCENES = shapes(train=12, val=1, test=1).train


def truth_as_found(scenes: Scenes, scores: Tensor | None = None) -> Found:
    scores = torch.ones(len(scenes.labels)) if scores is None else scores
    return Found(scenes.image_of, scores, scenes.labels, scenes.boxes, scenes.masks)


def some_of(found: Found, kept: Tensor) -> Found:
    return Found(*(part[kept] for part in found))


def box_overlap(a: Tensor, b: Tensor) -> float:
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    both = (high - low).clamp(min=0).prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both))


def mask_overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def by_definition(found: Found, scenes: Scenes, masks: bool) -> float:
    """Mean over classes and thresholds; each threshold greedily, the surest first, each object found at most once."""
    means = []
    for label in scenes.labels.unique():
        for step in range(10):
            threshold, taken, hits = 0.5 + 0.05 * step, set(), []
            for guess in found.scores.argsort(descending=True, stable=True).tolist():
                if found.labels[guess] != label:
                    continue
                best, which = threshold - 1e-9, None
                for truth in torch.where((scenes.image_of == found.image_of[guess]) & (scenes.labels == label))[
                    0
                ].tolist():
                    pair = (found.masks, scenes.masks) if masks else (found.boxes, scenes.boxes)
                    overlap = (mask_overlap if masks else box_overlap)(pair[0][guess], pair[1][truth])
                    if truth not in taken and overlap >= best:
                        best, which = overlap, truth
                taken |= {which} - {None}
                hits.append(which is not None)
            right, count = torch.tensor(hits).cumsum(0), int((scenes.labels == label).sum())
            precision = right / torch.arange(1, len(hits) + 1)
            at_recalls = [precision[right / count >= r / 100 - 1e-9] for r in range(101)]
            means.append(sum(float(p.max()) if len(p) else 0.0 for p in at_recalls) / 101)
    return 100 * sum(means) / len(means)


def test_the_truth_is_perfect() -> None:
    assert average_precision(truth_as_found(SCENES), SCENES, 3) == {"ap": 100.0, "mask_ap": 100.0}


def test_nothing_found_is_nothing() -> None:
    none = some_of(truth_as_found(SCENES), torch.tensor([], dtype=torch.int64))
    assert average_precision(none, SCENES, 3) == {"ap": 0.0, "mask_ap": 0.0}


def test_numbers_are_those_of_the_definition() -> None:
    """Boxes that are shifted, masks that are eroded, wrong labels, some twice and some not at all."""
    count = len(SCENES.labels)
    chosen = torch.cat([torch.randperm(count)[: count - 4], torch.randint(count, (8,))])
    found = some_of(truth_as_found(SCENES, torch.ones(count)), chosen)
    wrong = torch.rand(len(chosen)) < 0.2
    masks = found.masks.roll(1, dims=2) & found.masks
    masks[::3] = found.masks[::3].roll((2, 2), dims=(1, 2))
    found = found._replace(
        scores=torch.rand(len(chosen)),
        labels=torch.where(wrong, (found.labels + 1) % 3, found.labels),
        boxes=found.boxes + torch.randn(len(chosen), 4),
        masks=masks,
    )
    measured = average_precision(found, SCENES, 3)
    assert measured["ap"] == pytest.approx(by_definition(found, SCENES, masks=False), abs=0.01)
    assert measured["mask_ap"] == pytest.approx(by_definition(found, SCENES, masks=True), abs=0.01)
    assert 5 < measured["ap"] < 95 and 5 < measured["mask_ap"] < 95
    assert measured["ap"] != measured["mask_ap"]


def test_classes_that_do_not_occur_do_not_count() -> None:
    assert average_precision(truth_as_found(SCENES), SCENES, 7) == {"ap": 100.0, "mask_ap": 100.0}


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"needs faster-coco-eval: pip install 'graphattn\[detection\]'"):
        average_precision(truth_as_found(SCENES), SCENES, 3)
