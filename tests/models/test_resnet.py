"""Residual networks: published sizes, torchvision's names, and the equations that shortcuts promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import close
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from graphattn.depth import MRLABase, MRLALight, Plain, Residual, Rule, wrap
from graphattn.models.resnet import CifarResNet, ImageResNet
from graphattn.models.resnet_blocks import BasicBlock, Bottleneck, Shortcut

CIFAR = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}
IMAGENET = {50: (25_557_032, 4.089), 101: (44_549_160, 7.801)}  # parameters, GMAC of an image of 224 x 224


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("depth", CIFAR)
def test_published_sizes_for_small_images(depth: int) -> None:
    with torch.device("meta"):
        assert parameters(CifarResNet(3, 10, depth=depth)) == CIFAR[depth]


@pytest.mark.parametrize("depth", [20, 56])
def test_sizes_of_the_other_forms(depth: int) -> None:
    with torch.device("meta"):
        assert parameters(CifarResNet(3, 10, depth=depth, preactivation=True)) == CIFAR[depth]
        assert parameters(CifarResNet(3, 10, depth=depth, shortcut="none")) == CIFAR[depth]
        assert parameters(CifarResNet(3, 10, depth=depth, shortcut="outside")) == CIFAR[depth]
        assert parameters(CifarResNet(3, 10, depth=depth, shortcut="B")) == CIFAR[depth] + 2752


@pytest.mark.parametrize("depth", IMAGENET)
def test_published_sizes_and_products_for_large_images(depth: int) -> None:
    count, products = IMAGENET[depth]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = ImageResNet(3, 1000, depth=depth)  # type: ignore[arg-type]
        assert parameters(model) == count
        model(torch.empty(1, 3, 224, 224))
        assert parameters(ImageResNet(3, 1000, depth=depth, stem="3x3")) == count + 19_232  # type: ignore[arg-type]
    assert round(counter.get_total_flops() / 2e9, 3) == products


@pytest.mark.parametrize(
    ("depth", "rule", "added"),
    [
        (20, MRLABase(dim=16), 3_750),
        (56, MRLABase(dim=16), 11_250),
        (110, MRLABase(dim=16), 22_500),
        (20, MRLALight(dim=16), 4_086),
        (56, MRLALight(dim=16), 12_258),
        (110, MRLALight(dim=16), 24_516),
        (50, MRLABase(dim=16), 166_316),
        (50, MRLALight(dim=32), 181_420),
        (101, MRLALight(dim=32), 390_486),
    ],
)
def test_published_sizes_of_layer_attention(depth: int, rule: Rule, added: int) -> None:
    with torch.device("meta"):
        small = depth not in IMAGENET
        model = CifarResNet(3, 10, depth=depth) if small else ImageResNet(3, 1000, depth=depth)  # type: ignore[arg-type]
        before = parameters(model)
        wrap(model, "layer*.*", rule, torch.empty(1, 3, 32, 32))
    assert parameters(model) - before == added


def norm_keys(name: str) -> list[str]:
    return [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def torchvision_keys(counts: list[int], convolutions: int, first_stage_projects: bool) -> list[str]:
    """Those of torchvision's ResNet, in its order."""
    keys = ["conv1.weight", *norm_keys("bn1")]
    for stage, count in enumerate(counts, 1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            for i in range(1, convolutions + 1):
                keys += [f"{name}.conv{i}.weight", *norm_keys(f"{name}.bn{i}")]
            if block == 0 and (stage > 1 or first_stage_projects):
                keys += [f"{name}.downsample.0.weight", *norm_keys(f"{name}.downsample.1")]
    return [*keys, "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("depth", "counts", "convolutions"),
    [
        (18, [2, 2, 2, 2], 2),
        (34, [3, 4, 6, 3], 2),
        (50, [3, 4, 6, 3], 3),
        (101, [3, 4, 23, 3], 3),
        (152, [3, 8, 36, 3], 3),
    ],
)
def test_state_dicts_have_torchvisions_keys(depth: int, counts: list[int], convolutions: int) -> None:
    with torch.device("meta"):
        model = ImageResNet(3, 1000, depth=depth)  # type: ignore[arg-type]
    assert list(model.state_dict()) == torchvision_keys(counts, convolutions, first_stage_projects=convolutions == 3)


def test_small_networks_have_the_same_names() -> None:
    assert list(CifarResNet(3, 10, shortcut="B").state_dict()) == torchvision_keys([3, 3, 3], 2, False)
    without = [key for key in torchvision_keys([3, 3, 3], 2, False) if "downsample" not in key]
    assert list(CifarResNet(3, 10, shortcut="A").state_dict()) == without


def features(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each child gives when they are gone through one by one."""
    found = {}
    for name, child in model.named_children():
        x = child(x.flatten(1) if name == "fc" else x)
        found[name] = x
    return found


@pytest.mark.parametrize("preactivation", [False, True])
def test_stages_of_small_networks(preactivation: bool) -> None:
    model = CifarResNet(3, 10, preactivation=preactivation).eval()
    x = torch.randn(2, 3, 32, 32)
    found = features(model, x)
    assert found["layer1"].shape == (2, 16, 32, 32)
    assert found["layer2"].shape == (2, 32, 16, 16)
    assert found["layer3"].shape == (2, 64, 8, 8)
    close(found["fc"], model(x), "children stand in the order in which they act")


@pytest.mark.parametrize(("depth", "stem", "expansion"), [(18, "7x7", 1), (18, "3x3", 1), (50, "7x7", 4)])
def test_stages_of_large_networks(depth: int, stem: str, expansion: int) -> None:
    model = ImageResNet(3, 10, depth=depth, stem=stem).eval()  # type: ignore[arg-type]
    x = torch.randn(1, 3, 64, 64)
    found = features(model, x)
    for i in range(4):
        assert found[f"layer{i + 1}"].shape == (1, expansion * 64 * 2**i, 16 // 2**i, 16 // 2**i)
    close(found["fc"], model(x), "children stand in the order in which they act")


def test_the_3x3_convolution_of_a_bottleneck_has_the_stride() -> None:
    block = ImageResNet(3, 10).layer2[0]
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]


def test_option_a_by_hand() -> None:
    shortcut = BasicBlock(2, 5, 2, "A").downsample
    assert shortcut is not None
    x = torch.arange(2 * 2 * 3 * 3.0).reshape(2, 2, 3, 3)
    out = shortcut(x)
    assert out.shape == (2, 5, 2, 2)
    assert torch.equal(out[:, 1:3], x[:, :, [0, 2]][..., [0, 2]])
    assert not out[:, [0, 3, 4]].any()


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_block_is_the_rectified_sum_of_shortcut_and_branch(block: type[BasicBlock] | type[Bottleneck]) -> None:
    x = torch.randn(2, 8, 6, 6)
    for stride, shortcut in ((1, "A"), (2, "A"), (2, "B")):
        whole = block(8, 8, stride, shortcut).eval()  # type: ignore[arg-type]
        assert whole.downsample is not None
        close(whole(x), F.relu(whole.downsample(x) + whole.branch(x)))
    bare, plain = block(8, 8, 2, "outside").eval(), block(8, 8, 2, "none").eval()
    plain.load_state_dict(bare.state_dict())
    close(bare(x), bare.branch(x))
    assert bare(x).min() < 0, "the ReLU is left to what adds the shortcut"
    close(plain(x), F.relu(bare(x)))


@pytest.mark.parametrize(
    ("shortcut", "preactivation", "rule"),
    [
        ("A", False, Residual(align="subsample")),
        ("A", True, Residual(align="subsample", relu=False)),
        ("none", False, Plain()),
        ("none", True, Plain(relu=False)),
    ],
)
def test_rules_behind_bare_branches_give_the_published_networks(
    shortcut: Shortcut, preactivation: bool, rule: Rule
) -> None:
    published = CifarResNet(3, 10, depth=14, shortcut=shortcut, preactivation=preactivation).double()
    bare = CifarResNet(3, 10, depth=14, shortcut="outside", preactivation=preactivation).double()
    bare.load_state_dict(published.state_dict())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    wrapped = wrap(bare, "layer*.*", rule, x)
    close(wrapped(x), published(x))
    wrapped(x).sin().sum().backward()
    published(x).sin().sum().backward()
    for mine, judge in zip(wrapped.parameters(), published.parameters(), strict=True):
        close(mine.grad, judge.grad)


def unit_stage() -> tuple[nn.Sequential, Tensor]:
    """A stage of five pre-activation blocks of one shape, and what enters."""
    model = CifarResNet(3, 10, depth=32, width=4, preactivation=True).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.layer2[1:], torch.randn(2, 8, 4, 4, dtype=torch.float64, requires_grad=True)


def test_pre_activation_outputs_are_the_input_and_a_sum_of_branches() -> None:
    """x_L = x_l + sum_{i = l .. L - 1} F(x_i)."""
    stage, first = unit_stage()
    x, total = first, torch.zeros_like(first)
    for block in stage:
        total = total + block.branch(x)
        x = block(x)
    close(x, first + total)


def test_gradients_reach_every_pre_activation_block_undamped() -> None:
    """dE/dx_l = dE/dx_L (1 + d/dx_l sum_{i = l .. L - 1} F(x_i)), for each l."""
    stage, first = unit_stage()
    xs = [first]
    for block in stage:
        xs.append(block(xs[-1]))
    error = xs[-1].square().sum() + xs[-1].sin().sum()
    last, *others = torch.autograd.grad(error, [xs[-1], *xs[:-1]], retain_graph=True)
    for start, (x, found) in enumerate(zip(xs, others, strict=False)):
        total = torch.stack([block.branch(xs[start + i]) for i, block in enumerate(stage[start:])]).sum(0)
        (through_branches,) = torch.autograd.grad(total, x, last, retain_graph=True)
        close(found, last + through_branches)
        assert through_branches.abs().max() > 1e-3, "the sum of branches is not idle"


@pytest.mark.parametrize("small", [True, False])
def test_blocks_begin_as_their_shortcuts_where_asked(small: bool) -> None:
    model = (CifarResNet if small else ImageResNet)(3, 10, zero_init_residual=True)
    stage = model.layer1
    x = torch.rand(1, 16 if small else 64, 4, 4)
    out = stage(x)
    close(out, F.relu(stage[0].downsample(x)))  # type: ignore[index, operator, union-attr]


def test_weights_begin_as_he_says() -> None:
    weight = CifarResNet(3, 10).layer3[0].conv1.weight  # from 32 channels to 64
    assert abs(weight.std().item() / (2 / (64 * 9)) ** 0.5 - 1) < 0.02


@pytest.mark.parametrize("depth", [2, 18, 21, 0, -4])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth is {depth}, needed 6n \+ 2"):
        CifarResNet(3, 10, depth=depth)


def test_other_options_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown depth 51: there are 18, 34, 50, 101, 152"):
        ImageResNet(3, 10, depth=51)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown stem '5x5'"):
        ImageResNet(3, 10, stem="5x5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown shortcut 'C'"):
        CifarResNet(3, 10, shortcut="C")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave one of them out"):
        CifarResNet(3, 10, shortcut="none", zero_init_residual=True)
    with pytest.raises(ValueError, match="with preactivation none does"):
        CifarResNet(3, 10, preactivation=True, zero_init_residual=True)
