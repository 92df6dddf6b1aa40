"""Attention over sequences: lightweight and dynamic convolution, batch first."""

from graphattn.sequence.dynamicconv import DynamicConv, dynamic_conv
from graphattn.sequence.glu import GLU, glu
from graphattn.sequence.lightconv import LightweightConv, lightweight_conv
from graphattn.sequence.ring import Ring

__all__ = ["GLU", "DynamicConv", "LightweightConv", "Ring", "dynamic_conv", "glu", "lightweight_conv"]
