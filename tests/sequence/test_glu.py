"""The gated linear unit against its formula."""

import torch
from cases import close

from graphattn.sequence import GLU, glu


def test_the_first_half_of_the_channels_is_gated_by_the_second():
    x = torch.randn(2, 3, 8)
    close(glu(x), x[..., :4] * torch.sigmoid(x[..., 4:]))


def test_the_module_gates_one_linear_map_by_another():
    layer, x = GLU(5, 4), torch.randn(2, 3, 5)
    value, gate = layer.linear.weight.chunk(2)
    assert (layer.linear.bias == 0).all()
    close(layer(x), (x @ value.T) * torch.sigmoid(x @ gate.T))
    assert 0.8 * (6 / 13) ** 0.5 < layer.linear.weight.abs().max() <= (6 / 13) ** 0.5
