"""Feature pyramids: the formula, what is frozen stays so, wrapped backbones, and detectors that take them as theirs."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.depth import MRLABase, MRLALight, Residual, Rule, wrap
from graphattn.depth.wrap import Placed
from graphattn.models.pyramid import Pyramid
from graphattn.models.resnet import CifarResNet

STAGES = ["layer1", "layer2", "layer3"]
RULES: dict[str, Rule | None] = {
    "bare": None,
    "mrla-base": MRLABase(drop_path=0.5),
    "mrla-light": MRLALight(drop_path=0.5),
    "residual": Residual(align="subsample", scope="network"),
}
every_backbone = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def images(batch: int = 2, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, 3, height, width)


def backbone(rule: Rule | None = None) -> CifarResNet:
    replaced = rule is not None and rule.replaces_shortcut
    model = CifarResNet(3, 5, depth=14, width=4, shortcut="outside" if replaced else "A")
    if rule is not None:
        wrap(model, "layer*.*", rule, images())
    return model


def pyramid(model: nn.Module, stages: list[str] = STAGES, *, frozen: int = 0, norm_eval: bool = False) -> Pyramid:
    return Pyramid(model, stages, images(), channels=6, frozen_stages=frozen, norm_eval=norm_eval)


def one_by_one(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The stages' outputs, going through the children in their order, as torchvision's IntermediateLayerGetter does."""
    found = []
    for name, child in model.named_children():
        x = child(x)
        found += [x] if name in STAGES else []
        if name == STAGES[-1]:
            break
    return found


def moved(module: nn.Module, x: Tensor) -> tuple[set[str], set[str]]:
    """The parameters that a training step would change, and the statistics that it does."""
    before = {name: value.clone() for name, value in module.named_buffers()}
    sum(p.square().sum() for p in module.train()(x).values()).backward()
    learning = {name for name, p in module.named_parameters() if p.grad is not None}
    return learning, {name for name, value in module.named_buffers() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("size", [(16, 16), (21, 13)])
@every_backbone
def test_maps_follow_the_formula(rule: Rule | None, size: tuple[int, int]) -> None:
    """Also on sizes that no stage halves evenly, and of backbones with a rule."""
    model = backbone(rule)
    x = images(2, *size)
    fine, middle, coarse = one_by_one(copy.deepcopy(model).eval(), x)
    found = pyramid(model).eval()
    p = found(x)
    m3 = found.lateral[2](coarse)
    m2 = found.lateral[1](middle) + F.interpolate(m3, size=middle.shape[2:])
    m1 = found.lateral[0](fine) + F.interpolate(m2, size=fine.shape[2:])
    assert list(p) == ["0", "1", "2"]
    assert [v.shape[1] for v in p.values()] == [found.out_channels] * 3 == [6] * 3
    for i, m in enumerate((m1, m2, m3)):
        torch.testing.assert_close(p[str(i)], found.smooth[i](m))


def test_only_the_finest_maps_may_be_given() -> None:
    model, x = pyramid(backbone()).eval(), images()
    few = Pyramid(backbone(), STAGES, x, channels=6, levels=2).eval()
    few.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("smooth.2")})
    assert list(few(x)) == ["0", "1"]
    assert all(torch.equal(few(x)[level], model(x)[level]) for level in ("0", "1"))
    learning, _ = moved(few, x)
    assert learning == {name for name, p in few.named_parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="levels is 4, needed 1 to 3"):
        Pyramid(backbone(), STAGES, x, levels=4)


@every_backbone
def test_all_that_learns_gets_a_gradient_and_the_classifier_is_stopped(rule: Rule | None) -> None:
    model = pyramid(backbone(rule))
    learning, statistics = moved(model, images(8))
    stopped = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert stopped == {"backbone.fc.weight", "backbone.fc.bias"}
    assert learning == {name for name, _ in model.named_parameters()} - stopped
    assert statistics == {name for name, _ in model.named_buffers()}


@every_backbone
def test_frozen_stages_stay_as_they_are(rule: Rule | None) -> None:
    model = pyramid(backbone(rule), frozen=2)
    learning, statistics = moved(model, images(8))
    still = ("backbone.conv1", "backbone.bn1", "backbone.layer1.", "backbone.layer2.")
    assert not any(name.startswith((*still, "backbone.fc")) for name in learning)
    assert not any(name.startswith(still) for name in statistics)
    rest = {name for name, p in model.named_parameters() if not name.startswith((*still, "backbone.fc"))}
    assert learning == rest
    assert any("layer3" in name for name in learning) and any("layer3" in name for name in statistics)


