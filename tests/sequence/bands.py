"""Sequences, kernels and padding that the tests of convolutions share, and `attend` on a band graph as their judge."""

import torch
import torch.nn.functional as F

from graphattn import Graph, attend, topology

# (steps, taps to the left, taps to the right)
BANDS = {
    "centred": (12, 2, 2),
    "causal": (12, 4, 0),
    "even, as far as a step more to the left": (9, 2, 1),
    "to the right only": (7, 0, 3),
    "one tap": (6, 0, 0),
    "as long as the sequence": (5, 2, 2),
    "longer than the sequence": (3, 7, 7),
    "causal and longer than the sequence": (3, 6, 0),
    "one step": (1, 2, 2),
    "no step": (0, 3, 0),
}


def paddings(batch: int, steps: int) -> dict[str, torch.Tensor | None]:
    """The first sequence is whole where there are three; the last is all padding in "one sequence"."""
    at = torch.arange(steps)
    lengths = torch.tensor([[steps], [(steps + 1) // 2], [max(steps - 1, 0)]])[:batch]
    some = torch.rand(batch, steps, generator=torch.Generator().manual_seed(1)) < 0.5
    return {
        "none": None,
        "on the right": at >= lengths,
        "on the left": at < steps - lengths,
        "scattered": some,
        "one sequence": torch.arange(batch).unsqueeze(1).eq(batch - 1).expand(batch, steps),
    }


PADDINGS = list(paddings(1, 1))


def judge(x, logits, left, norm, padding=None):
    """Each sequence by itself: its band as a Graph, its taps as the edges' logits.

    Under "edges" a missing step is no node; under "taps" it is a node whose value is zero.
    """
    (batch, steps, _), (heads, taps) = x.shape, logits.shape[-2:]
    logits = logits.expand(batch, steps, heads, taps)
    outs = []
    for b in range(batch):
        gone = torch.zeros(steps, dtype=torch.bool) if padding is None else padding[b]
        values = torch.where(gone.unsqueeze(1), 0.0, x[b]).view(steps, heads, x.shape[-1] // heads)
        if norm == "edges":
            band = topology.band(steps, left, taps - 1 - left)
            here = ~gone[band.senders]
            graph = Graph(band.senders[here], band.receivers[here], steps, steps)
            tap = graph.senders - graph.receivers + left
        else:
            values = F.pad(values, (0, 0, 0, 0, left, taps - 1 - left))
            receivers, tap = torch.arange(steps).repeat_interleave(taps), torch.arange(taps).repeat(steps)
            graph = Graph(receivers + tap, receivers, steps + taps - 1, steps)
        outs.append(attend(logits[b, graph.receivers, :, tap], values, graph, backend="reference").flatten(1))
    return torch.stack(outs)
