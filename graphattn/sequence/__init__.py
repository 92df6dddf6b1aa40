"""Attention over sequences, batch first: lightweight and dynamic convolution, self-attention, and blocks of them."""

from graphattn.sequence.attention import CrossAttention, SelfAttention, multihead_attention
from graphattn.sequence.blocks import DecoderBlock, EncoderBlock
from graphattn.sequence.dynamicconv import DynamicConv, dynamic_conv
from graphattn.sequence.embedding import TokenEmbedding
from graphattn.sequence.glu import GLU, glu
from graphattn.sequence.lightconv import LightweightConv, lightweight_conv
from graphattn.sequence.mixer import MIXERS, make_mixer
from graphattn.sequence.ring import Ring

__all__ = [
    "GLU",
    "MIXERS",
    "CrossAttention",
    "DecoderBlock",
    "DynamicConv",
    "EncoderBlock",
    "LightweightConv",
    "Ring",
    "SelfAttention",
    "TokenEmbedding",
    "dynamic_conv",
    "glu",
    "lightweight_conv",
    "make_mixer",
    "multihead_attention",
]
