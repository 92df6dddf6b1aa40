"""EfficientNet-B0: torchvision's size and products, its blocks by hand, and where layer attention is put."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import close
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from graphattn.depth import MRLALight, wrap
from graphattn.depth.drop_path import DropPath
from graphattn.depth.wrap import Placed
from graphattn.models.efficientnet import EfficientNet, InvertedResidual


def blocks(model: nn.Module) -> dict[str, InvertedResidual]:
    return {name: module for name, module in model.named_modules() if isinstance(module, InvertedResidual)}


def test_size_and_products_are_torchvisions() -> None:
    """Parameters and GMAC of an image of 224 x 224 as torchvision states them of EfficientNet_B0_Weights."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = EfficientNet(3, 1000)
        model(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) == 5_288_548
    assert round(counter.get_total_flops() / 2e9, 2) == 0.39


def test_blocks_know_whether_they_have_a_shortcut() -> None:
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}
    model = EfficientNet(3, 10).eval()
    found = blocks(model)
    for name, block in found.items():
        block.register_forward_hook(lambda _, x, out, name=name: shapes.update({name: (x[0].shape, out.shape)}))
    model(torch.zeros(1, 3, 64, 64))
    assert {name for name, (before, after) in shapes.items() if before == after} == {
        name for name, block in found.items() if block.shortcut
    }
    assert [name for name, block in found.items() if block.shortcut] == [
        *("layer2.1", "layer3.1", "layer4.1", "layer4.2", "layer5.1", "layer5.2", "layer6.1", "layer6.2", "layer6.3")
    ]
    assert [shapes[f"layer{i}.0"][1][2] for i in range(1, 8)] == [32, 16, 8, 4, 4, 2, 2]


def by_hand(block: InvertedResidual, x: Tensor, stride: int) -> Tensor:
    def norm(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
        assert bn.running_mean is not None and bn.running_var is not None
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        return x * scale[:, None, None] + (bn.bias - bn.running_mean * scale)[:, None, None]

    h = x
    if block.expand:
        h = norm(block.bn1, torch.einsum("oc,bchw->bohw", block.conv1.weight[..., 0, 0], x))
        h = h * h.sigmoid()
    kernel = block.conv2.kernel_size[0]
    patches = F.unfold(h, kernel, padding=kernel // 2, stride=stride).unflatten(1, (h.shape[1], -1))
    h = torch.einsum("bckp,ck->bcp", patches, block.conv2.weight.flatten(1))
    h = norm(block.bn2, h.unflatten(2, (-(-x.shape[2] // stride), -1)))
    h = h * h.sigmoid()
    gate = block.excitation
    squeezed = h.mean((2, 3)) @ gate.fc1.weight.flatten(1).T + gate.fc1.bias
    excited = (squeezed * squeezed.sigmoid()) @ gate.fc2.weight.flatten(1).T + gate.fc2.bias
    h = h * excited.sigmoid()[..., None, None]
    return norm(block.bn3, torch.einsum("oc,bchw->bohw", block.conv3.weight[..., 0, 0], h))


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "expansion"), [(8, 3, 1, 6), (8, 5, 2, 6), (6, 5, 1, 2), (8, 3, 1, 1)]
)
def test_a_block_by_hand(channels: int, kernel: int, stride: int, expansion: int) -> None:
    block = InvertedResidual(8, channels, kernel, stride, expansion).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    close(block(x), by_hand(block, x, stride) + (x if stride == 1 and channels == 8 else 0))


def test_drop_path_leaves_out_whole_blocks_of_a_sample() -> None:
    block = InvertedResidual(4, 4, drop_path=0.5)
    x = torch.randn(64, 4, 5, 5)
    left = [torch.equal(a, b) for a, b in zip(block(x), x, strict=True)]
    assert 16 < sum(left) < 48
    rates = [
        module.probability for module in EfficientNet(3, 10, drop_path=0.3).modules() if isinstance(module, DropPath)
    ]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.3, 16))


def test_layer_attention_behind_blocks_with_a_shortcut() -> None:
    model = EfficientNet(3, 10, stem_stride=1)
    chosen = [name for name, block in blocks(model).items() if block.shortcut]
    x = torch.randn(2, 3, 32, 32)
    before = sum(p.numel() for p in model.parameters())
    wrapped = wrap(model, chosen, MRLALight(dim=8), x)
    assert wrapped(x).shape == (2, 10)
    added = sum(p.numel() for m in wrapped.modules() if isinstance(m, Placed) for p in m.rule.parameters())
    assert sum(p.numel() for p in wrapped.parameters()) == before + added > before
    assert [m.name for m in wrapped.modules() if isinstance(m, Placed)] == chosen


def test_small_images_keep_their_resolution_at_the_stem() -> None:
    model = EfficientNet(3, 10, stem_stride=1).eval()
    assert model.layer1(F.silu(model.bn1(model.conv1(torch.zeros(1, 3, 32, 32))))).shape == (1, 16, 32, 32)
    with pytest.raises(ValueError, match="unknown stem_stride 4: there are 1, 2"):
        EfficientNet(3, 10, stem_stride=4)  # type: ignore[arg-type]


def test_weights_of_single_channels_begin_as_he_says() -> None:
    weight = EfficientNet(3, 10).layer6[1].conv2.weight  # 1152 x 1 x 5 x 5
    assert abs(weight.std().item() / (2 / 25) ** 0.5 - 1) < 0.02
