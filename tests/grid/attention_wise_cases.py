"""Layers and images that the tests of Attention-Wise share."""

import torch

from graphattn.grid import AttentionWise

SHAPES = {  # images, channels, heads, height, width
    "square": (5, 1, 3, 6, 6),
    "wide": (3, 2, 2, 4, 7),
    "tall": (4, 3, 1, 9, 2),
    "one row": (6, 1, 2, 1, 5),
    "one column": (6, 2, 1, 5, 1),
    "one pixel": (7, 1, 2, 1, 1),
    "more than a register": (2, 1, 1, 3, 40),
    "chunks of images": (70, 1, 2, 3, 3),
}
OPTIONS = {
    "plain": {},
    "batch norm": {"batch_norm": True},
    "no skip": {"skip": False},
    "score bias": {"score_bias": True},
    "no conv bias, small eps": {"conv_bias": False, "score_eps": 1e-9},
    "cumulative statistics": {"score_cumulative": True},
}


def layer(shape, dtype=torch.float64, std=1.0, **options):
    _, channels, heads, height, width = shape
    made = AttentionWise(channels, (height, width), heads, std=std, **options).to(dtype)
    for bias in (made.x_bias, made.y_bias, made.conv.bias):
        if bias is not None:
            torch.nn.init.normal_(bias)
    return made


def images(shape, dtype=torch.float64):
    batch, channels, _, height, width = shape
    return torch.randn(batch, channels, height, width, dtype=dtype, requires_grad=True)


def answer(made, x, run=None):
    """The output and the gradients of x and of every parameter."""
    wanted = [x, *made.parameters()]
    out = (made if run is None else run)(x)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out)
    return out, torch.autograd.grad(out, wanted, grad)
