"""Put a rule behind chosen blocks of any network by replacing modules, not by hooks: compile, DDP, state dicts hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from graphattn.depth.align import aligner
from graphattn.depth.bare import loads_bare
from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule

ENTRY = "entry"


def wrap(model: nn.Module, blocks: str | Sequence[str], rule: Rule, example: Any) -> nn.Module:
    """Put `rule` behind the blocks of `model` named by `blocks`, in place, and return the model.

    Args:
        model: any network in which these blocks run once a forward pass, each giving a tensor [B, C, H, W], [B, T, C]
            or [N, C] (or a tuple that begins with one).
        blocks: names of submodules, or patterns such as "layer*.*" (`*` stops at no dot, but a pattern must have as
            many dots as the name).
        rule: a `Rule`; see `graphattn.depth`.
        example: an input [B, ...], or a tuple of all arguments, such as (x, edge_index); run once without gradient in
            evaluation mode to learn the order and the shapes of the blocks.

    What the rule adds is on the device, of the dtype and in the mode of the blocks. State dicts of the unwrapped model
    still load: the rule's own parameters then keep the values they have. Nothing is retained between iterations.
    `inplace` of activations is set to False, lest they change what is remembered. On graphs, layers read others of the
    same nodes: sampled batches must not be trimmed layer by layer. A wrapped model does not run in several threads at
    once (nor in `nn.DataParallel`); use DDP. Activation checkpointing may recompute whole scopes, not single blocks of
    them, and what it recomputes stays held until the next pass.

    Raises:
        ValueError: no or twice wrapped blocks, blocks within each other or of two names, blocks that do not run once
            each, or whose shapes do not fit, or not the rule; the model is then as it was.
        TypeError: blocks that give no tensor, or a rule that is none.
    """
    if not isinstance(rule, Rule):
        found = f"the class {rule.__name__}" if isinstance(rule, type) else f"a {type(rule).__name__}"
        raise TypeError(f"rule is {found}: needed a Rule with its options, such as MRLABase()")
    names = _matching(model, [blocks] if isinstance(blocks, str) else list(blocks))
    places = _observed(model, names, example)
    memory, made = LayerMemory(), []
    for place in places if rule.maps_only else ():
        if len(place.shape) != 3:
            raise ValueError(f"{type(rule).__name__}: {place.name} gives {list(place.shape)}: needed maps [C, H, W]")
    for scope in _scopes(places, rule.scope):
        modules = rule.modules(scope)
        held = scope[0].entry  # the shape in which the memory holds what it holds
        giver = f"what enters {scope[0].name}"
        for index, (place, module) in enumerate(zip(scope, modules, strict=True)):
            align = None
            if rule.one_shape and rule.remembers and (rule.reads_entry or index > 0):
                between = (giver, place.name)
                align = aligner(rule.align, held, place.shape, between, norm=rule.holds_one)
            placed = Placed(model.get_submodule(place.name), module, memory, place.name, align)
            _follow(placed, model)
            placed.sources = _sources(rule, scope, index)
            placed.after = scope[index - 1].name if index > 0 else None
            placed.closes = index == len(scope) - 1
            placed.reads_entry, placed.remembers = rule.reads_entry, rule.remembers
            made.append(placed)
            held, giver = place.shape, place.name
    for placed in made:
        placed.keep_shortcut()
        model.set_submodule(placed.name, placed)
    try:
        _check(places, _observed(model, [place.name for place in places], example))
    except Exception:
        for placed in made:
            placed.forget_shortcut()
            model.set_submodule(placed.name, placed.block)
        raise
    for activation in model.modules() if rule.remembers else ():
        if getattr(activation, "inplace", False) is True:
            setattr(activation, "inplace", False)  # noqa: B010, modules have no such attribute for type checkers
    for placed in made if rule.remembers else ():
        names = placed.name.split(".")[:-1]
        for depth in range(len(names) + 1):  # those of ours of graphs could else run a layer alone
            above = model.get_submodule(".".join(names[:depth]))
            if getattr(above, "by_hop", False):
                setattr(above, "by_hop", False)  # noqa: B010
    return model


def arguments(example: Any) -> tuple[Any, ...]:
    """All arguments of a forward pass, of which one may be given by itself."""
    return example if isinstance(example, tuple) else (example,)


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While open, collects the weights of the last forward pass of a wrapped model: by the name of the block, [..., t]
    over the layers read, in the order of the rule's graph.

    Raises:
        ValueError: the model is not wrapped.
    """
    memories = {id(m.memory): m.memory for m in model.modules() if isinstance(m, Placed)}
    if not memories:
        raise ValueError("no block of this model is wrapped: call depth.wrap first")
    weights: dict[str, Tensor] = {}
    for memory in memories.values():
        memory.weights = weights
    try:
        yield weights
    finally:
        for memory in memories.values():
            memory.weights = None


