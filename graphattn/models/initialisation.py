"""How the convolutional networks' weights begin."""

from __future__ import annotations

import math

from torch import nn


def he_initialise(model: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 2 / fan_out), in place, and set their biases to 0.

    fan_out = output channels of a group x kernel height x kernel width (PyTorch's own counts those of all groups), so
    that gradients keep their size through a convolution and a ReLU. Batch norms keep PyTorch's beginning (scale 1,
    shift 0), linear layers theirs (uniform).

    Paper: He et al., Delving Deep into Rectifiers, ICCV 2015, equation 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
