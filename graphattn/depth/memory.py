"""What later layers may read of earlier ones during one forward pass."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class LayerMemory:
    """Append-only lists of the keys and values of the layers so far, never concatenated: `values` holds T tensors after
    T layers, where a concatenated cache keeps T (T + 1) / 2 of them alive for the backward pass.

    here    the name of the layer that runs, or ran last; empty where no scope has begun, or it ended
    entry    what entered the scope, before its first layer; None from where no layer reads it
    keys, values    one of each a layer that pushed
    state    what a rule with constant memory carries from layer to layer
    shortcut    the shortcut tensor of the block that just ran: its input, after the block's own `downsample` if any
    weights    while `recorded` listens, each place's attention weights by the name of its block, else None

    A scope ends with `reset`, and so does the forward pass: nothing is retained between iterations.
    """

    keys: list[Tensor]
    values: list[Tensor]
    entry: Tensor | None
    state: Tensor | None
    shortcut: Tensor | None

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None
        self.reset()

    def __reduce__(self) -> tuple[type[LayerMemory], tuple[()]]:
        """What is copied or saved holds nothing, whatever an unfinished pass has left here."""
        return type(self), ()

    def open(self, entry: Tensor) -> None:
        """Begin a scope."""
        self.reset()
        self.entry = entry

    def push(self, key: Tensor | None, value: Tensor) -> None:
        """Remember the layer that just ran. A rule whose scores need no key pushes None."""
        if key is not None:
            self.keys.append(key)
        self.values.append(value)

    def align(self, align: Callable[[Tensor], Tensor]) -> None:
        """Bring what is held of earlier layers into the shape of the next: entry, values and state; keys have no size
        in space and stay.
        """
        self.entry = None if self.entry is None else align(self.entry)
        self.values = [align(value) for value in self.values]
        self.state = None if self.state is None else align(self.state)

    def note(self, weights: Tensor) -> None:
        """Show these weights [..., t], over the layers read, in the order of the rule's graph, to who listens."""
        if self.weights is not None:
            self.weights[self.here] = weights.detach()

    def reset(self) -> None:
        self.here = ""
        self.keys, self.values = [], []
        self.entry = self.state = self.shortcut = None
