"""Attention-Wise networks: the paper's counts, how weights begin, and the generated page about them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cases import close
from torch import nn

from graphattn.models import IMAGE_MODELS
from graphattn.models.attention_wise import AttentionWiseNetwork

ROOT = Path(__file__).resolve().parents[2]


def _page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attention_wise_page", ROOT / "docs" / "attention_wise.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PAGE = _page()
RUNS = {
    "A": 33_088,
    "B": 33_084,
    "C": 58_320,
    "D": 58_316,
    "E": 58_326,
    "F": 58_318,
    "G": 108_790,
    "H": 108_782,
    "single head": 11_006,
    "CIFAR-10": 229_942,
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("quoted", PAGE.QUOTED, ids=lambda quoted: quoted.name)
def test_networks_as_described_have_these_sizes(quoted) -> None:  # type: ignore[no-untyped-def]
    build = IMAGE_MODELS["attention-wise"]
    options = {"heads": quoted.heads, "num_layers": quoted.layers, "batch_norm": quoted.batch_norm}
    model = build(quoted.channels, 10, quoted.size, **options)
    assert parameters(model) == RUNS[quoted.name] == quoted.runs()
    assert quoted.runs() + sum(quoted.differences().values()) == quoted.count == sum(quoted.terms().values())


def test_only_b_and_f_have_the_sizes_they_are_said_to_have() -> None:
    assert [quoted.name for quoted in PAGE.QUOTED if not quoted.differences()] == ["B", "F"]


def as_counted(quoted) -> nn.Module:  # type: ignore[no-untyped-def]
    """The modules whose parameters the paper counts: the convolution is from 8 heads, the norm of scores is shared."""
    c, n = quoted.channels, quoted.heads
    layers = nn.ModuleList(
        nn.ParameterDict({axis: torch.empty(n, c, quoted.size, quoted.size) for axis in "xy"})
        for _ in range(quoted.layers)
    )
    merging = nn.ModuleList(nn.Conv2d(8 * c, c, 3) for _ in range(quoted.layers))
    norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(quoted.layers * quoted.batch_norm))
    shared = nn.BatchNorm2d(n * c, affine=quoted.scores_norm)
    return nn.ModuleList([layers, merging, norms, shared, nn.Linear(quoted.pixels, quoted.outputs)])


def test_the_papers_twelve_counts_follow_from_one_reading() -> None:
    found = {quoted.name: parameters(as_counted(quoted)) for quoted in PAGE.QUOTED}
    found |= {name: parameters(IMAGE_MODELS["control"](c, 10, size)) for name, (c, size, _) in PAGE.CONTROLS.items()}
    assert found == {
        "A": 33_104,
        "B": 33_084,
        "C": 58_208,
        "D": 58_172,
        "E": 58_342,
        "F": 58_318,
        "G": 108_534,
        "H": 108_494,
        "single head": 11_132,
        "CIFAR-10": 506_560,
        "control": 929_510,
        "control, CIFAR-10": 961_310,
    }


def test_the_page_is_what_its_maker_writes() -> None:
    written = (ROOT / "docs" / "attention-wise.md").read_text(encoding="utf-8")
    assert written == PAGE.page(), "run `python docs/attention_wise.py`"


def test_results_are_told_beside_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(PAGE, "ROOT", tmp_path)
    seeds = [{"test_accuracy": 80.0 + k, "train_loss": 0.5 + k, "gradient": 1e-4} for k in range(2)]
    for name, parameters in (("attention-wise-b", 33_084), ("attention-wise-control", 929_510)):
        source, folder = ROOT / "experiments/fashion-mnist" / name, tmp_path / "experiments/fashion-mnist" / name
        folder.mkdir(parents=True)
        (folder / "definition.toml").write_bytes((source / "definition.toml").read_bytes())
        definition = {"data": {"name": "fashion-mnist"}, "train": {"batch": 4096}}
        result = {"test_accuracy": {"mean": 80.5 if "-b" in name else 92.0}}
        record = {"definition": definition, "seeds": seeds, "result": result, "parameters": parameters}
        (folder / "result.json").write_text(json.dumps(record))
    page = PAGE.page()
    row = "| fashion-mnist/attention-wise-b | 80.50 ± 0.71 | 81.46 | 15.00 ± 10.61 | 7.59 | 1.0e-04 | 2 |"
    assert row in page.splitlines()
    assert "| fashion-mnist/attention-wise-b, unshrunk | not run here |  | |  | | |" in page.splitlines()
    assert "has 96.4 % fewer parameters than its control and 87.5 % of its accuracy" in page
    assert "cifar10/attention-wise has" not in page


def test_weights_begin_as_published() -> None:
    model = AttentionWiseNetwork(3, 10, 32, heads=8, batch_norm=True)
    drawn = AttentionWiseNetwork(3, 10, 32, heads=8, batch_norm=True, norm_weights="drawn")
    assert abs(model.fc.weight.std().item() / 0.02 - 1) < 0.1 and not model.fc.bias.any()
    for network, one in ((model, True), (drawn, False)):
        scales = torch.stack([layer.batch_norm.weight for layer in network.layers])
        assert bool((scales == 1).all()) == one and scales.abs().max() <= 1
        assert one or scales.abs().max() < 0.1


def test_scales_are_drawn_of_a_batch_norm_that_is_there() -> None:
    with pytest.raises(ValueError, match="norm_weights is 'drawn' without batch_norm"):
        AttentionWiseNetwork(1, 10, 8, norm_weights="drawn")


def test_inspecting_shows_the_way_to_the_logits() -> None:
    model, x = AttentionWiseNetwork(2, 4, 6, heads=3, num_layers=3).eval(), torch.randn(2, 2, 6, 6)
    steps = model.inspect(x)
    assert len(steps) == 3 and steps[1].heads.shape == (2, 3, 2, 6, 6)
    close(model.fc(steps[-1].output.flatten(1)), model(x))
    assert torch.equal(steps[2].added - steps[2].merged, steps[1].output + steps[2].merged - steps[2].merged)


def test_options_reach_every_layer() -> None:
    options = {"skip": False, "score_bias": True, "score_affine": True, "score_eps": 1e-3, "score_cumulative": True}
    model = AttentionWiseNetwork(1, 10, 5, num_layers=2, conv_bias=False, **options)  # type: ignore[arg-type]
    for layer in model.layers:
        assert (layer.skip, layer.norm.eps, layer.norm.momentum, layer.norm.affine) == (False, 1e-3, None, True)
        assert layer.x_bias is not None and layer.conv.bias is None


@pytest.mark.parametrize("count", [0, -1])
def test_a_network_without_layers_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"num_layers is {count}, needed at least 1"):
        AttentionWiseNetwork(1, 10, 5, num_layers=count)
