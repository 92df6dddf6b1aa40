"""State dicts from before one module was put around another."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn


def loads_bare(module: nn.Module, inner: str) -> None:
    """Let `module`, which stands where its child `inner` stood, load state dicts of that child alone: the names of the
    child become those of the module; what only the module has keeps its values.
    """
    module.register_load_state_dict_pre_hook(partial(_load, inner))  # a closure could not be pickled


def _load(inner: str, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    held = module.state_dict()
    bare = {name.removeprefix(f"{inner}.") for name in held if name.startswith(f"{inner}.")}
    given = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    if given & (held.keys() - bare) or (bare and not given):
        return
    taken = {name: state.pop(f"{prefix}{name}") for name in given}
    state |= {f"{prefix}{inner}.{name}": value for name, value in taken.items()}
    state |= {f"{prefix}{name}": value for name, value in held.items() if not name.startswith(f"{inner}.")}
