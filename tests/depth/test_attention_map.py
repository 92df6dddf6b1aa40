"""The map of who reads whom."""

from __future__ import annotations

import pytest
import torch
from nets import BLOCKS, SmallNet, images

from graphattn.depth import (
    AttentionResidual,
    DepthWeighted,
    MRLABase,
    MRLALight,
    ScalarMix,
    SelfAttentive,
    attention_map,
    recorded,
    wrap,
)

SIX = [f"layer{stage}.{block}" for stage in (1, 2) for block in range(3)]


def test_a_row_sums_to_one_over_the_readers_own_stage() -> None:
    found = attention_map(wrap(SmallNet(), BLOCKS, MRLABase(dim=4), images()), images(3))
    assert found.readers == found.sources == SIX
    torch.testing.assert_close(found.weights.sum(1), torch.ones(6))
    assert bool((found.weights[:3, 3:] == 0).all() and (found.weights[3:, :3] == 0).all())
    assert bool((found.weights.triu(1) == 0).all() and (found.weights.tril()[:3, :3].diagonal() > 0).all())


def test_what_enters_is_a_source_where_it_is_read() -> None:
    model = wrap(SmallNet(), BLOCKS, DepthWeighted(scope="network", align="subsample", dilation=2), images())
    with torch.no_grad():
        model.layer1[1].rule.weights.copy_(torch.tensor([0.25, 2.0]))
    found = attention_map(model, images())
    assert found.sources == ["entry", *SIX]
    assert found.weights[1].tolist() == [0.25, 0, 2, 0, 0, 0, 0]


def test_a_layer_alone_reads_what_enters_and_itself() -> None:
    found = attention_map(wrap(SmallNet(), "layer2.0", SelfAttentive(entry=True), images()), images())
    assert (found.readers, found.sources) == (["layer2.0"], ["entry", "layer2.0"])
    assert bool((found.weights > 0).all()) and found.weights.sum().isclose(torch.tensor(1.0))


def test_only_readers_have_rows() -> None:
    found = attention_map(wrap(SmallNet(), BLOCKS, ScalarMix(), images()), images())
    assert found.readers == ["layer1.2", "layer2.2"]
    torch.testing.assert_close(found.weights[1], torch.tensor([0.0, 0, 0, 1 / 3, 1 / 3, 1 / 3]))


def test_blocks_of_branches_share_a_weight() -> None:
    model = wrap(SmallNet(bare=True), BLOCKS, AttentionResidual(block=2, align="subsample"), images())
    weights = attention_map(model, images()).weights[5]
    torch.testing.assert_close(weights, torch.full((7,), 1 / 4))  # the entry and three sums of two


def test_some_of_the_samples() -> None:
    model, x = wrap(SmallNet(), BLOCKS, MRLABase(), images()), images(4)
    some = torch.tensor([True, False, True, False])
    torch.testing.assert_close(attention_map(model, x, some).weights, attention_map(model, x[some]).weights)
    with recorded(model) as shown:
        model.eval()(x)
    assert shown["layer1.0"].shape[0] == 4


def test_modes_stay_and_rules_without_weights_say_so() -> None:
    model = wrap(SmallNet(), BLOCKS, MRLABase(), images())
    attention_map(model, images())
    assert model.training
    with pytest.raises(ValueError, match="this rule has no weights to show"):
        attention_map(wrap(SmallNet(), BLOCKS, MRLALight(), images()), images())
