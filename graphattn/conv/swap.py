"""Our layers in models that build PyG's: PyG's own `models.GAT`, and any model at all."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn import conv as pyg
from torch_geometric.nn import models as pyg_models

from graphattn.conv.gat import GATConv
from graphattn.conv.gatv2 import GATv2Conv
from graphattn.conv.transformer import TransformerConv

_OURS = {pyg.GATConv: GATConv, pyg.GATv2Conv: GATv2Conv, pyg.TransformerConv: TransformerConv}


def swap(model: nn.Module) -> nn.Module:
    """Turns every PyG attention layer in `model` into ours, in place: same parameter tensors, hooks and state dict.

    Only PyG's own classes are turned; a subclass of one may compute something else and stays as it is.
    """
    for module in model.modules():
        ours = _OURS.get(type(module))
        if ours is not None:
            module.__class__ = ours
            if isinstance(module, GATConv):
                module.feature_dropout = 0.0
    return model


class GAT(pyg_models.GAT):
    """`torch_geometric.nn.models.GAT` built of our `GATConv` and `GATv2Conv`; arguments and state dict are PyG's."""

    def init_conv(self, in_channels: int | tuple[int, int], out_channels: int, **kwargs: Any) -> MessagePassing:
        return swap(super().init_conv(in_channels, out_channels, **kwargs))
