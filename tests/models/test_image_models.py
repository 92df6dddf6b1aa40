"""What holds for every model of images."""

from __future__ import annotations

import inspect

import pytest
import torch
from cases import close
from torch import Tensor, nn

from graphattn.models import IMAGE_MODELS, MODELS

CLASSES, BATCH, CHANNELS = 5, 3, 2
CASES: dict[str, tuple[str, int, dict[str, object]]] = {  # a model, the images' size, options that make it small
    "resnet": ("resnet", 8, {"depth": 14, "width": 4}),
    "resnet, B": ("resnet", 8, {"depth": 14, "width": 4, "shortcut": "B", "zero_init_residual": True}),
    "resnet, plain": ("resnet", 8, {"depth": 14, "width": 4, "shortcut": "none"}),
    "resnet, bare": ("resnet", 8, {"depth": 14, "width": 4, "shortcut": "outside"}),
    "resnet, pre-activation": ("resnet", 8, {"depth": 14, "width": 4, "preactivation": True}),
    "resnet, odd size": ("resnet", 9, {"depth": 8, "width": 3}),
    "resnet-dag": ("resnet-dag", 8, {"depth": 14, "rule": "mrla-base"}),
    "resnet-dag, bare": ("resnet-dag", 8, {"depth": 14, "rule": "hyper-connections"}),
    "resnet-imagenet": ("resnet-imagenet", 32, {"depth": 18}),
    "resnet-imagenet, bottlenecks": ("resnet-imagenet", 32, {"depth": 50, "stem": "3x3"}),
    "attention-wise": ("attention-wise", 8, {}),
    "attention-wise, all": (
        "attention-wise",
        5,
        {"heads": 2, "num_layers": 3, "batch_norm": True, "norm_weights": "drawn", "skip": False, "score_bias": True}
        | {"score_affine": True, "score_eps": 1e-3, "score_cumulative": True, "conv_bias": False},
    ),
    "control": ("control", 8, {}),
    "efficientnet": ("efficientnet", 32, {"dropout": 0.5}),
    "efficientnet, drop path": ("efficientnet", 16, {"stem_stride": 1, "drop_path": 0.3}),
    "vgg": ("vgg", 32, {"width": 4}),
    "vgg, odd size": ("vgg", 37, {"depth": 11, "width": 2}),
    "vit": ("vit", 8, {"patch": 4, "width": 12, "depth": 2}),
    "vit, drop path": ("vit", 6, {"patch": 2, "width": 12, "depth": 3, "drop_path": 0.3}),
}
COMPILED = [  # one case of each way through a forward pass
    *("attention-wise", "control", "efficientnet, drop path", "resnet", "resnet, bare", "resnet, pre-activation"),
    *("resnet-dag", "resnet-imagenet", "vgg, odd size", "vit, drop path"),
]


def built(case: str) -> nn.Module:
    torch.manual_seed(0)
    name, size, options = CASES[case]
    builder = MODELS[name]
    extra = (size,) if "image_size" in inspect.signature(builder).parameters else ()
    return builder(CHANNELS, CLASSES, *extra, **options)


def images(case: str, dtype: torch.dtype = torch.float32) -> Tensor:
    size = CASES[case][1]
    return torch.randn(BATCH, CHANNELS, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_every_model_of_images_is_among_the_cases() -> None:
    for cases in (CASES, COMPILED):
        assert {CASES[case][0] for case in cases} == set(IMAGE_MODELS)


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_logits_an_image_and_a_gradient_for_every_parameter(case: str) -> None:
    model = built(case)
    out = model(images(case))
    assert out.shape == (BATCH, CLASSES) and out.isfinite().all()
    out.square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("case", CASES)
def test_images_do_not_see_each_other(case: str) -> None:
    model, x = built(case).double().eval(), images(case, torch.float64)
    close(model(x.flip(0)), model(x).flip(0))
    close(model(x[:1]), model(x)[:1])


@pytest.mark.parametrize("case", CASES)
def test_channels_last_changes_no_number(case: str) -> None:
    model, x = built(case).double().eval(), images(case, torch.float64)
    expected = model(x)
    close(model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_follows_float32(case: str) -> None:
    model, x = built(case).eval(), images(case)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert (out.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("case", COMPILED)
def test_no_graph_breaks(case: str) -> None:
    model, x = built(case).train(), images(case)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    expected = model(x)
    model.load_state_dict(state)
    torch.manual_seed(0)
    close(torch.compile(model, fullgraph=True, backend="eager")(x), expected)
