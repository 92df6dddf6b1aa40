"""A small residual network, with or without its own shortcuts, and every rule in a form that fits it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphattn.depth import (
    AttentionResidual,
    ChannelAttention,
    Dense,
    DepthWeighted,
    HierarchicalAggregation,
    HyperConnections,
    IterativeAggregation,
    MRLABase,
    MRLABaseTokens,
    MRLALight,
    MRLALightTokens,
    Plain,
    Residual,
    Rule,
    ScalarMix,
    SelfAttentive,
    wrap,
)

RULES: dict[str, Rule] = {
    "plain": Plain(),
    "residual": Residual(align="subsample"),
    "residual-projected": Residual(align="project", relu=False),
    "dense": Dense(align="subsample"),
    "dla-iterative": IterativeAggregation(),
    "dla-hierarchical": HierarchicalAggregation(),
    "dla-hierarchical-residual": HierarchicalAggregation(residual=True, scope="network", align="subsample"),
    "scalar-mix": ScalarMix(),
    "scalar-mix-normed": ScalarMix(scope="network", align="subsample", layer_norm=True),
    "depth-weighted": DepthWeighted(scope="network", align="subsample"),
    "depth-weighted-dilated": DepthWeighted(dilation=2, period=2, align="subsample"),
    "self-attentive": SelfAttentive(),
    "self-attentive-positions": SelfAttentive(tokens="positions", project="layer", heads=2, entry=True, skip=True),
    "mrla-base": MRLABase(drop_path=0.2),
    "mrla-base-two-heads-no-relu": MRLABase(dim=4, relu=False, scope=3),
    "mrla-light": MRLALight(drop_path=0.2),
    "mrla-light-state": MRLALight(carry="state", dim=4, scope=1),
    "mrla-base-tokens": MRLABaseTokens(dim=4),
    "mrla-light-tokens": MRLALightTokens(),
    "depth-weighted-tokens": DepthWeighted(),
    "attention-residual-tokens": AttentionResidual(),
    "hyper-tokens": HyperConnections(streams=2),
    "attention-residual": AttentionResidual(align="subsample"),
    "attention-residual-blocks": AttentionResidual(block=2, align="project"),
    "hyper": HyperConnections(streams=3, align="subsample"),
    "hyper-static": HyperConnections(streams=2, dynamic=False, align="subsample"),
    "eca": ChannelAttention(),
    "squeeze-excitation": ChannelAttention(reduction=4),
}


class Block(nn.Module):
    """Convolution and norm; the shortcut and the ReLU behind it are left out of a bare branch."""

    def __init__(self, in_channels: int, channels: int, stride: int, bare: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.bare = bare
        changed = in_channels != channels and not bare
        self.downsample = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if changed else None

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn(self.conv(x))
        if self.bare:
            return branch
        return (branch + (x if self.downsample is None else self.downsample(x))).relu()


class SmallNet(nn.Module):
    """Stages of 3 blocks of 8 and 16 channels, on 8 x 8 pixels."""

    def __init__(self, bare: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(*(Block(8, 8, 1, bare) for _ in range(3)))
        self.layer2 = nn.Sequential(*(Block(16 if i else 8, 16, 1 if i else 2, bare) for i in range(3)))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class TokenBlock(nn.Module):
    """A residual map of tokens [B, T, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x).tanh()


class TokenNet(nn.Module):
    """Six blocks on a class token and 2 x 2 patches of 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TokenBlock(8) for _ in range(6)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, 5, 8)


def on_tokens(name: str) -> bool:
    return name.endswith("-tokens")


def fitting(name: str) -> nn.Module:
    """A network for the rule of this name, not yet wrapped."""
    return TokenNet() if on_tokens(name) else SmallNet(bare=RULES[name].replaces_shortcut)


def blocks(name: str) -> str:
    return "blocks.*" if on_tokens(name) else BLOCKS


def inputs(name: str, batch: int = 2) -> Tensor:
    return tokens(batch) if on_tokens(name) else images(batch)


def wrapped(name: str) -> nn.Module:
    return wrap(fitting(name), blocks(name), RULES[name], inputs(name))


BLOCKS = "layer*.*"


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8)
