"""Tokens and their places against the formulas."""

import math

import torch
from cases import close

from graphattn.sequence import TokenEmbedding
from graphattn.sequence.embedding import sinusoids


def test_places_are_the_published_sinusoids_from_any_place_on():
    made = sinusoids(0, 6, 4, torch.float64)
    for t in range(6):
        expected = [math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)]
        close(made[t], torch.tensor(expected, dtype=torch.float64))
    close(sinusoids(4, 2, 4, torch.float64), made[4:])
    assert sinusoids(0, 3, 5).shape == (3, 5)
    assert sinusoids(0, 0, 4).shape == (0, 4)


def test_tokens_are_scaled_rows_plus_their_places_and_padding_is_its_place_alone():
    layer, tokens = TokenEmbedding(7, 16, padding=0), torch.tensor([[3, 5, 0]])
    out = layer(tokens, start=2)
    close(out, 4 * layer.weight[tokens] + sinusoids(2, 3, 16))
    close(out[0, 2], sinusoids(4, 1, 16)[0])
    out.sum().backward()
    assert (layer.weight.grad[0] == 0).all()


def test_the_table_is_drawn_with_variance_one_over_channels():
    weight = TokenEmbedding(2000, 64, padding=0).weight[1:]
    assert abs(weight.std().item() * 8 - 1) < 0.02


def test_dropout_is_on_tokens_and_places():
    layer = TokenEmbedding(7, 16, padding=0, dropout=1.0)
    assert (layer(torch.tensor([[1, 2]])) == 0).all()
