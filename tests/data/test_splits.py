"""Splits: sizes, disjointness, seeds, and a clear word where a recipe cannot be met."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from graphattn.data.splits import Split, SplitRecipe, choose, fold_split, full_split, random_split, split_in_order

LABELS = torch.tensor([0, 1, 2] * 20 + [-1] * 5)


def ids(*nodes: int) -> torch.Tensor:
    return torch.tensor(nodes)


@pytest.mark.parametrize(
    ("recipe", "sizes"),
    [
        (SplitRecipe(train_per_class=4, val=10, test=15), (12, 10, 15)),
        (SplitRecipe(train_per_class=4, val=10), (12, 10, 38)),
        (SplitRecipe(train_per_class=4, val_per_class=5), (12, 15, 33)),
        (SplitRecipe(train_per_class=4, val_per_class=5, test=1), (12, 15, 1)),
    ],
)
def test_random_split_takes_what_the_recipe_says(recipe: SplitRecipe, sizes: tuple[int, int, int]) -> None:
    split = random_split(LABELS, recipe, 3, "here")
    assert tuple(part.numel() for part in split) == sizes
    assert torch.bincount(LABELS[split.train]).tolist() == [4, 4, 4]
    if recipe.val_per_class:
        assert torch.bincount(LABELS[split.val]).tolist() == [5, 5, 5]
    nodes = torch.cat(split)
    assert nodes.unique().numel() == nodes.numel()
    assert (LABELS[nodes] >= 0).all()
    for part in split:
        assert torch.equal(part, part.sort().values) and part.dtype == torch.int64


def test_random_split_follows_its_seed_alone() -> None:
    recipe = SplitRecipe(train_per_class=4, val=10)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = random_split(LABELS, recipe, 1, "here")
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    torch.manual_seed(99)
    again, other = random_split(LABELS, recipe, 1, "here"), random_split(LABELS, recipe, 2, "here")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_node_has_its_chance() -> None:
    recipe = SplitRecipe(train_per_class=4, val=10, test=5)
    trained = torch.cat([random_split(LABELS, recipe, seed, "here").train for seed in range(60)])
    assert trained.unique().numel() == 60


def test_order_decides() -> None:
    labels = torch.tensor([0, 0, 1, 1, -1, 0])
    split = split_in_order(ids(5, 4, 3, 2, 1, 0), labels, SplitRecipe(train_per_class=1, val_per_class=1), "here")
    assert [part.tolist() for part in split] == [[3, 5], [1, 2], [0]]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (SplitRecipe(train_per_class=21, val=1), "training nodes: class 0 has 20 nodes left, 21 needed"),
        (SplitRecipe(train_per_class=15, val_per_class=6), "validation nodes: class 0 has 5 nodes left, 6 needed"),
        (SplitRecipe(train_per_class=4, val=49), "validation nodes: 48 labelled nodes are left, 49 needed"),
        (SplitRecipe(train_per_class=4, val=40, test=9), "test nodes: 8 labelled nodes are left, 9 needed"),
        (SplitRecipe(val=3), "train_per_class=None"),
        (SplitRecipe(train_per_class=3), "val=None, val_per_class=None"),
        (SplitRecipe(train_per_class=3, val=3, val_per_class=3), "val=3, val_per_class=3"),
    ],
)
def test_recipe_that_cannot_be_met(recipe: SplitRecipe, message: str) -> None:
    with pytest.raises(ValueError, match=f"^here.*{message}"):
        random_split(LABELS, recipe, 0, "here")


def test_full_split_keeps_validation_and_test() -> None:
    public = Split(ids(0, 1), ids(2, 3), ids(7, 9))
    labels = torch.tensor([0, 1, 0, 1, 0, -1, 1, 0, -1, 1])
    split = full_split(public, labels)
    assert [part.tolist() for part in split] == [[0, 1, 4, 6], [2, 3], [7, 9]]


def test_choose_takes_what_the_files_give() -> None:
    given = {"fixed": [Split(ids(i), ids(i + 1), ids(i + 2)) for i in range(10)]}
    for seed, first in ((0, 0), (9, 9), (10, 0), (23, 3)):
        assert choose("fixed", given, LABELS, SplitRecipe(), seed, "here").train.tolist() == [first]
    with pytest.raises(ValueError, match="lists the split 'full', but these files give only fixed, random"):
        choose("full", given, LABELS, SplitRecipe(), 0, "here")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(ids(0), ids(1), ids(0)), "node 0 is listed 2 times"),
        (Split(ids(0), ids(1), ids()), "no test node at all"),
        (Split(ids(0), ids(1), ids(65)), "node ids run from 0 to 65, needed 0 to 64"),
        (Split(ids(-1), ids(1), ids(5)), "node ids run from -1 to 5, needed 0 to 64"),
        (Split(ids(0), ids(1), ids(60)), "1 nodes have no label"),
    ],
)
def test_choose_checks_what_the_files_give(split: Split, message: str) -> None:
    with pytest.raises(ValueError, match=f"here, split 'public': {message}"):
        choose("public", {"public": [split]}, LABELS, SplitRecipe(), 0, "here")


FOLDS = torch.tensor([0] * 13 + [1] * 21 + [2] * 8 + [-1] * 3)


def test_folds_partition_the_labelled_and_are_stratified() -> None:
    splits = [fold_split(FOLDS, SplitRecipe(folds=5), seed, "here") for seed in range(5)]
    tested = torch.cat([split.test for split in splits])
    assert torch.equal(tested.sort().values, torch.arange(42))
    counts = torch.stack([torch.bincount(FOLDS[split.test], minlength=3) for split in splits])
    assert (counts.amax(0) - counts.amin(0)).tolist() == [1, 1, 1], "as even as 13, 21 and 8 among 5 can be"
    assert sorted(counts.sum(1).tolist()) == [8, 8, 8, 9, 9]


def test_a_seed_is_a_fold_and_the_next_one_validates() -> None:
    torch.manual_seed(5)
    splits = [fold_split(FOLDS, SplitRecipe(folds=4), seed, "here") for seed in range(5)]
    for split, following in pairwise(splits):
        assert torch.equal(split.val, following.test)
        assert torch.equal(torch.cat(split).sort().values, torch.arange(42))
        assert all(torch.equal(part, part.sort().values) for part in split)
    assert all(torch.equal(a, b) for a, b in zip(splits[4], splits[0], strict=True))
    chosen = choose("folds", {}, FOLDS, SplitRecipe(folds=4), 2, "here")
    assert all(torch.equal(a, b) for a, b in zip(chosen, splits[2], strict=True))


def test_members_of_a_class_are_dealt_in_an_order_that_is_drawn() -> None:
    split = fold_split(torch.zeros(40, dtype=torch.int64), SplitRecipe(folds=4), 0, "here")
    assert split.test.tolist() != list(range(0, 40, 4))


@pytest.mark.parametrize("folds", [None, 2])
def test_fewer_than_three_folds_cannot_train_validate_and_test(folds: int | None) -> None:
    with pytest.raises(ValueError, match=f"here: the split has folds={folds}, needed at least 3"):
        fold_split(FOLDS, SplitRecipe(folds=folds), 0, "here")
