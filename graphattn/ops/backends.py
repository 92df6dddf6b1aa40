"""Which back end runs: the one asked for by name, or the best for the device.

cpu         fused C++ kernels; the default on the CPU
gpu         fused Triton kernels; the default on a GPU
reference   plain PyTorch: the definition; the default elsewhere, and where there are no kernels
dense       complete graphs only: matrix products, SDPA
scatter     torch-scatter (extra)
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from graphattn import native

BACKENDS = ("reference", "dense", "scatter", "cpu", "gpu")
_HINTS = {
    "scatter": "build torch-scatter (pip install --no-build-isolation torch-scatter)",
    "cpu": "reinstall graphattn where there is a C++ compiler",
    "gpu": "install Triton (pip install graphattn[gpu])",
}


class _Settings(NamedTuple):
    backend: str | None = None
    check_nan: bool = False


_DEFAULT = _Settings()

_settings: ContextVar[_Settings] = ContextVar("graphattn.ops", default=_DEFAULT)


@contextmanager
def use(backend: str | None = None, check_nan: bool | None = None) -> Iterator[None]:
    """Within this context, run on `backend` and, with `check_nan`, refuse NaN in any argument (it costs a pass).

    What is None stays as the context around has it.
    """
    outer = _settings.get()
    token = _settings.set(
        _Settings(outer.backend if backend is None else backend, outer.check_nan if check_nan is None else check_nan)
    )
    try:
        yield
    finally:
        _settings.reset(token)


@torch.compiler.assume_constant_result
def current() -> _Settings:
    """While torch.compile traces, the settings of that moment become part of what is compiled."""
    return _settings.get()


_FUSED = {"cpu": "cpu", "cuda": "gpu"}  # which knows a device


def chosen(name: str | None, device: str) -> ModuleType:
    """The back end asked for by name, or the best for the device."""
    transformed = _is_transformed()
    if name in _FUSED.values() and transformed:
        raise RuntimeError(
            f"back end '{name}' was asked for, but it knows no forward-mode derivatives and no torch.func transforms: "
            "use backend='reference', or leave the choice to graphattn"
        )
    if name is None:
        fused = _FUSED.get(device)
        if fused is not None and fused not in _loaded:
            _warn_once(fused)
        return _named("reference" if fused not in _loaded or transformed else fused)
    module = _named(name)
    if name in _FUSED.values() and _FUSED.get(device) != name and not getattr(module, "INTERPRETED", False):
        missing = " and there is none here" if name == "gpu" and not torch.cuda.is_available() else ""
        raise RuntimeError(
            f"back end '{name}' was asked for, but the graph is on {device}: it needs the {name.upper()}{missing}; "
            f"move the graph and the tensors, or leave the choice to graphattn"
        )
    return module


def on_kernels(device: str) -> bool:
    """Whether the device's fused back end is what runs now: for a layer that brings kernels of its own."""
    name = current().backend
    return chosen(name if name in (None, "cpu", "gpu") else "reference", device) is _loaded.get(_FUSED.get(device, ""))


def _is_transformed() -> bool:
    """Whether a derivative is taken forward or a function transformed, which custom operations drop in silence."""
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


@cache
def _warn_once(fused: str) -> None:
    kernels, why = ("compiled kernels", native.missing) if fused == "cpu" else ("kernels for the GPU", _without_gpu)
    warnings.warn(
        f"graphattn has no {kernels} ({why}): it runs on 'reference', many times slower; {_HINTS[fused]}",
        RuntimeWarning,
        stacklevel=2,
    )


def _named(name: str) -> ModuleType:
    if name in _loaded:
        return _loaded[name]
    if name not in BACKENDS:
        raise ValueError(f"no back end '{name}': there are {', '.join(BACKENDS)}")
    try:
        _loaded[name] = importlib.import_module(f"graphattn.ops.{name}")
    except ImportError as missing:
        raise ImportError(
            f"back end '{name}' was asked for but cannot be imported ({missing}): "
            f"{_HINTS.get(name, 'reinstall graphattn')}, or use backend='reference'"
        ) from missing
    return _loaded[name]


_loaded: dict[str, ModuleType] = {}  # the defaults at once, so that torch.compile never meets an import
_named("reference")
if native.kernels is not None:
    _named("cpu")
_without_gpu = ""
if torch.cuda.is_available():
    try:
        _named("gpu")
    except ImportError as error:  # no Triton, or one that does not work: said when something is computed there
        _without_gpu = str(error)
