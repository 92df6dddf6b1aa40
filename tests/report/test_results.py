"""RESULTS.md: a recorded experiment comes from its JSON alone, the rest from the definitions in that folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphattn import experiment
from graphattn.report import write_results
from graphattn.training import Finished, summary

TEXT = """
title = "Small"
note = "{note}"
[data]
name = "digits"
[model]
name = "mlp"
[run]
seeds = 2
"""
PAPER = """
[paper]
mean = 83.0
std = 0.7
source = "the paper, table 2"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments"


def define(folder: Path, name: str, note: str = "", paper: str = "") -> Path:
    path = folder / name / "definition.toml"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT.format(note=note) + paper, encoding="utf-8")
    return path


def record(folder: Path, name: str, *accuracies: float, **changes: Any) -> Path:
    definition = experiment.read(name, folder / name / "definition.toml")
    seeds = [
        {"seed": k, "val_accuracy": 79.0, "test_accuracy": value, "best_epoch": 1, "epochs": 120, "seconds": 2.5}
        for k, value in enumerate(accuracies)
    ]
    result = summary(definition, [Finished(row["seed"], row) for row in seeds], folder, "cpu")
    result |= {"commit": "abc1234", "date": "2026-01-02", "machine": "a machine"} | changes
    experiment.save(result, folder / name / "result.json")
    return folder / name / "result.json"


