"""Attention over the pixels of a grid. One paper a file."""

from graphattn.grid.attention_wise import AttentionWise, Steps
from graphattn.grid.reference import scores

__all__ = ["AttentionWise", "Steps", "scores"]
