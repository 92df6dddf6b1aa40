"""The vision transformer: an image as a sequence of patches, with a class token in front.

Papers: Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021; Touvron et al., Training Data-Efficient Image
Transformers, ICML 2021 (DeiT), of which this is the form without distillation token. Names of parameters are timm's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.depth.drop_path import DropPath, growing


class VisionTransformer(nn.Module):
    """`x` [B, in_channels, image_size, image_size] -> logits [B, num_classes].

    Patches of `patch` x `patch` pixels are mapped to `width` channels and put behind a class token, [B, T, width] with
    T = 1 + (image_size / patch)^2; learned positions are added; `depth` blocks; a layer norm; a linear map of the class
    token. By default this is DeiT-T, for small images with `patch=4` or so; DeiT-S has `width=384, heads=6`, DeiT-B
    `width=768, heads=12`. `drop_path` is the last block's probability, which grows from 0 in equal steps.

    Raises:
        ValueError: an image that patches do not cover, a width that heads do not divide, images of another size.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        patch: int = 16,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_ratio: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size < patch or image_size % patch:
            raise ValueError(f"image_size is {image_size}, needed a multiple of patch, which is {patch}")
        self.in_channels, self.image_size = in_channels, image_size
        self.patch_embed = PatchEmbedding(in_channels, width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_ratio, p) for p in growing(drop_path, depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (self.in_channels, self.image_size, self.image_size):
            raise ValueError(
                f"images are {list(x.shape[1:])}, needed {[self.in_channels, self.image_size, self.image_size]}: its "
                f"positions are learned for one size"
            )
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class PatchEmbedding(nn.Module):
    """A linear map of each patch: [B, in_channels, H, W] -> [B, (H / patch) (W / patch), width], row by row."""

    def __init__(self, in_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """x <- x + attention(norm(x)), then x <- x + mlp(norm(x)); x [B, T, width]. Each branch has its `drop_path`."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Perceptron(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(D)) v over the tokens, of `heads` heads of D = width / heads channels, and a linear map.

    `x` [B, T, width] -> [B, T, width].
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width is {width}, needed a multiple of heads, which is {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # [B, H, T, D]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Two linear maps, GELU between: `x` [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _initialise(model: VisionTransformer) -> None:
    """As in DeiT: normal weights, class token and positions of deviation 0.02, biases 0; patches as PyTorch does."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.cls_token, std=0.02)
    nn.init.trunc_normal_(model.pos_embed, std=0.02)