def table_rows(path: Path) -> dict[str, dict[str, str]]:
    """The cells that are not empty, by experiment and head."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    head = cells[0]
    rows = [dict(zip(head, line, strict=True)) for line in cells if line != head]
    return {row.pop("experiment"): {key: cell for key, cell in row.items() if cell} for row in rows}


def test_rows(folder: Path) -> None:
    define(folder, "digits/ours", paper=PAPER)
    define(folder, "digits/new")
    define(folder, "digits/later", paper=PAPER)
    record(folder, "digits/ours", 80.0, 82.0)
    record(folder, "digits/new", 70.0)
    when = {"epochs": "120", "commit, date": "abc1234, 2026-01-02"}
    ours = {"test accuracy": "81.0 ± 1.4", "paper": "83.0 ± 0.7", "difference": "-2.0", "seeds": "2"}
    assert table_rows(write_results(folder)) == {
        "digits/later": {"test accuracy": "not run here", "paper": "83.0 ± 0.7"},
        "digits/new": {"test accuracy": "70.0", "seeds": "1 of 2", **when},
        "digits/ours": ours | when,
    }


@pytest.mark.parametrize(("accuracy", "difference"), [(84.04, "+1.0"), (83.0, "+0.0"), (50.0, "-33.0")])
def test_difference_to_the_paper(folder: Path, accuracy: float, difference: str) -> None:
    define(folder, "digits/ours", paper=PAPER)
    record(folder, "digits/ours", accuracy)
    assert table_rows(write_results(folder))["digits/ours"]["difference"] == difference


def test_one_table_a_data_set_with_sources_machines_and_notes(folder: Path) -> None:
    define(folder, "digits/a", note="all was tried", paper=PAPER)
    define(folder, "digits/b", paper=PAPER)
    define(folder, "cora/a", paper=PAPER.replace("table 2", "table 3"))
    record(folder, "digits/a", 80.0)
    record(folder, "digits/b", 80.0, machine="another; a machine")
    text = write_results(folder).read_text(encoding="utf-8")
    assert text.startswith("# Results\n") and "do not edit" in text
    head, cora, digits = text.split("\n## ")
    assert "|" not in head
    assert cora.startswith("cora\n") and "| cora/a |" in cora and "Measured on" not in cora
    assert "Paper's numbers: the paper, table 3." in cora
    assert digits.startswith("digits\n") and "| digits/a |" in digits and "| digits/b |" in digits
    assert "Paper's numbers: the paper, table 2." in digits, "once"
    assert "Measured on: a machine; another." in digits
    assert digits.rstrip().endswith("- digits/a: all was tried"), "under the table"


def test_a_recorded_experiment_needs_only_its_json(folder: Path) -> None:
    path = define(folder, "digits/ours", note="a note", paper=PAPER)
    record(folder, "digits/ours", 80.0, 82.0)
    before = write_results(folder).read_bytes()
    path.write_text(TEXT.format(note="changed since"), encoding="utf-8")
    assert write_results(folder).read_bytes() == before


def test_it_follows_the_json(folder: Path) -> None:
    define(folder, "digits/ours", paper=PAPER)
    path = record(folder, "digits/ours", 80.0, 82.0)
    result = json.loads(path.read_text())
    result["definition"]["paper"]["mean"] = 71.0
    result["seeds"][1]["test_accuracy"] = 80.0
    path.write_text(json.dumps(result))
    row = table_rows(write_results(folder))["digits/ours"]
    assert (row["test accuracy"], row["paper"], row["difference"]) == ("80.0 ± 0.0", "71.0 ± 0.7", "+10.0")


def test_the_definitions_are_those_of_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(folder, "digits/gat", note="of the folder")
    define(folder, "unknown/elsewhere")
    define(tmp_path / "here" / "experiments", "digits/gat", note="of the working directory")
    monkeypatch.chdir(tmp_path / "here")
    text = write_results(folder).read_text(encoding="utf-8")
    assert "of the folder" in text and "of the working directory" not in text and "unknown/elsewhere" in text


def test_the_same_bytes_every_time(folder: Path) -> None:
    for name in ("digits/b", "cora/c", "digits/a"):
        define(folder, name, paper=PAPER)
        record(folder, name, 80.0, 81.0)
    path = write_results(folder)
    first = path.read_bytes()
    assert write_results(folder).read_bytes() == first
    assert {file.name for file in folder.iterdir()} == {"RESULTS.md", "digits", "cora"}


def test_a_definition_recorded_by_another_version_names_its_file(folder: Path) -> None:
    define(folder, "digits/ours")
    path = record(folder, "digits/ours", 80.0)
    result = json.loads(path.read_text())
    result["definition"]["train"]["spin"] = 0.9
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"digits/ours/result\.json, \[train\]: 'spin'"):
        write_results(folder)


def test_a_folder_without_definitions(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no definition\.toml below .*experiments: run this in a checkout"):
        write_results(folder)


def test_ogbs_tables_have_the_validation_score_and_the_parameters(folder: Path) -> None:
    define(folder, "ogbn-arxiv/gcn")
    path = define(folder, "ogbn-arxiv/gat")
    path.write_text(
        path.read_text(encoding="utf-8").replace('name = "digits"', 'name = "ogbn-arxiv"'), encoding="utf-8"
    )
    record(folder, "ogbn-arxiv/gat", 70.0, 72.0, parameters=1_234_567)
    define(folder, "digits/gat")
    text = write_results(folder).read_text(encoding="utf-8")
    head, _, gat, gcn = [line for line in text.split("## ogbn-arxiv")[1].splitlines() if line.startswith("|")]
    assert head.endswith(" | validation | parameters |")
    assert gat.split("|")[-2].strip() == "1,234,567"
    assert "±" in gat.split("|")[-3]
    assert head.count("|") == gat.count("|") == gcn.count("|")
    assert "parameters" not in text.split("## digits")[1].split("## ogbn")[0]


IMAGES = """
title = "Small"
note = "{note}"
[data]
name = "digits-images"
[model]
name = "mlp"
[run]
seeds = 2
[presets.short.train]
epochs = 3
[presets.long.train]
epochs = 9
"""
IMAGE_PAPER = """
[paper]
mean = 91.25
source = "the paper, table 6"
"""


def define_images(folder: Path, name: str, note: str = "", paper: str = IMAGE_PAPER, data: str = "") -> None:
    path = folder / name / "definition.toml"
    path.parent.mkdir(parents=True)
    text = IMAGES.format(note=note) + paper
    path.write_text(text.replace("digits-images", data or "digits-images"), encoding="utf-8")


def record_images(folder: Path, name: str, preset: str | None, *accuracies: float) -> None:
    definition = experiment.read(name, folder / name / "definition.toml", preset=preset)
    seeds = [
        {"seed": k, "test_accuracy": value, "best_test_accuracy": value + 0.5, "epochs": 20, "seconds": 2.5}
        for k, value in enumerate(accuracies)
    ]
    finished = [Finished(row["seed"], {"parameters": 269722, **row}) for row in seeds]
    result = summary(definition, finished, folder, "cpu")
    result |= {"commit": "abc1234", "date": "2026-01-02", "machine": "a machine"}
    experiment.save(result, folder / name / experiment.result_name(preset))


def test_images_have_errors_and_a_row_for_each_preset(folder: Path) -> None:
    define_images(folder, "digits-images/ours", note="all was tried")
    record_images(folder, "digits-images/ours", "short", 90.0, 91.0)
    record_images(folder, "digits-images/ours", None, 92.0)
    path = write_results(folder)
    text = path.read_text(encoding="utf-8").split("\n## ")[1]
    path.write_text(text, encoding="utf-8")
    when = {"epochs": "20", "parameters": "269,722", "commit, date": "abc1234, 2026-01-02"}
    assert table_rows(path) == {
        "digits-images/ours": {
            "test error": "8.00",
            "of the best epoch": "7.50",
            "paper": "8.75",
            "difference": "-0.75",
            "seeds": "1 of 2",
        }
        | when,
        "digits-images/ours, short": {
            "test error": "9.50 ± 0.71",
            "of the best epoch": "9.00 ± 0.71",
            "seeds": "2",
        }
        | when,
    }
    assert text.count("all was tried") == 1, "the note is of the definition as it stands"


def test_image_sets_side_by_side(folder: Path) -> None:
    define_images(folder, "digits-images/ours")
    define_images(folder, "fashion-mnist/ours", data="fashion-mnist", paper=IMAGE_PAPER.replace("91.25", "81.46"))
    define_images(folder, "fashion-mnist/theirs", data="fashion-mnist", paper="")
    define(folder, "digits/graph")
    record_images(folder, "fashion-mnist/ours", None, 80.0, 81.0)
    record_images(folder, "digits-images/ours", "short", 91.0)
    section = write_results(folder).read_text(encoding="utf-8").split("\n## ")[-1]
    assert section.startswith("Image sets, side by side\n")
    assert [line for line in section.splitlines() if line.startswith("|")] == [
        "| model | digits-images | digits-images, short | fashion-mnist |",
        "|---|---|---|---|",
        "| ours | not run here (8.75) | 9.00 | 19.50 ± 0.71 (18.54) |",
    ], "what was not run and is not published is left out"


def test_no_numbers_no_such_table(folder: Path) -> None:
    define(folder, "digits/graph")
    define_images(folder, "fashion-mnist/theirs", data="fashion-mnist", paper="")
    assert "side by side" not in write_results(folder).read_text(encoding="utf-8")


def test_tables_of_objects_have_the_masks_beside_the_boxes(folder: Path) -> None:
    for name in ("shapes/centernet", "shapes/later"):
        path = define(folder, name)
        path.write_text(
            path.read_text(encoding="utf-8").replace('name = "digits"', 'name = "shapes"'), encoding="utf-8"
        )
    definition = experiment.read("shapes/centernet", folder / "shapes" / "centernet" / "definition.toml")
    measures = {"val_ap": 60.0, "test_ap": 61.0, "test_mask_ap": 57.0, "best_epoch": 1, "epochs": 3, "seconds": 2.5}
    seeds = [Finished(k, {"seed": k, **measures, "parameters": 1234}) for k in range(2)]
    result = summary(definition, seeds, folder, "cpu") | {"commit": "abc1234", "date": "2026-01-02", "machine": "m"}
    experiment.save(result, folder / "shapes" / "centernet" / "result.json")
    rows = table_rows(write_results(folder))
    found = rows["shapes/centernet"]
    assert (found["test box AP"], found["mask AP"], found["parameters"]) == ("61.0 ± 0.0", "57.0 ± 0.0", "1,234")
    assert rows["shapes/later"] == {"test box AP": "not run here"}


def test_tables_of_texts_have_two_digits_of_a_perplexity_the_parameters_and_how_bleu_was_computed(folder: Path) -> None:
    for name, measures in (
        ("words/ours", {"test_perplexity": 5.678, "val_perplexity": 5.9}),
        ("german/ours", {"test_bleu": 31.26, "val_bleu": 30.0, "bleu_signature": "nrefs:1|version:2"}),
    ):
        define(folder, name)
        row = {"seed": 0, **measures, "best_epoch": 1, "epochs": 9, "seconds": 2.5, "parameters": 1234}
        result = summary(experiment.read(name, folder / name / "definition.toml"), [Finished(0, row)], folder, "cpu")
        experiment.save(result, folder / name / "result.json")
    written = write_results(folder)
    text = written.read_text(encoding="utf-8")
    assert "| words/ours | 5.68 |" in text and "| test perplexity |" in text
    assert "| german/ours | 31.3 |" in text and "| test BLEU |" in text
    assert text.count(" 1,234 |") == 2
    assert text.count("BLEU as sacreBLEU has it: `nrefs:1|version:2`.") == 1
