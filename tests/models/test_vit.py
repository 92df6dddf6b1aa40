"""The vision transformer: DeiT's sizes, timm's names, and PyTorch's encoder layer as judge."""

from __future__ import annotations

import pytest
import torch
from cases import close
from torch import Tensor, nn

from graphattn.depth import DepthWeighted, MRLABaseTokens, MRLALightTokens, wrap
from graphattn.depth.drop_path import DropPath
from graphattn.models.vit import Block, PatchEmbedding, VisionTransformer

DEIT = {(192, 3): 5_717_416, (384, 6): 22_050_664, (768, 12): 86_567_656}  # width and heads: parameters


@pytest.mark.parametrize(("width", "heads"), DEIT)
def test_published_sizes(width: int, heads: int) -> None:
    with torch.device("meta"):
        model = VisionTransformer(3, 1000, 224, width=width, heads=heads)
        assert sum(p.numel() for p in model.parameters()) == DEIT[width, heads]
        assert model.pos_embed.shape == (1, 197, width)


@pytest.mark.parametrize(
    ("width", "base", "light"), [(192, 25_464, 32_376), (384, 50_808, 64_632), (768, 101_496, 129_144)]
)
def test_published_sizes_of_layer_attention(width: int, base: int, light: int) -> None:
    for rule, added in ((MRLABaseTokens(), base), (MRLALightTokens(), light)):
        with torch.device("meta"):
            model = VisionTransformer(3, 1000, 224, width=width, heads=width // 64)
            before = sum(p.numel() for p in model.parameters())
            wrap(model, "blocks.*", rule, torch.empty(1, 3, 224, 224))
        assert sum(p.numel() for p in model.parameters()) - before == added


def test_state_dicts_have_timms_keys() -> None:
    model = VisionTransformer(3, 10, 32, patch=8, width=8, depth=2, heads=2)
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    keys = [f"blocks.{i}.{part}.{kind}" for i in range(2) for part in parts for kind in ("weight", "bias")]
    both = [f"{part}.{kind}" for part in ("norm", "head") for kind in ("weight", "bias")]
    first = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert list(model.state_dict()) == [*first, *keys, *both]


def judged(block: Block, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with the block's weights."""
    judge = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    names = {"attn.qkv": "self_attn.in_proj", "attn.proj": "self_attn.out_proj", "mlp.fc1": "linear1"}
    names |= {"mlp.fc2": "linear2", "norm1": "norm1", "norm2": "norm2"}
    state = {}
    for key, value in block.state_dict().items():
        part, kind = key.rsplit(".", 1)
        state[f"{names[part]}_{kind}" if part == "attn.qkv" else f"{names[part]}.{kind}"] = value
    judge.load_state_dict(state)
    return judge


def test_a_block_is_pytorchs_encoder_layer() -> None:
    block = Block(12, 3).double()
    for p in block.parameters():
        nn.init.normal_(p)
    judge = judged(block, 12, 3)
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    close(block(x), judge(y))
    block(x).sin().sum().backward()
    judge(y).sin().sum().backward()
    close(x.grad, y.grad)
    close(block.attn.qkv.weight.grad, judge.self_attn.in_proj_weight.grad)
    close(block.mlp.fc1.weight.grad, judge.linear1.weight.grad)


def test_patches_are_read_row_by_row() -> None:
    embedding = PatchEmbedding(3, 5, 4).double()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    found = embedding(x)
    assert found.shape == (2, 6, 5)
    weight, bias = embedding.proj.weight.flatten(1), embedding.proj.bias
    assert bias is not None
    for i in range(6):
        row, column = 4 * (i // 3), 4 * (i % 3)
        patch = x[:, :, row : row + 4, column : column + 4].flatten(1)
        close(found[:, i], patch @ weight.T + bias)


def small(**options: float) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(3, 10, 16, patch=4, width=12, depth=4, heads=3, **options).double()  # type: ignore[arg-type]


def permuted(x: Tensor, order: Tensor) -> Tensor:
    """The image whose patches of 4 x 4 pixels are those of `x`, in another order."""
    patches = x.unflatten(2, (4, 4)).unflatten(4, (4, 4)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[:, order]
    return patches.unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def test_only_positions_tell_patches_apart() -> None:
    model, x = small().eval(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    other = permuted(x, torch.randperm(16, generator=torch.Generator().manual_seed(2)))
    assert not torch.allclose(model(other), model(x), rtol=0, atol=1e-6)
    nn.init.zeros_(model.pos_embed)
    close(model(other), model(x))


def test_blocks_are_left_out_more_often_the_later_they_come() -> None:
    model = small(drop_path=0.3)
    rates = [module.probability for module in model.modules() if isinstance(module, DropPath)]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([0.0, 0.1, 0.2, 0.3]))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    close(model.eval()(x), small().eval()(x), "none is left out in evaluation")
    assert not torch.equal(model.train()(x), model(x))


def test_either_branch_of_a_block_is_left_out_by_itself() -> None:
    block = Block(12, 3, drop_path=0.5).double()
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    heard = x + 2 * block.attn(block.norm1(x))
    outcomes = [y + more * block.mlp(block.norm2(y)) for y in (x, heard) for more in (0, 2)]
    found = {tuple(torch.isclose(row, out).all().item() for out in outcomes) for row in block(x.expand(64, -1, -1))}
    assert found == {tuple(i == j for j in range(4)) for i in range(4)}


def test_its_blocks_can_be_wrapped() -> None:
    model, x = small().eval(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = model(x)
    wrapped = wrap(model, "blocks.*", DepthWeighted(), x)
    close(wrapped(x), expected, "which begins as the identity")


def test_weights_begin_as_deits() -> None:
    model = VisionTransformer(3, 10, 32, patch=4)
    for weight in (model.cls_token, model.pos_embed, model.blocks[3].attn.qkv.weight, model.head.weight):
        assert abs(weight.std().item() / 0.02 - 1) < 0.15
    assert not model.head.bias.any()


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 30, needed a multiple of patch, which is 4"):
        VisionTransformer(3, 10, 30, patch=4)
    with pytest.raises(ValueError, match="image_size is 8, needed a multiple of patch, which is 16"):
        VisionTransformer(3, 10, 8)
    with pytest.raises(ValueError, match="width is 12, needed a multiple of heads, which is 5"):
        VisionTransformer(3, 10, 8, patch=4, width=12, heads=5)
    with pytest.raises(ValueError, match=r"images are \[3, 32, 32\], needed \[3, 16, 16\]"):
        small()(torch.zeros(2, 3, 32, 32, dtype=torch.float64))
