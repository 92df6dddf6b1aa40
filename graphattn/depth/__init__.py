"""Attention over the layers of a network: rules, and `wrap`, which puts one behind the blocks of any model."""

from graphattn.depth.attention_map import AttentionMap, attention_map
from graphattn.depth.attention_residual import AttentionResidual
from graphattn.depth.channel_attention import ChannelAttention
from graphattn.depth.dense import Dense
from graphattn.depth.depth_weighted import DepthWeighted
from graphattn.depth.dla import HierarchicalAggregation, IterativeAggregation
from graphattn.depth.hyper import HyperConnections
from graphattn.depth.memory import LayerMemory
from graphattn.depth.mrla import MRLABase, MRLALight
from graphattn.depth.mrla_tokens import MRLABaseTokens, MRLALightTokens
from graphattn.depth.residual import Plain, Residual
from graphattn.depth.rule import Place, Rule
from graphattn.depth.scalar_mix import ScalarMix
from graphattn.depth.self_attentive import SelfAttentive
from graphattn.depth.wrap import recorded, wrap

__all__ = [
    "AttentionMap",
    "AttentionResidual",
    "ChannelAttention",
    "Dense",
    "DepthWeighted",
    "HierarchicalAggregation",
    "HyperConnections",
    "IterativeAggregation",
    "LayerMemory",
    "MRLABase",
    "MRLABaseTokens",
    "MRLALight",
    "MRLALightTokens",
    "Place",
    "Plain",
    "Residual",
    "Rule",
    "ScalarMix",
    "SelfAttentive",
    "attention_map",
    "recorded",
    "wrap",
]
