"""Attention-Wise networks: layers of element-wise attention, then one linear layer over all pixels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from graphattn.grid import AttentionWise, Steps


class AttentionWiseNetwork(nn.Module):
    """`x` [B, C, S, S] -> logits [B, classes]. The paper's models A to H are heads 8 or 16, layers 2 or 4, and
    `batch_norm` or not; B is the default.

    All weights are drawn from N(0, 0.02^2), biases begin at 0. `norm_weights`: the scales of the `batch_norm`s begin at
    one, as torch has them, or are `drawn` as all other weights, which the paper's words include.
    The other options are those of `grid.AttentionWise`.

    Paper: Bacochina and de Souza, Element-Wise Attention Layers: an option for optimization, arXiv:2302.05488. It ends
    in a LogSoftmax, which here is part of the loss.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        heads: int = 8,
        num_layers: int = 2,
        batch_norm: bool = False,
        norm_weights: Literal["one", "drawn"] = "one",
        skip: bool = True,
        score_bias: bool = False,
        score_affine: bool = False,
        score_eps: float = 1e-5,
        score_cumulative: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}, needed at least 1")
        if norm_weights == "drawn" and not batch_norm:
            raise ValueError("norm_weights is 'drawn' without batch_norm, whose scales are meant: set both")
        layers = [
            AttentionWise(
                in_channels,
                image_size,
                heads,
                batch_norm=batch_norm,
                skip=skip,
                score_bias=score_bias,
                score_affine=score_affine,
                score_eps=score_eps,
                score_cumulative=score_cumulative,
                conv_bias=conv_bias,
            )
            for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.fc = nn.Linear(in_channels * image_size**2, num_classes)
        nn.init.normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)
        for norm in (layer.batch_norm for layer in layers):
            if norm is not None and norm_weights == "drawn":
                nn.init.normal_(norm.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.flatten(1))

    def inspect(self, x: Tensor) -> list[Steps]:
        """All steps of each layer, for pictures."""
        steps = []
        for layer in self.layers:
            assert isinstance(layer, AttentionWise)
            steps.append(layer.inspect(x))
            x = steps[-1].output
        return steps
