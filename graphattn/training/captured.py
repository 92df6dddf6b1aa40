"""A training step as a CUDA graph: on a small graph, launching the kernels one by one takes longer than they do."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
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
    devices = {parameter.device for parameter in model.parameters()}
    if [device.type for device in devices] != ["cuda"]:
        there = ", ".join(sorted(map(str, devices))) or "no device"
        raise ValueError(f"a step is captured on one GPU, the parameters are on {there}: leave out --cuda-graph")
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise ValueError(f"{type(optimizer).__name__} cannot be captured: use Adam, or leave out --cuda-graph")
    (device,) = devices

    with torch.cuda.device(device), _restored(model, optimizer, device):
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
            loss = step()

    return _Replay(graph, loss, step)


class _Replay:
    """Holds the step, and so what the recorded kernels read."""

    def __init__(self, graph: torch.cuda.CUDAGraph, loss: Tensor, step: Callable[[], Tensor]) -> None:
        self._graph, self._loss, self._step = graph, loss, step

    def __call__(self) -> Tensor:
        self._graph.replay()
        return self._loss


@contextmanager
def _restored(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """In place, since what is recorded reads and writes these very tensors. The optimizer stays capturable."""
    before = [(tensor, tensor.detach().clone()) for tensor in [*model.parameters(), *model.buffers()]]
    state = {id(tensor): tensor.clone() for tensor in _state(optimizer)}
    random = torch.cuda.get_rng_state(device)
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, was in before:
                tensor.copy_(was)
            for tensor in _state(optimizer):  # Adam's begins with zeros
                tensor.copy_(state[id(tensor)]) if id(tensor) in state else tensor.zero_()
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
