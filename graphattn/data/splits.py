"""Which nodes train, which choose the checkpoint, which are tested: public, random, full, fixed splits, and folds.

Labels are [N] int64 with -1 where the files give none; such a node is in no split. Every draw uses a generator of its
own seeded by `seed`, never torch's global one, so a split does not depend on what ran before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Node ids, int64 and ascending, of three disjoint sets."""

    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True)
class SplitRecipe:
    """How many nodes a split takes; the table `[splits.NAME]` of a manifest. Absent numbers are not used.

    val, test: so many nodes in all. val_per_class: so many of each class instead. No `test`: all nodes left over.
    folds: so many parts of the split called `folds`.
    """

    train_per_class: int | None = None
    val: int | None = None
    val_per_class: int | None = None
    test: int | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}, needed a number that is not negative")


def choose(
    name: str,
    given: Mapping[str, Sequence[Split]],
    labels: Tensor,
    recipe: SplitRecipe,
    seed: int,
    where: str,
    thing: str = "node",
) -> Split:
    """The split called `name`: one that came with the files (number `seed` modulo their count), or one made here.

    `where` names the data set in errors, `thing` what is split.
    """
    if name in given:
        split = given[name][seed % len(given[name])]
    elif name == "random":
        split = random_split(labels, recipe, seed, where)
    elif name == "folds":
        split = fold_split(labels, recipe, seed, where)
    elif name == "full" and "public" in given:
        split = full_split(given["public"][0], labels)
    else:
        made = [*given, "random", "folds", *(["full"] if "public" in given else [])]
        raise ValueError(f"{where}: the manifest lists the split {name!r}, but these files give only {', '.join(made)}")
    _check(split, labels, f"{where}, split {name!r}", thing)
    return split


def random_split(labels: Tensor, recipe: SplitRecipe, seed: int, where: str) -> Split:
    """Nodes in random order, then as in `split_in_order` (Shchur et al. 2018, arXiv:1811.05868)."""
    generator = torch.Generator().manual_seed(seed)
    return split_in_order(torch.randperm(labels.numel(), generator=generator), labels, recipe, where)


def split_in_order(order: Tensor, labels: Tensor, recipe: SplitRecipe, where: str) -> Split:
    """The first `train_per_class` nodes of each class train, the next ones validate, the rest (or `test`) test."""
    if recipe.train_per_class is None or (recipe.val is None) == (recipe.val_per_class is None):
        raise ValueError(
            f"{where}: the split has train_per_class={recipe.train_per_class}, val={recipe.val}, "
            f"val_per_class={recipe.val_per_class}: needed train_per_class and one of the other two"
        )
    order = order[labels[order] >= 0]
    train, rest = _first_of_each_class(order, labels, recipe.train_per_class, f"{where}, training nodes")
    if recipe.val_per_class is not None:
        val, rest = _first_of_each_class(rest, labels, recipe.val_per_class, f"{where}, validation nodes")
    else:
        val, rest = _first(rest, recipe.val or 0, f"{where}, validation nodes")
    test = rest if recipe.test is None else _first(rest, recipe.test, f"{where}, test nodes")[0]
    return Split(train.sort().values, val.sort().values, test.sort().values)


def fold_split(labels: Tensor, recipe: SplitRecipe, seed: int, where: str) -> Split:
    """Stratified cross-validation: of `folds` parts, number `seed` (modulo their count) is tested, the next one
    validates, the others train.

    The parts are always the same, whatever the seed: each class in an order drawn once, its members dealt to the parts
    in turn, the next class going on where the last one ended. So neither a class's nor all parts' sizes differ by more
    than 1.
    """
    if recipe.folds is None or recipe.folds < 3:
        raise ValueError(f"{where}: the split has folds={recipe.folds}, needed at least 3: to train, validate and test")
    order = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(0))
    order = order[labels[order] >= 0]
    order = order[labels[order].argsort(stable=True)]
    part = torch.arange(order.numel()) % recipe.folds
    tested = seed % recipe.folds
    validates = (tested + 1) % recipe.folds
    train = order[(part != tested) & (part != validates)]
    return Split(train.sort().values, order[part == validates].sort().values, order[part == tested].sort().values)


def full_split(public: Split, labels: Tensor) -> Split:
    """Validation and test as in the public split; every other labelled node trains (Chen et al. 2018, FastGCN)."""
    free = labels >= 0
    free[public.val] = False
    free[public.test] = False
    return Split(free.nonzero().view(-1), public.val, public.test)


def _first(order: Tensor, count: int, what: str) -> tuple[Tensor, Tensor]:
    if order.numel() < count:
        raise ValueError(f"{what}: {order.numel()} labelled nodes are left, {count} needed: ask for fewer")
    return order[:count], order[count:]


def _first_of_each_class(order: Tensor, labels: Tensor, count: int, what: str) -> tuple[Tensor, Tensor]:
    taken = torch.zeros(order.numel(), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        places = (labels[order] == label).nonzero().view(-1)
        if places.numel() < count:
            raise ValueError(f"{what}: class {label} has {places.numel()} nodes left, {count} needed: ask for fewer")
        taken[places[:count]] = True
    return order[taken], order[~taken]


def _check(split: Split, labels: Tensor, where: str, thing: str) -> None:
    nodes = torch.cat(split)
    for part, ids in split._asdict().items():
        if not ids.numel():
            raise ValueError(f"{where}: no {part} {thing} at all; at least one is needed")
    if int(nodes.min()) < 0 or int(nodes.max()) >= labels.numel():
        raise ValueError(
            f"{where}: {thing} ids run from {int(nodes.min())} to {int(nodes.max())}, needed 0 to {labels.numel() - 1}"
        )
    listed = torch.bincount(nodes, minlength=labels.numel())
    if int(listed.max()) > 1:
        raise ValueError(
            f"{where}: {thing} {int(listed.argmax())} is listed {int(listed.max())} times, needed at most once"
        )
    unlabelled = int((labels[nodes] < 0).sum())
    if unlabelled:
        raise ValueError(f"{where}: {unlabelled} {thing}s have no label, needed none of these in a split")
