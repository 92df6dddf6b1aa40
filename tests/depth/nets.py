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
    MRLALight,
    Plain,
    Residual,
    Rule,
    ScalarMix,
    SelfAttentive,
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


BLOCKS = "layer*.*"


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8)


def fitting(rule: Rule) -> SmallNet:
    """A network for the rule, not yet wrapped."""
    return SmallNet(bare=rule.replaces_shortcut)