class Placed(nn.Module):
    """A block, and behind it a rule's module that reads the memory and gives what the next block gets. `sources` are
    the names of the blocks it reads, ENTRY for what enters the scope; `after` is the block before it in the scope.
    """

    def __init__(
        self, block: nn.Module, rule: nn.Module, memory: LayerMemory, name: str, align: nn.Module | None
    ) -> None:
        super().__init__()
        self.rule, self.align = rule, align
        self.memory, self.name = memory, name
        self.after: str | None = None
        self.closes = self.reads_entry = False
        self.remembers = True
        self.sources: list[str] = []
        self.block = block  # last: what it has in common with the above is set above
        loads_bare(self, "block")

    def __getattr__(self, name: str) -> Any:
        """What only the block has is found too: some networks look at their blocks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "block" not in self.__dict__.get("_modules", ()):
                raise
            return getattr(self.block, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What only the block has is set there."""
        own = name in self.__dict__ or name in self._modules or hasattr(type(self), name)
        if "block" in self._modules and not own and hasattr(self.block, name):
            setattr(self.block, name, value)
        else:
            super().__setattr__(name, value)

    def keep_shortcut(self) -> None:
        """Let a block's `downsample` leave its result in the memory, for rules that carry the shortcut."""
        downsample = getattr(self.block, "downsample", None)
        if isinstance(downsample, nn.Module):
            self.block.downsample = Kept(downsample, self.memory)

    def forget_shortcut(self) -> None:
        downsample = getattr(self.block, "downsample", None)
        if isinstance(downsample, Kept):
            self.block.downsample = downsample.module

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        memory = self.memory
        if self.after is None:
            memory.open(x)
        elif self.remembers and memory.here != self.after:
            raise RuntimeError(
                f"block {self.name} ran and those before it in its scope did not, whose memory it reads: run the scope "
                f"as a whole, and recompute it as a whole if activations are recomputed"
            )
        memory.here, memory.shortcut = self.name, x
        out = self.block(x, *args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        if self.align is not None:
            memory.align(self.align)
        first = self.rule(first, memory)
        if not self.reads_entry:
            memory.entry = None  # later layers do not look at it
        if self.closes:
            memory.reset()
        if not isinstance(out, tuple):
            return first
        return getattr(out, "_make", tuple)((first, *out[1:]))  # a named tuple stays one


class Kept(nn.Module):
    """A block's way for its shortcut, whose result is left in the memory."""

    def __init__(self, module: nn.Module, memory: LayerMemory) -> None:
        super().__init__()
        self.module, self.memory = module, memory
        loads_bare(self, "module")

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out = self.memory.shortcut = self.module(*args, **kwargs)
        return out


def _matching(model: nn.Module, patterns: list[str]) -> list[str]:
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [n for n in names if n.count(".") == pattern.count(".") and fnmatchcase(n, pattern)]
        if not hits:
            children = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"no block of the model is called {pattern!r}; its children are {children}")
        found |= dict.fromkeys(hits)
    called: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        called.setdefault(module, []).append(name)
    for name in found:
        block, (above, _, _) = model.get_submodule(name), name.rpartition(".")
        if isinstance(block, Placed) or isinstance(model.get_submodule(above), Placed):
            wrapped = name if isinstance(block, Placed) else above
            raise ValueError(f"block {wrapped} is wrapped already: one rule a block")
        if len(called[block]) > 1:
            raise ValueError(f"block {name} has {len(called[block])} names, {', '.join(called[block])}: needed one")
        if within := next((other for other in found if name.startswith(f"{other}.")), None):
            raise ValueError(f"block {name} lies within block {within}: name one of them")
    return list(found)


