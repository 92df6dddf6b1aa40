"""CIFAR residual networks whose layers attend to earlier layers, by the name of the rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

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
    Rule,
    ScalarMix,
    SelfAttentive,
    wrap,
)
from graphattn.models.resnet import CifarResNet
from graphattn.models.resnet_blocks import Shortcut
from graphattn.record import one_of


@dataclass(frozen=True)
class _Wiring:
    """A rule, the modules it is put behind, and the network they are in."""

    rule: Rule
    shortcut: Shortcut = "A"
    preactivation: bool = False
    behind: str = "layer*.*"


RULES: dict[str, _Wiring] = {
    # The published ones sit behind blocks that keep their shortcut, or, as gates, on the branch before the addition.
    "squeeze-excitation": _Wiring(ChannelAttention(reduction=16), behind="layer*.*.bn2"),
    "eca": _Wiring(ChannelAttention(), behind="layer*.*.bn2"),
    "mrla-base": _Wiring(MRLABase()),
    "mrla-light": _Wiring(MRLALight()),
    "mrla-light-state": _Wiring(MRLALight(carry="state")),
    "self-attentive": _Wiring(SelfAttentive()),
    "self-attentive-positions": _Wiring(SelfAttentive(tokens="positions")),
    "scalar-mix": _Wiring(ScalarMix(scope="network", align="subsample")),
    "depth-weighted": _Wiring(DepthWeighted(scope="network", align="subsample")),
    "dla-iterative": _Wiring(IterativeAggregation()),
    "dla-hierarchical": _Wiring(HierarchicalAggregation(residual=True)),
    # These take the shortcut's place. The last two were published for pre-norm transformers.
    "dense": _Wiring(Dense(align="subsample"), "outside"),
    "attention-residual": _Wiring(AttentionResidual(align="subsample"), "outside", preactivation=True),
    "attention-residual-blocks": _Wiring(AttentionResidual(block=3, align="subsample"), "outside", preactivation=True),
    "hyper-connections": _Wiring(HyperConnections(align="subsample"), "outside", preactivation=True),
}


def resnet_dag(
    in_channels: int,
    num_classes: int,
    image_size: int,
    *,
    depth: int = 20,
    rule: str = "mrla-light",
    drop_path: float = 0.0,
) -> nn.Module:
    """`CifarResNet` of this depth with one of `RULES` put behind its blocks; [B, C, H, W] -> logits [B, num_classes].

    `drop_path` is the chance that MRLA's own branch is left out of a sample. Unlike in its authors' networks for
    ImageNet, the last norm of a residual branch begins at scale 1, as everywhere here: at 0 the channels that a
    shortcut without parameters pads would be 0 throughout, and MRLA's norm would multiply their gradients by 300.

    Raises:
        ValueError: an unknown rule, or drop_path with a rule that has none.
    """
    wiring = RULES[one_of(rule, RULES, "rule")]
    chosen = wiring.rule
    if drop_path:
        if not hasattr(chosen, "drop_path"):
            raise ValueError(f"drop_path is {drop_path}, but the rule {rule} has none: it is for the mrla rules")
        chosen = replace(chosen, drop_path=drop_path)  # type: ignore[call-arg]
    model = CifarResNet(
        in_channels,
        num_classes,
        depth=depth,
        shortcut=wiring.shortcut,
        preactivation=wiring.preactivation,
    )
    return wrap(model, wiring.behind, chosen, torch.zeros(1, in_channels, image_size, image_size))
