"""A training step as a CUDA graph: on a small graph, launching the kernels one by one takes longer than they do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_WARM_UP = 3  # steps that make what is made once: sorted edges, compiled kernels, the optimizer's state


def captured(step: Callable[[], Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    """`step`, whose shapes and tensors are the same every time, recorded once and then replayed.

    `step` drops the gradients, computes the loss, its gradients and the optimizer's update, and gives the loss; what it
    gives is overwritten by the next replay. Recording trains nothing: parameters, buffers, the optimizer's state and
    the random state are as before. Random numbers are new at every replay.

    Raises:
        ValueError: parameters that are not on a GPU, or an optimizer that cannot be captured.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if [device.type for device in devices] != ["cuda"]:
        there = ", ".join(sorted(map(str, devices))) or "no device"
        raise ValueError(f"a step is captured on one GPU, the parameters are on {there}: leave out --cuda-graph")
    (device,) = devices
    if not all("capturable" in group for group in optimizer.param_groups):
        raise ValueError(f"{type(optimizer).__name__} cannot be captured: use Adam, or leave out --cuda-graph")
    for group in optimizer.param_groups:
        group["capturable"] = True

    before = [(tensor, tensor.detach().clone()) for tensor in [*model.parameters(), *model.buffers()]]
    state = {id(tensor): tensor.clone() for tensor in _state(optimizer)}
    random = torch.cuda.get_rng_state(device)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)

    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = step()
    with torch.no_grad():
        for tensor, was in before:
            tensor.copy_(was)
        for tensor in _state(optimizer):  # Adam's begins with zeros
            tensor.copy_(state[id(tensor)]) if id(tensor) in state else tensor.zero_()
    torch.cuda.set_rng_state(random, device)

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
