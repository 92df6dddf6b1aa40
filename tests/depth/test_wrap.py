"""Where a rule may be put, and what is said where it may not."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from nets import BLOCKS, SmallNet, TokenNet, images, tokens
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from graphattn.depth import (
    DepthWeighted,
    HyperConnections,
    IterativeAggregation,
    MRLABase,
    MRLALight,
    Plain,
    Residual,
    Rule,
    ScalarMix,
    SelfAttentive,
    recorded,
    wrap,
)
from graphattn.depth.wrap import Placed
from graphattn.layer_dags import history


def places(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Placed)]


def test_patterns_and_names() -> None:
    six = [f"layer{stage}.{block}" for stage in (1, 2) for block in range(3)]
    assert places(wrap(SmallNet(), BLOCKS, MRLABase(), images())) == six
    assert places(wrap(SmallNet(), ["layer1.0", "layer2.*"], MRLABase(), images())) == [six[0], *six[3:]]
    assert places(wrap(SmallNet(), "layer*.*.bn", MRLABase(), images())) == [f"{name}.bn" for name in six]


def test_the_model_is_the_same_object() -> None:
    model = SmallNet()
    assert wrap(model, BLOCKS, MRLABase(), images()) is model


def test_wrapping_leaves_modes_and_statistics_alone() -> None:
    model = SmallNet()
    model.layer1.eval()
    before = {name: value.clone() for name, value in model.named_buffers()}
    wrap(model, BLOCKS, Plain(), images())
    assert model.training and not model.layer1.training and model.layer2.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.buffers(), strict=True))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("stage*", r"no block of the model is called 'stage\*'; its children are stem, layer1, layer2, fc"),
        (["layer1.0", "layer3.0"], r"no block of the model is called 'layer3.0'"),
    ],
)
def test_unknown_blocks(blocks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(SmallNet(), blocks, MRLABase(), images())


def test_one_rule_a_block() -> None:
    model = wrap(SmallNet(), "layer1.*", MRLABase(), images())
    wrap(model, "layer2.*", MRLALight(), images())
    with pytest.raises(ValueError, match=r"block layer1.0 is wrapped already: one rule a block"):
        wrap(model, BLOCKS, MRLABase(), images())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.idle = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))


@pytest.mark.parametrize(("rule", "found"), [(Plain, "the class Plain"), ("blocks.*", "a str")])
def test_a_rule_is_a_rule(rule: Any, found: str) -> None:
    with pytest.raises(TypeError, match=f"rule is {found}: needed a Rule with its options"):
        wrap(SmallNet(), BLOCKS, rule, images())


def test_blocks_run_once() -> None:
    with pytest.raises(ValueError, match="ran block 2 times, idle 0 times: name others"):
        wrap(Twice(), ["block", "idle"], Plain(), images())


def test_blocks_give_maps_tokens_or_nodes() -> None:
    with pytest.raises(TypeError, match=r"block flat gives a tensor of shape \[96\]: needed a tensor \[B, C, H, W\]"):
        wrap(nn.Sequential(OrderedDict(flat=nn.Flatten(0))), "flat", Plain(), torch.randn(2, 48))


class GivesDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict()
        self.block.forward = lambda x: {"out": x}  # type: ignore[method-assign, assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)["out"]


def test_a_block_that_gives_no_tensor() -> None:
    with pytest.raises(TypeError, match="block block gives a dict"):
        wrap(GivesDict(), "block", Plain(), images())


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(input=x)


def test_a_block_that_gets_no_tensor_first() -> None:
    with pytest.raises(TypeError, match="block block is called with keywords alone: needed a tensor as the first"):
        wrap(ByKeyword(), "block", Plain(), images())


def test_a_change_of_shape_names_the_two_blocks() -> None:
    found = r"layer1.2 gives \[8, 8, 8\] and layer2.0 gives \[16, 4, 4\]: layers that attend to each other"
    with pytest.raises(ValueError, match=found):
        wrap(SmallNet(), BLOCKS, DepthWeighted(scope="network"), images())
    with pytest.raises(ValueError, match=r"what enters layer2.0 gives \[8, 8, 8\] and layer2.0 gives"):
        wrap(SmallNet(bare=True), "layer2.*", Residual(), images())


def test_what_cannot_be_aligned() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1))
    with pytest.raises(ValueError, match="align='subsample' adds channels and takes every n-th pixel"):
        wrap(model, ["0", "1"], DepthWeighted(align="subsample"), images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "stages"}, "scope is 'stages', needed 'stage', 'network' or a number"),
        ({"scope": 0}, "scope is 0, needed"),
        ({"scope": True}, "scope is True, needed"),
        ({"align": "pad"}, "align is 'pad', needed 'error', 'subsample' or 'project'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MRLABase(**options)


class Tuples(nn.Module):
    """Blocks that take keywords and give tuples, as Hugging Face's do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([TupleBlock(), TupleBlock()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layer:
            x, extra = block(x, scale=2.0)
            assert extra == "attention"
        return x


class TupleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float) -> tuple[Tensor, str]:
        return self.linear(x) * scale, "attention"


def test_blocks_with_keywords_that_give_tuples() -> None:
    x = torch.randn(2, 3, 4)
    model = Tuples()
    expected = model(x)
    torch.testing.assert_close(wrap(model, "layer.*", DepthWeighted(), x)(x), expected)


class OfOne(nn.Module):
    """Blocks that give tuples of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Single(), Single()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layer:
            x = block(x)[0]
        return x


class Single(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.linear(x),)


def test_a_tuple_of_one_stays_one() -> None:
    model, x = OfOne(), torch.randn(2, 3, 4)
    expected = model(x)
    torch.testing.assert_close(wrap(model, "layer.*", DepthWeighted(), x)(x), expected)


def test_what_only_the_block_has_is_found() -> None:
    x = torch.randn(2, 3, 4)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    expected = model(x)
    found = wrap(model, "layers.*", DepthWeighted(), x)
    torch.testing.assert_close(found(x), expected)
    assert found.layers[0].self_attn is found.layers[0].block.self_attn
    with pytest.raises(AttributeError, match="no attribute 'selfattn'"):
        found.layers[0].selfattn  # noqa: B018


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.all = nn.ModuleList([self.first, nn.Conv2d(3, 3, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.all[1](self.first(x))


def test_a_block_has_one_name_and_contains_no_other() -> None:
    for names in (["first", "all.1"], "all.*"):
        with pytest.raises(ValueError, match=r"block (first|all\.0) has 2 names, first, all\.0: needed one"):
            wrap(Shared(), names, Plain(), images())
    with pytest.raises(ValueError, match=r"block layer1\.0 lies within block layer1: name one of them"):
        wrap(SmallNet(), ["layer1", "layer1.*"], Plain(), images())
    model = wrap(SmallNet(), BLOCKS, MRLABase(), images())
    with pytest.raises(ValueError, match=r"block layer1\.0 is wrapped already"):
        wrap(model, "layer*.*.*", Plain(), images())


@pytest.mark.parametrize(
    ("blocks", "rule", "message"),
    [
        (BLOCKS, DepthWeighted(scope="network"), "or say how to align them"),
        (BLOCKS, MRLALight(dim=7), "needed a multiple of dim=7"),
        (BLOCKS, SelfAttentive(scope="stage"), r"what enters block layer2\.0 has shape \[8, 1, 1\] with the rule"),
        (
            ["layer2.0.conv"],
            MRLALight(),
            r"layer2\.0\.conv turns \[8, 8, 8\] into \[16, 4, 4\] and has no `downs",
        ),
    ],
    ids=["shapes", "heads", "read in the middle", "no shortcut"],
)
def test_a_refusal_leaves_the_model_as_it_was(blocks: Any, rule: Rule, message: str) -> None:
    model = SmallNet()
    before = {name: id(module) for name, module in model.named_modules()}
    with pytest.raises(ValueError, match=message):
        wrap(model, blocks, rule, images())
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_keys_of_heads_are_not_aligned() -> None:
    with pytest.raises(ValueError, match="align is 'subsample', and keys of heads cannot be aligned"):
        MRLABase(align="subsample")


@pytest.mark.parametrize("rule", [Plain, MRLALight, SelfAttentive])
def test_what_aligns_nothing_is_not_told_how(rule: type[Rule]) -> None:
    with pytest.raises(ValueError, match=f"align is 'project', and this {rule.__name__} aligns nothing: leave it out"):
        rule(align="project")


def test_a_layer_that_reads_its_own_block_alone_stands_anywhere() -> None:
    model = wrap(SmallNet(), BLOCKS, MRLALight(scope="network"), images())
    assert all(m.align is None for m in model.modules() if isinstance(m, Placed))


def test_activations_change_nothing_that_is_remembered() -> None:
    def made(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(3, 3, 1), nn.ReLU(inplace=inplace)]
        return wrap(nn.Sequential(*layers), ["0", "2", "4"], ScalarMix(), images())

    x = images()
    assert torch.equal(made(True)(x), made(False)(x))


def test_a_projection_evaluates_as_option_b() -> None:
    """Its batch norm saw what it sees in evaluation, and nothing else."""
    model = wrap(SmallNet(bare=True), BLOCKS, Residual(align="project"), images())
    for _ in range(30):
        model(images())
    align = next(m.align for m in model.modules() if isinstance(m, Placed) and m.align is not None)
    assert int(align[1].num_batches_tracked) == 30
    seen: list[Tensor] = []
    align[0].register_forward_hook(lambda _, args, out: seen.append(out))
    model(images())
    mean, close = seen[0].mean((0, 2, 3)), align[1].running_mean
    assert (mean - close).norm() < 0.5 * mean.norm() and len(seen) == 1
    for rule in (IterativeAggregation, MRLALight):
        of_one = rule(scope="network", align="project", **({"carry": "state"} if rule is MRLALight else {}))
        aligns = [m.align for m in wrap(SmallNet(), BLOCKS, of_one, images()).modules() if isinstance(m, Placed)]
        assert [[type(part) for part in a] for a in aligns if a is not None] == [[nn.Conv2d, nn.BatchNorm2d]]
    several = wrap(SmallNet(), BLOCKS, ScalarMix(scope="network", align="project"), images())
    assert not any(
        isinstance(m, nn.BatchNorm2d)
        for p in several.modules()
        if isinstance(p, Placed) and p.align
        for m in p.align.modules()
    )
    assert several(images()).isfinite().all()


@pytest.mark.parametrize(
    ("rule", "works"), [(MRLABase(), False), (MRLALight(), True), (ScalarMix(), False)], ids=["base", "light", "mix"]
)
def test_blocks_are_recomputed_with_their_scope(rule: Rule, works: bool) -> None:
    def gradients(recomputed: str) -> list[Tensor]:
        torch.manual_seed(0)
        model, x = wrap(SmallNet(), BLOCKS, rule, images()), images()
        for name in ("layer1", "layer2"):
            stage = getattr(model, name)
            for module in {"blocks": list(stage), "stages": [stage]}.get(recomputed, []):
                plain = module.forward
                module.forward = lambda x, plain=plain: checkpoint(plain, x, use_reentrant=False)
        model(x).square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for way in ("stages", "blocks") if works else ("stages",):
        for a, b in zip(gradients(""), gradients(way), strict=True):
            torch.testing.assert_close(a, b)
    if not works:
        with pytest.raises(RuntimeError, match="ran and those before it in its scope did not"):
            gradients("blocks")


def test_a_block_of_one_scope_is_not_recomputed_behind_another_scope() -> None:
    """Scopes share a memory: what the other one left there has the right shapes and is wrong."""
    model, x = wrap(TokenNet(), "blocks.*", HyperConnections(scope=2, streams=2), tokens()), tokens()
    for block in (model.blocks[1], model.blocks[2]):
        plain = block.forward
        block.forward = lambda x, plain=plain: checkpoint(plain, x, use_reentrant=False)
    with pytest.raises(RuntimeError, match=r"block blocks\.1 ran and those before it in its scope did not"):
        model(x).square().sum().backward()


def test_an_error_in_a_block_leaves_nothing_for_the_next_pass() -> None:
    model = wrap(SmallNet(), BLOCKS, MRLABase(), images()).eval()
    x = images()
    expected = model(x)
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 4, 8, 8))
    block = model.layer2[1].block
    conv, block.conv = block.conv, nn.Conv2d(1, 1, 1)
    with pytest.raises(RuntimeError):
        model(x)
    block.conv = conv
    assert torch.equal(model(x), expected)


def test_only_wrapped_models_record() -> None:
    with pytest.raises(ValueError, match=r"no block of this model is wrapped: call depth\.wrap"), recorded(SmallNet()):
        pass


class Counting(Rule):
    """A rule of a user's own: adds how many layers of its scope came before."""

    score, normalisation, cost, identity = "constant", "none", "O(1)", False

    def modules(self, places):
        return [Count() for _ in places]

    def graph(self, num_layers):
        return history(num_layers)


class Count(nn.Module):
    def forward(self, x, memory):
        memory.push(None, x)
        return x * 0 + len(memory.values)


@pytest.mark.parametrize(
    ("scope", "counts"),
    [("stage", [1, 2, 3, 1, 2, 3]), ("network", [1, 2, 3, 4, 5, 6]), (2, [1, 2, 1, 2, 1, 2]), (4, [1, 2, 3, 4, 1, 2])],
)
def test_scopes(scope: Any, counts: list[int]) -> None:
    model = wrap(SmallNet(), BLOCKS, Counting(scope=scope, align="subsample"), images())
    seen: list[float] = []
    for module in model.modules():
        if isinstance(module, Placed):
            module.register_forward_hook(lambda _, args, out: seen.append(out.flatten()[0].item()))
    model(images())
    assert seen == counts
