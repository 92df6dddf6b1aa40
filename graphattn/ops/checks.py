"""What the doors of `ops` check before a back end sees anything: types, shapes, devices, and NaN on request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from graphattn.graph import Graph

_OPTIONAL = ("edge", "edge_logits")


def checked(
    op: str, graph: Graph, check_nan: bool, arguments: Mapping[str, tuple[Tensor | None, str]]
) -> dict[str, Tensor | None]:
    """The arguments in their common dtype (promoted as torch's own operators do, e.g. under autocast).

    Each argument is (tensor, shape in letters), e.g. {"values": (values, "N_s H D")}; an absent edge term stays None.
    Letters mean the same in all arguments of a call; E, N_s and N_r are the graph's; #H may be 1 instead of H.

    Raises:
        TypeError: not a tensor, or not of a floating dtype.
        ValueError: another number of dimensions or another size than the letters say, no heads, another device,
            or (with `check_nan`) a NaN.
    """
    if not isinstance(graph, Graph):
        raise TypeError(f"{op}: graph is a {type(graph).__name__}: needed a Graph; see topology.from_edge_index")
    sizes = {"E": graph.num_edges, "N_s": graph.num_senders, "N_r": graph.num_receivers}
    present = {name: (tensor, letters) for name, (tensor, letters) in arguments.items() if tensor is not None}
    for name in arguments:
        if name not in present and name not in _OPTIONAL:
            raise TypeError(f"{op}: {name} is None: needed a tensor of shape [{arguments[name][1].replace('#', '')}]")
    for name, (tensor, letters) in sorted(present.items(), key=lambda item: "#" in item[1][1]):
        _check_kind(op, name, tensor, letters, graph)
        _check_shape(op, name, tensor, letters.split(), sizes)
        if check_nan and tensor.isnan().any():
            row = int(tensor.isnan().flatten(1).any(1).nonzero()[0])
            raise ValueError(f"{op}: {name} holds NaN, first in row {row}: check the inputs and the learning rate")
    common = reduce(torch.promote_types, (tensor.dtype for tensor, _ in present.values()))
    return {name: None if tensor is None else tensor.to(common) for name, (tensor, _) in arguments.items()}


def _check_kind(op: str, name: str, tensor: Tensor, letters: str, graph: Graph) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{op}: {name} is a {type(tensor).__name__}: needed a tensor of shape [{letters.replace('#', '')}]"
        )
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{op}: {name} has dtype {tensor.dtype}: needed a floating dtype; convert with .float()")
    if tensor.device != graph.device:
        raise ValueError(f"{op}: {name} is on {tensor.device}, the graph on {graph.device}: move one with .to()")


def _check_shape(op: str, name: str, tensor: Tensor, letters: list[str], sizes: dict[str, int]) -> None:
    """Learns the sizes of letters it has not met, and holds the others to what they were."""
    agrees = tensor.dim() == len(letters) and all(
        (size == 1 and letter[0] == "#") or sizes.setdefault(letter.lstrip("#"), size) == size
        for letter, size in zip(letters, tensor.shape, strict=True)
    )
    if not agrees:
        needed = ", ".join(_named(letter, sizes) for letter in letters)
        raise ValueError(f"{op}: {name} has shape {list(tensor.shape)}: needed [{needed}]")
    if sizes.get("H") == 0:
        raise ValueError(f"{op}: {name} has no heads (shape {list(tensor.shape)}): needed at least one")


def _named(letter: str, sizes: dict[str, int]) -> str:
    plain = letter.lstrip("#")
    named = f"{plain}={sizes[plain]}" if plain in sizes else plain
    return named if plain == letter else f"{named} or 1"
