"""A detector of points: what its maps mean, and the losses that say so, against loops written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn.depth import MRLALight, wrap
from graphattn.models.detection_loss import detection_loss, dice_loss, focal_loss, heatmap
from graphattn.models.detector import BASIS, FILTERS, HIDDEN, CenterNet, Found, Maps, at, decode, mask_logits
from graphattn.models.pyramid import Pyramid
from graphattn.models.resnet import CifarResNet


def detector() -> CenterNet:
    backbone = wrap(CifarResNet(3, 1, depth=8, width=4), "layer*.*", MRLALight(), torch.zeros(1, 3, 16, 16))
    stages = ["layer1", "layer2", "layer3"]
    return CenterNet(Pyramid(backbone, stages, torch.zeros(1, 3, 16, 16), channels=8, levels=1), 3)


def some_maps(
    batch: int = 2, classes: int = 3, height: int = 8, width: int = 8, dtype: torch.dtype = torch.float32
) -> Maps:
    channels = (classes, 2, 2, FILTERS, BASIS)
    return Maps(*(torch.randn(batch, c, height, width, dtype=dtype) for c in channels))


# Objects in two images of 32 x 32, so that cells of 8 x 8 maps have 4 pixels: the second and third share an image and a
# class, the last has its centre on the edge of a cell.
IMAGE_OF = torch.tensor([0, 1, 1, 1])
LABELS = torch.tensor([2, 0, 0, 1])
BOXES = torch.tensor(
    [[1.0, 2.0, 12.0, 9.0], [10.0, 10.0, 23.0, 31.0], [12.0, 12.0, 20.0, 18.0], [4.0, 16.0, 12.0, 32.0]]
)


def masks() -> Tensor:
    found = torch.zeros(4, 32, 32, dtype=torch.bool)
    for mask, box in zip(found, BOXES.long().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
    return found


def test_maps_have_the_size_of_the_finest_of_the_pyramid() -> None:
    maps = detector()(torch.randn(2, 3, 16, 24))
    assert {tuple(m.shape[2:]) for m in maps} == {(16, 24)}
    assert [m.shape[1] for m in maps] == [3, 2, 2, FILTERS, BASIS]
    assert float(maps.heat.detach().sigmoid().mean()) == pytest.approx(0.1, abs=0.1)


def test_all_that_learns_gets_a_gradient() -> None:
    model = detector()
    maps = model(torch.randn(2, 3, 32, 32))
    detection_loss(maps, IMAGE_OF, LABELS, BOXES, masks()).backward()
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == learns


def test_an_objects_own_network_is_two_convolutions() -> None:
    basis, image_of = torch.randn(2, BASIS, 5, 7), torch.tensor([1, 0, 1])
    filters, centres = torch.randn(3, FILTERS), torch.rand(3, 2) * 5
    found = mask_logits(basis, image_of, filters, centres)
    for m in range(3):
        weights, rest = (
            filters[m, : HIDDEN * (BASIS + 2)].view(HIDDEN, BASIS + 2, 1, 1),
            filters[m, HIDDEN * (BASIS + 2) :],
        )
        down, right = torch.meshgrid(torch.arange(5) + 0.5, torch.arange(7) + 0.5, indexing="ij")
        places = torch.stack([(right - centres[m, 0]) / 8, (down - centres[m, 1]) / 8])
        seen = torch.cat([basis[image_of[m]], places])[None]
        hidden = F.conv2d(seen, weights, rest[:HIDDEN]).relu()
        expected = F.conv2d(hidden, rest[HIDDEN : 2 * HIDDEN].view(1, HIDDEN, 1, 1), rest[2 * HIDDEN :])
        torch.testing.assert_close(found[m], expected[0, 0], rtol=1e-4, atol=1e-4)


def test_heatmaps_are_one_at_the_centres_and_the_larger_of_two() -> None:
    whole, size = torch.tensor([[1.0, 2.0], [4.0, 5.0], [3.0, 5.0]]), torch.tensor([[6.0, 3.0], [2.0, 2.0], [5.0, 4.0]])
    image_of, labels = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 0])
    found = heatmap(image_of, labels, whole, size, torch.Size((2, 3, 8, 9)))
    expected = torch.zeros(2, 3, 8, 9)
    for m in range(3):
        for row in range(8):
            for column in range(9):
                x, y = (column - whole[m, 0]) / (size[m, 0] / 6), (row - whole[m, 1]) / (size[m, 1] / 6)
                cell = expected[image_of[m], labels[m], row]
                cell[column] = max(cell[column], math.exp(-(x * x + y * y) / 2))
    torch.testing.assert_close(found, expected)
    assert (found == 1).sum() == 3


def test_focal_loss() -> None:
    logits, target = torch.randn(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    target[0, 0, 1, 1] = target[0, 1, 2, 0] = 1.0
    expected = 0.0
    for logit, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        expected -= (1 - p) ** 2 * math.log(p) if t == 1 else (1 - t) ** 4 * p**2 * math.log(1 - p)
    assert float(focal_loss(logits, target)) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(focal_loss(torch.tensor([-200.0, 200.0]), torch.tensor([1.0, 0.0])))


def test_dice_loss() -> None:
    target = torch.zeros(2, 4, 4)
    target[0, :2] = target[1, 1:3] = 1
    sure = (2 * target - 1) * 50
    torch.testing.assert_close(dice_loss(sure, target), torch.zeros(2))
    torch.testing.assert_close(dice_loss(sure.flip(0), target), torch.full((2,), 0.5))  # half of each is the other's


def test_the_loss_is_the_sum_of_its_parts() -> None:
    maps, drawn = some_maps(), masks()
    cells, expected = [(1, 1), (5, 4), (3, 4), (6, 2)], 0.0
    parts = {"size": 0.0, "offset": 0.0}
    for m, (row, column) in enumerate(cells):
        left, top, right, bottom = (BOXES[m] / 4).tolist()
        said = [float(v) for v in (*maps.size[IMAGE_OF[m], :, row, column], *maps.offset[IMAGE_OF[m], :, row, column])]
        parts["size"] += abs(said[0] - (right - left)) + abs(said[1] - (bottom - top))
        parts["offset"] += abs(said[2] - ((left + right) / 2 - column)) + abs(said[3] - ((top + bottom) / 2 - row))
    whole = torch.tensor([[column, row] for row, column in cells]).float()
    size = (BOXES[:, 2:] - BOXES[:, :2]) / 4
    centres = (BOXES[:, 2:] + BOXES[:, :2]) / 8
    filters = torch.stack([maps.filters[i, :, row, column] for i, (row, column) in zip(IMAGE_OF, cells, strict=True)])
    expected = focal_loss(maps.heat, heatmap(IMAGE_OF, LABELS, whole, size, maps.heat.shape))
    expected = expected + 0.1 * parts["size"] + parts["offset"]
    expected = (
        expected + dice_loss(mask_logits(maps.basis, IMAGE_OF, filters, centres), F.avg_pool2d(drawn.float(), 4)).sum()
    )
    torch.testing.assert_close(detection_loss(maps, IMAGE_OF, LABELS, BOXES, drawn), expected / 4)


def test_gradients_are_those_of_the_numbers() -> None:
    maps = some_maps(dtype=torch.float64)
    inputs = tuple(m.requires_grad_() for m in maps)

    def loss(*parts: Tensor) -> Tensor:
        return detection_loss(Maps(*parts), IMAGE_OF, LABELS, BOXES.double(), masks())

    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_images_without_objects_have_a_loss_too() -> None:
    maps, none = some_maps(), torch.zeros(0, dtype=torch.int64)
    found = detection_loss(maps, none, none, torch.zeros(0, 4), torch.zeros(0, 32, 32, dtype=torch.bool))
    torch.testing.assert_close(found, focal_loss(maps.heat, torch.zeros_like(maps.heat)))


def said_of_the_objects() -> Maps:
    """Maps that say all of BOXES and nothing else. Masks are the left halves: what is to the left of the centre."""
    heat, size, offset = torch.full((2, 3, 8, 8), -20.0), torch.zeros(2, 2, 8, 8), torch.zeros(2, 2, 8, 8)
    centres = (BOXES[:, 2:] + BOXES[:, :2]) / 8
    filters = torch.zeros(2, FILTERS, 8, 8)
    for m, (column, row) in enumerate(centres.floor().long().tolist()):
        heat[IMAGE_OF[m], LABELS[m], row, column] = 5.0 - m
        size[IMAGE_OF[m], :, row, column] = (BOXES[m, 2:] - BOXES[m, :2]) / 4
        offset[IMAGE_OF[m], :, row, column] = centres[m] - centres[m].floor()
        filters[IMAGE_OF[m], BASIS, row, column] = -1.0  # the first hidden channel is the distance to the left, and the
        filters[IMAGE_OF[m], 2 * BASIS + 2, row, column] = 1.0  # second the one to the right
        filters[IMAGE_OF[m], HIDDEN * (BASIS + 3) : HIDDEN * (BASIS + 3) + 2, row, column] = torch.tensor([1.0, -1.0])
    return Maps(heat, size, offset, filters, torch.randn(2, BASIS, 8, 8))


def test_decoding_gives_what_the_maps_say() -> None:
    found = decode(said_of_the_objects(), (32, 32))
    assert torch.equal(found.image_of, IMAGE_OF) and torch.equal(found.labels, LABELS)
    torch.testing.assert_close(found.boxes, BOXES)
    torch.testing.assert_close(found.scores, torch.tensor([5.0, 4.0, 3.0, 2.0]).sigmoid())
    for mask, box in zip(found.masks, BOXES, strict=True):
        middle = float(box[0] + box[2]) / 2
        assert torch.equal(mask, (torch.arange(32) + 0.5 < middle).expand(32, 32))


def test_decoding_on_images_that_are_not_square() -> None:
    maps = Maps(*(m[:, :, :4].contiguous() for m in said_of_the_objects()))
    found = decode(maps, (8, 32))  # cells of 4 x 2 pixels
    torch.testing.assert_close(found.boxes[0], BOXES[0] / torch.tensor([1.0, 2.0, 1.0, 2.0]))
    assert found.masks.shape[1:] == (8, 32)


def test_boxes_end_with_the_image() -> None:
    maps = said_of_the_objects()
    maps.size.fill_(20.0)
    expected = torch.tensor([0.0, 0.0, 32.0, 32.0]).expand(4, 4)
    torch.testing.assert_close(decode(maps, (32, 32)).boxes, expected)


def test_peaks_beside_higher_ones_are_no_objects() -> None:
    maps = said_of_the_objects()
    maps.heat[0, 2, 1, 2] = 4.9  # beside the first object's 5.0
    maps.heat[0, 1, 1, 2] = 1.0  # but of another class
    found = decode(maps, (32, 32))
    assert found.labels[found.image_of == 0].tolist() == [2, 1]


def test_the_surest_ones_are_kept() -> None:
    maps = said_of_the_objects()
    assert decode(maps, (32, 32), most=1).image_of.tolist() == [0, 1]
    assert decode(maps, (32, 32), least=0.96).scores.tolist() == torch.tensor([5.0, 4.0]).sigmoid().tolist()
    nothing = decode(maps, (32, 32), least=1.0)
    assert isinstance(nothing, Found) and nothing.masks.shape == (0, 32, 32)


def test_values_at_cells_are_counted_row_by_row() -> None:
    maps = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    assert at(maps, torch.tensor([1, 0]), torch.tensor([2 * 5 + 3, 4])).tolist() == [
        maps[1, :, 2, 3].tolist(),
        maps[0, :, 0, 4].tolist(),
    ]
