"""A training step as a CUDA graph: in a small model, launching the kernels one by one takes longer than they do."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_WARM_UP = 3  # steps that make what is made once: sorted edges, compiled kernels, the optimizer's state


def captured(step: Callable[[], Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    """`step`, whose shapes and tensors are the same every time, recorded once and then replayed.

    `step` drops the gradients, computes the loss, its gradients and the optimizer's update, and gives the loss; what it
    gives is overwritten by the next replay. Recording trains nothing: parameters, buffers, the optimizer's state and
    the random state are as before. Random numbers are new at every replay.

    Raises:
        ValueError: parameters that are not on one GPU, an optimizer other than Adam or AdamW, or a step that waits for
            the GPU, e.g. to learn how many loops a graph has.
    """
    device = _device_of(model)
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise ValueError(f"{type(optimizer).__name__} cannot be captured: use Adam, or leave out --cuda-graph")
    with torch.cuda.device(device), _restored(model, optimizer, device):
        graph, loss = _recorded(step, optimizer)
    return _Replay(graph, loss, step)


class CapturedGradients:
    """`gradients(batch)` gives the loss of a batch, a tuple of tensors, and leaves its gradients in the parameters.

    It is recorded for batches of the first one's shapes, and replayed for those; others, such as an epoch's last, go as
    they are. The optimizer's step is not part of it, so its rate may change, and it may be any.

    Raises, at the first batch:
        ValueError: parameters that are not on one GPU, a batch that is no tuple of tensors, or a step that waits for
            the GPU.
    """

    def __init__(
        self, gradients: Callable[[Sequence[Tensor]], Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self._gradients, self._model, self._optimizer = gradients, model, optimizer
        self._batch: tuple[Tensor, ...] | None = None

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        if self._batch is None:
            self._record(batch)
        assert self._batch is not None
        if [tensor.shape for tensor in batch] != [tensor.shape for tensor in self._batch]:
            return self._gradients(batch)
        for held, tensor in zip(self._batch, batch, strict=True):
            held.copy_(tensor)
        self._graph.replay()
        for parameter, grad in self._grads:  # which a batch of another shape has replaced
            parameter.grad = grad
        return self._loss.clone()

    def _record(self, batch: Sequence[Tensor]) -> None:
        if not (isinstance(batch, tuple) and all(isinstance(tensor, Tensor) for tensor in batch)):
            raise ValueError(
                f"a step is captured on tensors, a batch here is a {type(batch).__name__}: leave out --cuda-graph"
            )
        device = _device_of(self._model)
        held = tuple(tensor.clone() for tensor in batch)
        with torch.cuda.device(device), _as_before(list(self._model.buffers()), device):
            self._graph, self._loss = _recorded(lambda: self._gradients(held), self._optimizer)
        self._grads = [(parameter, parameter.grad) for parameter in self._model.parameters()]
        self._batch = held


def _device_of(model: nn.Module) -> torch.device:
    devices = {parameter.device for parameter in model.parameters()}
    if [device.type for device in devices] != ["cuda"]:
        there = ", ".join(sorted(map(str, devices))) or "no device"
        raise ValueError(f"a step is captured on one GPU, the parameters are on {there}: leave out --cuda-graph")
    return devices.pop()


def _recorded(step: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The graph, and what the step gave, which a replay overwrites."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
        with _no_waiting():
            step()
    torch.cuda.current_stream().wait_stream(stream)
    optimizer.zero_grad(set_to_none=True)
    gc.collect()  # a gradient's accumulator that still lives in a cycle would belong to another stream
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    return graph, found


class _Replay:
    """Holds the step, and so what the recorded kernels read."""

    def __init__(self, graph: torch.cuda.CUDAGraph, loss: Tensor, step: Callable[[], Tensor]) -> None:
        self._graph, self._loss, self._step = graph, loss, step

    def __call__(self) -> Tensor:
        self._graph.replay()
        return self._loss


@contextmanager
def _restored(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """With the optimizer's state, which stays capturable."""
    state = {id(tensor): tensor.clone() for tensor in _state(optimizer)}
    for group in optimizer.param_groups:
        group["capturable"] = True
    with _as_before([*model.parameters(), *model.buffers()], device):
        yield
    for tensor in _state(optimizer):  # Adam's begins with zeros
        tensor.copy_(state[id(tensor)]) if id(tensor) in state else tensor.zero_()


@contextmanager
def _as_before(tensors: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Afterwards these tensors and the random state are as they were: in place, since what is recorded reads and writes
    these very ones.
    """
    before = [tensor.detach().clone() for tensor in tensors]
    random = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, was in zip(tensors, before, strict=True):
                tensor.copy_(was)
        torch.cuda.set_rng_state(random, device)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """A recording cannot wait, and fails in a way that leaves the process unfit for another: find out beforehand."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            raise ValueError(
                "the training step waits for the GPU, which a CUDA graph cannot: leave out --cuda-graph"
            ) from error
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
