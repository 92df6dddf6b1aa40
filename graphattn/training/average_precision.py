"""Average precision of boxes and of masks, as COCO measures it: faster-coco-eval computes it.

torchmetrics' MeanAveragePrecision drives the same library, but is there only where torchvision is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from graphattn.data import Scenes
from graphattn.models.detector import Found

MEASURES = {"ap": "bbox", "mask_ap": "segm"}


def average_precision(found: Found, scenes: Scenes, num_classes: int) -> dict[str, float]:
    """`ap` of the boxes and `mask_ap`, in percent: the mean over classes that occur, and over overlaps 0.5, 0.55, ...,
    0.95 from which on an object counts as found, of the precision at recalls 0, 0.01, ..., 1.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    coco, evaluate, mask = _library()
    height, width = scenes.masks.shape[1:]
    truth = coco(
        {
            "images": [{"id": i, "height": height, "width": width} for i in range(len(scenes))],
            "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
            "annotations": _annotations(mask, scenes.image_of, scenes.labels, scenes.boxes, scenes.masks),
        }
    )
    if not len(found.scores):
        return dict.fromkeys(MEASURES, 0.0)
    guesses = _annotations(mask, found.image_of, found.labels, found.boxes, found.masks)
    for guess, score in zip(guesses, found.scores.tolist(), strict=True):
        guess["score"] = score
    judged = truth.loadRes(guesses)
    measures = {}
    for name, kind in MEASURES.items():
        run = evaluate(truth, judged, kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
        measures[name] = round(100 * float(run.stats[0]), 4)
    return measures


def _annotations(mask: Any, image_of: Tensor, labels: Tensor, boxes: Tensor, masks: Tensor) -> list[dict[str, Any]]:
    runs = mask.encode(np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8)))
    areas = masks.flatten(1).sum(1).tolist()
    columns = (image_of.tolist(), labels.tolist(), boxes.tolist(), runs, areas)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": label,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": run,
            "area": area,
            "iscrowd": 0,
        }
        for number, (image, label, (left, top, right, bottom), run, area) in enumerate(zip(*columns, strict=True), 1)
    ]


def _library() -> Any:
    try:
        from faster_coco_eval import COCO, COCOeval_faster, mask
    except ImportError as error:
        raise ImportError("average precision needs faster-coco-eval: pip install 'graphattn[detection]'") from error
    return COCO, COCOeval_faster, mask