@torch.no_grad()
def _observed(model: nn.Module, names: list[str], example: Any) -> list[Place]:
    """The named blocks in the order they run, with their shapes."""
    places: list[Place] = []

    def observe(name: str, args: tuple[Any, ...], out: Any) -> None:
        out = out[0] if isinstance(out, tuple) and out else out
        if not args or not isinstance(args[0], Tensor):
            given = _kind(args[0]) if args else "keywords alone"
            raise TypeError(f"block {name} is called with {given}: needed a tensor as the first argument")
        if not isinstance(out, Tensor) or out.dim() not in (2, 3, 4):
            raise TypeError(f"block {name} gives {_kind(out)}: needed a tensor [B, C, H, W], [B, T, C] or [N, C]")
        own = isinstance(getattr(model.get_submodule(name), "downsample", None), nn.Module)
        entry, shape = tuple(args[0].shape[1:]), tuple(out.shape[1:])
        places.append(Place(name, entry, shape, shape if own else entry))

    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: observe(name, args, out))
        for name in names
    ]
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()(*arguments(example))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    ran = [place.name for place in places]
    wrong = [name for name in names if ran.count(name) != 1]
    if wrong:
        times = ", ".join(f"{name} {ran.count(name)} times" for name in wrong)
        raise ValueError(f"each block must run once a forward pass; ran {times}: name others")
    return places


def _follow(placed: Placed, model: nn.Module) -> None:
    """What the rule adds takes the device and the dtype of the block's parameters, or the model's, and its mode."""
    weights = (p for module in (placed.block, model) for p in module.parameters() if p.is_floating_point())
    like, placed.training = next(weights, None), placed.block.training
    for added in (placed.rule, placed.align):
        if added is not None:
            added.train(placed.training)
        if added is not None and like is not None:
            added.to(like.device, like.dtype)


def _check(before: list[Place], after: list[Place]) -> None:
    """What enters the blocks has the shape it had without the rule."""
    for old, new in zip(before, after, strict=True):
        if old.entry != new.entry:
            raise ValueError(
                f"what enters block {new.name} has shape {list(new.entry)} with the rule, {list(old.entry)} without: "
                f"this rule changes what a scope gives, so take one scope, and blocks behind which nothing else comes"
            )


def _kind(out: Any) -> str:
    return f"a tensor of shape {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"


def _scopes(places: list[Place], scope: str | int) -> list[list[Place]]:
    """The places in groups that share a memory."""
    groups: list[list[Place]] = []
    for place in places:
        full = isinstance(scope, int) and bool(groups) and len(groups[-1]) == scope
        changed = scope == "stage" and bool(groups) and groups[-1][-1].shape != place.shape
        if not groups or full or changed:
            groups.append([])
        groups[-1].append(place)
    return groups


def _sources(rule: Rule, scope: list[Place], index: int) -> list[str]:
    """The names of those that a place reads, in the order of the rule's graph."""
    graph = rule.graph(len(scope))
    before = graph.num_receivers - len(scope)  # 1 where what enters is a node
    names = [ENTRY] * before + [place.name for place in scope]
    return [names[sender] for sender in graph.senders[graph.receivers == index + before].tolist()]