def test_frozen_stages_drop_no_paths() -> None:
    """And use the statistics they have: their maps are those of evaluation mode while the rest trains."""
    model = pyramid(backbone(RULES["mrla-light"]), frozen=2).train()
    x = images(8)
    kept = one_by_one(model.backbone, x)
    expected = one_by_one(copy.deepcopy(model.backbone).eval(), x)
    assert torch.equal(kept[0], expected[0]) and torch.equal(kept[1], expected[1])
    assert not torch.equal(kept[2], expected[2])
    model.eval().train()
    assert not model.backbone.layer1.training and model.backbone.layer3.training and model.lateral[0].training


def test_parameters_that_were_stopped_before_stay_so() -> None:
    model = backbone()
    model.conv1.requires_grad_(False)
    built = pyramid(model)
    learning, _ = moved(built, images(8))
    assert "backbone.conv1.weight" not in learning and "backbone.bn1.weight" in learning
    assert moved(pyramid(backbone().requires_grad_(False), frozen=1), images(8))[1] >= {
        "backbone.layer2.stage.0.bn1.running_mean"
    }


@every_backbone
def test_norms_in_evaluation_mode_learn_all_the_same(rule: Rule | None) -> None:
    model = pyramid(backbone(rule), norm_eval=True)
    learning, statistics = moved(model, images(8))
    assert statistics == set()
    assert {"backbone.bn1.weight", "backbone.bn1.bias"} <= learning


@every_backbone
def test_state_dicts_of_the_backbone_load(rule: Rule | None) -> None:
    trained, x = backbone(rule).eval(), images()
    model = pyramid(backbone(rule)).eval()
    model.backbone.load_state_dict(trained.state_dict())
    for ours, theirs in zip(one_by_one(model.backbone, x), one_by_one(trained, x), strict=True):
        assert torch.equal(ours, theirs)
    if rule is None or not rule.replaces_shortcut:  # of a backbone that was neither wrapped nor a pyramid's
        model.backbone.load_state_dict(backbone().state_dict())
    twin = pyramid(backbone(rule)).eval()
    twin.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model(x).values(), twin(x).values(), strict=True))


@pytest.mark.parametrize("rule", [None, RULES["mrla-light"]])
def test_compiles_without_graph_breaks(rule: Rule | None) -> None:
    model = pyramid(backbone(rule)).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for _ in range(2):
        x = images()
        torch.testing.assert_close(compiled(x), model(x))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@every_backbone
def test_nothing_is_retained(rule: Rule | None) -> None:
    model = pyramid(backbone(rule))
    held: list[weakref.ref[Tensor]] = []
    model.lateral[0].register_forward_pre_hook(lambda _, args: held.append(weakref.ref(args[0])))
    out = model(images())
    assert model.kept.maps is None
    one_by_one(model.backbone, images())
    assert model.kept.maps is None
    del out
    gc.collect()
    assert held[0]() is None


def test_a_pass_that_failed_keeps_nothing() -> None:
    model = pyramid(backbone())
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 5, 16, 16))
    assert model.kept.maps is None


def test_copies_do_not_share() -> None:
    model = pyramid(backbone()).eval()
    twin, x = copy.deepcopy(model), images()
    assert twin.kept is not model.kept
    twin.backbone.conv1.weight.data.zero_()
    assert not torch.equal(twin(x)["0"], model(x)["0"])


def test_stages_may_lie_anywhere() -> None:
    """Deep inside, one within another, and named in any order: maps come as they run."""
    model = nn.Sequential(nn.PixelUnshuffle(1), backbone())
    found = pyramid(model, ["1.layer3", "1.layer2", "1.layer2.0"]).eval()(images())
    assert [tuple(p.shape[2:]) for p in found.values()] == [(8, 8), (8, 8), (4, 4)]


