"""A backbone as a feature pyramid: maps of several resolutions that all know what the coarsest one knows.

Lin, Dollár, Girshick, He, Hariharan and Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017. Of the
stages' outputs c_1, c_2, ..., from fine to coarse,

    m_i = conv1x1(c_i) + upsampled m_{i+1},     p_i = conv3x3(m_i)

where upsampling repeats the nearest pixel, to the size of c_i whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.depth.bare import loads_bare


class Pyramid(nn.Module):
    """`x` [B, C, H, W] -> {"0": p_1, "1": p_2, ...}, finest first, each [B, channels, H_i, W_i]; of any backbone.

    It is what torchvision's detectors take as their backbone: `out_channels` is there too.

    The stages are replaced by modules that also keep what they give: no hooks, so compile, DDP and state dicts hold,
    and state dicts of the bare backbone load. Wrap it in a rule of `graphattn.depth` before it is put here. All of it
    runs, what follows the last stage (a classifier) too; as that gets no gradient, its parameters are frozen.

    Args:
        backbone: any network in which each of the stages runs once and gives a map [B, C_i, H_i, W_i].
        stages: names of its submodules, such as "layer2".
        example: an input [B, C, H, W], run once in evaluation mode to learn the order and sizes of the maps.
        levels: so many maps, the finest ones, are given; default: all.
        frozen_stages: all that the first so many stages depend on keeps its parameters, and is in evaluation mode
            whatever the mode of the rest: batch statistics and DropPath too.
        norm_eval: all batch norms of the backbone are in evaluation mode; their scales and shifts still learn.

    Raises:
        ValueError: no or unknown stages, stages that do not run once or give no maps, or more frozen, or levels, than
            there are.
    """

    def __init__(
        self,
        backbone: nn.Module,
        stages: Sequence[str],
        example: Tensor,
        *,
        channels: int = 64,
        levels: int | None = None,
        frozen_stages: int = 0,
        norm_eval: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= frozen_stages <= len(stages):
            raise ValueError(f"frozen_stages is {frozen_stages}, needed 0 to {len(stages)}, as many as stages")
        levels = len(stages) if levels is None else levels
        if stages and not 1 <= levels <= len(stages):
            raise ValueError(f"levels is {levels}, needed 1 to {len(stages)}, as many as stages")
        self.backbone, self.out_channels, self.norm_eval = backbone, channels, norm_eval
        self.kept = Kept()
        maps, self.still = _tapped(backbone, stages, example, self.kept, frozen_stages)
        self.lateral = nn.ModuleList(nn.Conv2d(c.shape[1], channels, 1) for c in maps)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels))
        for convolution in (*self.lateral, *self.smooth):
            nn.init.kaiming_uniform_(convolution.weight, a=1)  # keeps the variance: no ReLU follows
            nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.kept.of(self.backbone, x)
        merged = [lateral(c) for lateral, c in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        return {str(i): smooth(m) for i, (smooth, m) in enumerate(zip(self.smooth, merged, strict=False))}

    def train(self, mode: bool = True) -> Pyramid:
        super().train(mode)
        for module in self.still:
            module.eval()
        if self.norm_eval:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class Kept:
    """What the stages give while somebody asks: nothing is retained, nor kept at all where the backbone runs alone."""

    def __init__(self) -> None:
        self.maps: list[Tensor] | None = None

    def of(self, backbone: nn.Module, x: Tensor) -> list[Tensor]:
        """The stages' outputs for the input `x`, as they run."""
        maps = self.maps = []
        try:
            backbone(x)
        finally:
            self.maps = None
        return maps


class Tap(nn.Module):
    """A stage that also keeps what it gives."""

    def __init__(self, stage: nn.Module, kept: Kept) -> None:
        super().__init__()
        self.stage, self.kept = stage, kept
        loads_bare(self, "stage")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.stage(*args, **kwargs)
        if self.kept.maps is not None:
            self.kept.maps.append(out)
        return out


def _tapped(
    backbone: nn.Module, stages: Sequence[str], example: Tensor, kept: Kept, frozen_stages: int
) -> tuple[list[Tensor], list[nn.Module]]:
    """Replace the stages; their maps of the example, and the modules that are frozen with the first of them."""
    known = dict(backbone.named_modules())
    unknown = [name for name in stages if not name or name not in known]
    if not stages or unknown:
        children = ", ".join(name for name, _ in backbone.named_children())
        wrong = f"no stage {unknown[0]!r}" if unknown else "no stages named"
        raise ValueError(f"the backbone has {wrong}: needed names of its submodules; its children are {children}")
    inner_first = sorted(stages, key=lambda name: -name.count("."))
    for name in inner_first:
        backbone.set_submodule(name, Tap(known[name], kept))
    learns = {p: p.requires_grad for p in backbone.parameters()}
    try:
        maps = _observed(backbone, stages, example, kept)
        used, frozen = _reached(maps, list(learns)), _reached(maps[:frozen_stages], list(learns))
    except Exception:
        for name in reversed(inner_first):
            backbone.set_submodule(name, known[name])
        raise
    finally:
        for p, before in learns.items():
            p.requires_grad_(before)
    for p in set(learns) - (used - frozen):
        p.requires_grad_(False)
    owners = ((module, set(module.parameters())) for module in backbone.modules())
    return maps, [module for module, owned in owners if owned and owned <= frozen]


def _observed(backbone: nn.Module, stages: Sequence[str], example: Tensor, kept: Kept) -> list[Tensor]:
    """The maps of `example`, with their way back to all parameters."""
    backbone.requires_grad_()
    training = {module: module.training for module in backbone.modules()}
    try:
        with torch.enable_grad():
            maps = kept.of(backbone.eval(), example)
    finally:
        for module, mode in training.items():
            module.training = mode
    found = ", ".join(str(list(c.shape)) if isinstance(c, Tensor) else f"a {type(c).__name__}" for c in maps)
    if len(maps) != len(stages) or not all(isinstance(c, Tensor) and c.dim() == 4 for c in maps):
        raise ValueError(f"the stages {', '.join(stages)} gave {found or 'nothing'}; needed a map [B, C, H, W] of each")
    heights, widths = [c.shape[2] for c in maps], [c.shape[3] for c in maps]
    if heights != sorted(heights, reverse=True) or widths != sorted(widths, reverse=True):
        raise ValueError(f"the stages {', '.join(stages)} gave {found} in this order, needed the finest first")
    return maps


def _reached(maps: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """Those on which any of the maps depends."""
    if not maps or not parameters:
        return set()
    found = torch.autograd.grad([c.sum() for c in maps], list(parameters), retain_graph=True, allow_unused=True)
    return {p for p, gradient in zip(parameters, found, strict=True) if gradient is not None}
