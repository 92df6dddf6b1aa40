"""State dicts from before one module was put around another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def loads_bare(inner: str) -> Callable[..., None]:
    """A `register_load_state_dict_pre_hook` for a module that stands where its child `inner` stood: names of that child
    alone become those of the module; what only the module has keeps its values.
    """

    def load(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        held = module.state_dict()
        bare = {name.removeprefix(f"{inner}.") for name in held if name.startswith(f"{inner}.")}
        given = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
        if given & (held.keys() - bare) or (bare and not given):
            return
        for name in given:
            state[f"{prefix}{inner}.{name}"] = state.pop(f"{prefix}{name}")
        state |= {f"{prefix}{name}": value for name, value in held.items() if not name.startswith(f"{inner}.")}

    return load