@pytest.mark.parametrize(
    ("stages", "frozen", "message"),
    [
        ([], 0, "the backbone has no stages named: needed names of its submodules; its children are conv1, bn1, relu"),
        (["layer1", "layer9"], 0, "the backbone has no stage 'layer9'"),
        (["layer1"], 2, "frozen_stages is 2, needed 0 to 1"),
        (["layer1", "fc"], 0, r"layer1, fc gave \[2, 4, 16, 16\], \[2, 5\]; needed a map \[B, C, H, W\] of each"),
        (["layer1", "layer1"], 0, r"gave \[2, 4, 16, 16\]; needed a map"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_backbone_alone(stages: list[str], frozen: int, message: str) -> None:
    model = backbone()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        pyramid(model, stages, frozen=frozen)
    assert [name for name, _ in model.named_modules()] == names
    assert all(p.requires_grad for p in model.parameters()) and model.training


class Upside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 3, 2, 2), nn.ConvTranspose2d(3, 3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.large(self.small(x))


def test_maps_that_grow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in this order, needed the finest first"):
        pyramid(Upside(), ["large", "small"])


# Detectors that take it as their backbone. torchvision's do where it is installed, and everywhere a stand-in that asks
# of a backbone what they ask: `out_channels`, and maps in an ordered dict, the finest first.


class StandIn(nn.Module):
    """Called as torchvision's detectors: with images and targets in training, else with images alone."""

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.out_channels, num_classes + 4, 1)  # type: ignore[arg-type]

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> object:
        features = self.backbone(torch.stack(images))
        if isinstance(features, Tensor):
            features = OrderedDict([("0", features)])
        said = [self.head(p).mean((2, 3)) for p in features.values()]
        if targets is None:
            return [{"boxes": s[-4:].view(1, 4), "labels": s[:-4].argmax().view(1)} for s in sum(said)]  # type: ignore[attr-defined]
        wanted = torch.stack([t["boxes"].mean(0) for t in targets])
        labels = torch.stack([t["labels"][0] for t in targets])
        return {
            "classification": sum(F.cross_entropy(s[:, :-4], labels) for s in said),
            "bbox_regression": sum(F.l1_loss(s[:, -4:], wanted) for s in said),
        }


def retinanet(backbone: nn.Module, num_classes: int) -> nn.Module:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    anchors = AnchorGenerator(sizes=((4,), (8,), (16,)), aspect_ratios=((1.0,),) * 3)
    return RetinaNet(backbone, num_classes, anchor_generator=anchors, min_size=16, max_size=16)


def mask_rcnn(backbone: nn.Module, num_classes: int) -> nn.Module:
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    anchors = AnchorGenerator(sizes=((4,), (8,), (16,)), aspect_ratios=((1.0,),) * 3)
    levels = ["0", "1", "2"]
    return MaskRCNN(
        backbone,
        num_classes,
        min_size=16,
        max_size=16,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=2),
    )


DETECTORS: list[Callable[[nn.Module, int], nn.Module]] = [StandIn]
if find_spec("torchvision"):
    DETECTORS += [retinanet, mask_rcnn]


@pytest.mark.parametrize("make", DETECTORS)
@every_backbone
def test_detectors_train_with_it_as_their_backbone(
    rule: Rule | None, make: Callable[[nn.Module, int], nn.Module]
) -> None:
    model = make(pyramid(backbone(rule), frozen=1), 4)
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[:, 3:12, 2:10] = 1
    target = {"boxes": torch.tensor([[2.0, 3.0, 10.0, 12.0]]), "labels": torch.tensor([1]), "masks": masks}
    losses = model.train()([*images().clamp(0, 1)], [target, target])
    sum(losses.values()).backward()
    assert {"classification", "bbox_regression"} <= set(losses) or {"loss_classifier", "loss_mask"} <= set(losses)
    learns = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert "backbone.backbone.layer3.stage.0.conv1.weight" in learns or rule is not None
    assert [name for name, p in learns.items() if p.grad is None] == []
    assert not any("layer1" in name for name in learns), "frozen=1"
    found = model.eval()([*images().clamp(0, 1)])
    assert len(found) == 2 and all({"boxes", "labels"} <= set(image) for image in found)


def test_a_wrapped_backbone_forgets_when_it_is_left_early() -> None:
    """Detectors that go through the children stop before the classifier; the rule's last block has run by then."""
    model = backbone(RULES["mrla-base"])
    one_by_one(model, images())
    memory = next(m.memory for m in model.modules() if isinstance(m, Placed))
    assert (memory.keys, memory.values, memory.entry) == ([], [], None)
