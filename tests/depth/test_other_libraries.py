"""Models of timm and torchvision where these are installed, and ours of the same structure everywhere."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from graphattn.depth import MRLABase, MRLABaseTokens, MRLALight, MRLALightTokens, Rule, wrap
from graphattn.depth.wrap import Placed
from graphattn.models.resnet import ImageResNet
from graphattn.models.vit import VisionTransformer


def _torchvision() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(num_classes=7)


def _timm_resnet() -> nn.Module:
    import timm

    return timm.create_model("resnet50", num_classes=7)


def _timm_deit() -> nn.Module:
    import timm

    return timm.create_model("deit_tiny_patch16_224", num_classes=7, img_size=64)


RESNETS: dict[str, Callable[[], nn.Module]] = {"ours": lambda: ImageResNet(3, 7)}
VITS: dict[str, Callable[[], nn.Module]] = {"ours": lambda: VisionTransformer(3, 7, 64)}
if find_spec("torchvision"):
    RESNETS["torchvision"] = _torchvision
if find_spec("timm"):
    RESNETS["timm"] = _timm_resnet
    VITS["timm"] = _timm_deit


def _wrapped_and_trained(model: nn.Module, blocks: str, rule: Rule, count: int, more: int) -> None:
    bare, parameters = model.state_dict(), sum(p.numel() for p in model.parameters())
    x = torch.randn(2, 3, 64, 64)
    wrap(model, blocks, rule, x)
    assert sum(isinstance(module, Placed) for module in model.modules()) == count
    assert sum(p.numel() for p in model.parameters()) == parameters + more
    model.load_state_dict(bare)
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("library", RESNETS)
@pytest.mark.parametrize(("rule", "more"), [(MRLABase(), 166_316), (MRLALight(), 181_420)])
def test_resnets(library: str, rule: Rule, more: int) -> None:
    _wrapped_and_trained(RESNETS[library](), "layer*.*", rule, 16, more)


@pytest.mark.parametrize("library", VITS)
@pytest.mark.parametrize(("rule", "more"), [(MRLABaseTokens(), 25_464), (MRLALightTokens(), 32_376)])
def test_vision_transformers(library: str, rule: Rule, more: int) -> None:
    _wrapped_and_trained(VITS[library](), "blocks.*", rule, 12, more)


@pytest.mark.parametrize(("width", "heads", "base", "light"), [(384, 6, 50_808, 64_632), (768, 12, 101_496, 129_144)])
def test_larger_vision_transformers(width: int, heads: int, base: int, light: int) -> None:
    for rule, more in ((MRLABaseTokens(), base), (MRLALightTokens(), light)):
        model = VisionTransformer(3, 7, 32, width=width, heads=heads)
        before = sum(p.numel() for p in model.parameters())
        wrap(model, "blocks.*", rule, torch.randn(1, 3, 32, 32))
        assert sum(p.numel() for p in model.parameters()) == before + more


def test_tokens_on_no_square_grid() -> None:
    model = VisionTransformer(3, 7, 64)
    with pytest.raises(ValueError, match=r"needed tokens \[T, C\], of which all but the first 2 lie on a square grid"):
        wrap(model, "blocks.*", MRLABaseTokens(class_tokens=2), torch.randn(1, 3, 64, 64))


def test_the_class_token_gets_its_own_norm() -> None:
    model = wrap(VisionTransformer(3, 7, 32), "blocks.*", MRLABaseTokens(), torch.randn(1, 3, 32, 32)).eval()
    placed = model.blocks[0]
    tokens = torch.randn(2, 5, 192)
    x = placed.block(tokens)
    torch.testing.assert_close(placed(tokens)[:, 0], x[:, 0] + placed.rule.norm(x[:, 0]))
