"""The suites hold what the tables of speed need, and are chosen from by name."""

from __future__ import annotations

import pytest

from graphattn.bench import SUITES, chosen
from graphattn.bench.epochs import EpochCase
from graphattn.bench.layers import LayerCase


@pytest.mark.parametrize("suite", SUITES)
def test_names_are_unique(suite: str) -> None:
    names = [case.name for case in SUITES[suite]]
    assert len(set(names)) == len(names)


def test_the_table_of_layers_is_whole() -> None:
    names = {case.name for case in SUITES["layers"]}
    for layer in ("gat", "gatv2", "transformer"):
        assert {f"{layer}-{of}" for of in ("ppi-50", "ppi-256", "ppi-1024", "arxiv", "pubmed", "cora")} <= names
    assert {"gat-edges-ppi", "epoch-cora"} <= names


def test_the_suite_of_scaling_grows_to_ten_million_edges() -> None:
    sizes = [case.graph.num_edges for case in SUITES["scaling"] if isinstance(case, LayerCase)]
    assert sizes == [10**4, 10**5, 10**6, 10**7] * 2 + [1_200_000]


def test_a_part_of_the_name_chooses() -> None:
    assert [case.name for case in chosen("layers", "gatv2-ppi")] == ["gatv2-ppi-50", "gatv2-ppi-256", "gatv2-ppi-1024"]
    assert chosen("layers") == list(SUITES["layers"])


def test_the_data_folder_reaches_the_epochs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (case,) = chosen("layers", "epoch-cora", tmp_path)
    assert isinstance(case, EpochCase) and case.data_folder == tmp_path


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown suite 'layer': did you mean 'layers'"):
        chosen("layer")
    with pytest.raises(ValueError, match="unknown case of the suite layers: 'gat-arxvi': did you mean 'gat-arxiv'"):
        chosen("layers", "gat-arxvi")
