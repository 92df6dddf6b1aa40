"""The examples run, and the table says of each rule what its class does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from nets import BLOCKS, SmallNet, images

from graphattn import depth
from graphattn.depth import Rule, wrap

TEXT = (Path(depth.__file__).parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
RULES = [
    kind
    for name in depth.__all__
    if isinstance(kind := getattr(depth, name), type) and issubclass(kind, Rule) and kind is not Rule
]


def test_wrapping() -> None:
    scope: dict[str, object] = {}
    exec(EXAMPLES[0], scope)
    weights = scope["weights"]
    assert isinstance(weights, dict) and len(weights) == 16
    assert weights["layer3.5"].shape == (2, 64, 6)


def test_behind_the_layers_of_a_graph_network() -> None:
    scope: dict[str, object] = {}
    exec(EXAMPLES[1], scope)
    found = scope["found"]
    assert isinstance(found, depth.AttentionMap)
    assert found.sources == ["entry", *(f"convs.{i}" for i in range(1, 6))]
    torch.testing.assert_close(found.weights.sum(1), torch.ones(5))


def test_as_the_backbone_of_a_detector() -> None:
    scope: dict[str, object] = {}
    exec(EXAMPLES[2], scope)
    maps = scope["maps"]
    assert isinstance(maps, dict)
    assert {level: tuple(p.shape) for level, p in maps.items()} == {
        str(i): (2, 256, 16 >> i, 16 >> i) for i in range(4)
    }


def test_a_rule_of_ones_own() -> None:
    scope: dict[str, object] = {}
    exec(EXAMPLES[3], scope)
    rule = scope["Mean"]()  # type: ignore[operator]
    model = wrap(SmallNet(), BLOCKS, rule, images())
    assert model(images()).isfinite().all()
    assert torch.equal(rule.graph(3).receivers, torch.tensor([0, 1, 1, 2, 2, 2]))


@pytest.mark.parametrize("kind", RULES)
def test_facts(kind: type[Rule]) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{kind.__name__}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    said = {True: "yes", False: "no"}
    facts = [kind.score, kind.normalisation, kind.cost, said[kind.identity], said[kind.replaces_shortcut]]
    assert cells[2:] == facts
