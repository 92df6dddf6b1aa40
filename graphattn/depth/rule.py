"""What a way of attending to earlier layers states of itself, and the places it is put at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from graphattn.graph import Graph

Score = Literal["constant", "static", "query-only", "key-only", "query-key", "matrix"]


@dataclass(frozen=True)
class Place:
    """A block of the network behind which a rule is put: its name there, and the shapes, without the batch, of its
    input, its output and its shortcut, which is its input or what its own `downsample` gives: (C, H, W), (T, C) or,
    of nodes, (C,).
    """

    name: str
    entry: tuple[int, ...]
    shape: tuple[int, ...]
    shortcut: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def entry_channels(self) -> int:
        return self.entry[0] if len(self.entry) == 3 else self.entry[-1]


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """How layers attend to earlier layers. A rule is options; what learns are the modules it makes, one a block.

    scope    "stage": layers of one shape are among themselves, and memory begins anew where the shape changes;
             "network": all layers; a number n: n layers at a time.
    align    what is done where the shape changes within a scope: "error"; "subsample": strided subsampling and zero
             channels (option A of He et al.); "project": a strided 1x1 convolution, with batch norm (option B) if the
             rule holds one map.

    Facts every rule states:

    score    what the weight of an edge depends on; "matrix": the edge carries a matrix, no number
    normalisation    how the weights of the edges that enter a layer are made comparable
    cost    time of one more layer t, and what is held for it
    identity    at initialisation the network computes what it computes without the rule
    replaces_shortcut    it stands for the blocks' own shortcut: put it behind bare branches F(x)
    one_shape    layers that attend to each other must be of one shape, or be aligned
    holds_one    what the memory holds where the shape changes is one map
    remembers    a layer reads what others of its scope have left in the memory
    maps_only    it is for maps [C, H, W], not for tokens or the nodes of a graph
    reads_entry    node 0 of its graph is what enters the scope, node t the t-th layer; else node 0 is the first layer
    """

    scope: str | int = "stage"
    align: Literal["error", "subsample", "project"] = "error"

    score: ClassVar[Score]
    normalisation: ClassVar[str]
    cost: ClassVar[str]
    identity: ClassVar[bool]
    replaces_shortcut: ClassVar[bool] = False
    one_shape: ClassVar[bool] = True
    maps_only: ClassVar[bool] = False
    reads_entry: ClassVar[bool] = False
    holds_one: ClassVar[bool] = False

    @property
    def remembers(self) -> bool:
        return True

    def __post_init__(self) -> None:
        counted = type(self.scope) is int and self.scope >= 1
        if not counted and self.scope not in ("stage", "network"):
            raise ValueError(f"scope is {self.scope!r}, needed 'stage', 'network' or a number of layers of at least 1")
        if self.align not in ("error", "subsample", "project"):
            raise ValueError(f"align is {self.align!r}, needed 'error', 'subsample' or 'project'")
        if self.align != "error" and not (self.one_shape and self.remembers):
            raise ValueError(f"align is {self.align!r}, and this {type(self).__name__} aligns nothing: leave it out")

    @abstractmethod
    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        """One module for each of the places of a scope, called `module(x, memory)` with what the block gave, [B, ...];
        it gives what the next block gets.
        """

    @abstractmethod
    def graph(self, num_layers: int) -> Graph:
        """The DAG of a scope of so many layers."""
