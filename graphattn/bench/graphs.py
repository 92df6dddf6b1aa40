"""The generated graphs: so many nodes and edges, spread evenly, by a power law, or into one hub."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from graphattn.training.fit import write_whole

_KEPT = 20_000_000  # edges
_EXPONENT = 0.6  # node of rank r is drawn with probability ~ r^-0.6: degrees fall off as d^-(1 + 1/0.6), as in arxiv


@dataclass(frozen=True)
class MadeGraph:
    """`num_edges` counts the self-loops, one a node, which come last; the others are sorted by sender, as PyG has them.

    uniform: both ends drawn evenly; power-law: both ends by rank, so the nodes that hear most are also heard most;
    hub: every edge that is no loop enters node 0. Only the hub's edges may be duplicates.
    """

    name: str
    kind: Literal["uniform", "power-law", "hub"]
    num_nodes: int
    num_edges: int
    seed: int = 0

    def edge_index(self) -> Tensor:
        """[2, E], senders above receivers, the same at every call. Large ones are kept in a file among the temporary
        ones: each contestant, and each process, would make them anew, which takes a minute.

        Raises:
            ValueError: fewer edges than loops, or so many that no two may be equal.
        """
        n, wanted = self.num_nodes, self.num_edges - self.num_nodes
        if wanted < 0 or (self.kind != "hub" and wanted > n * (n - 1) // 2):
            raise ValueError(
                f"graph {self.name}: {self.num_edges} edges between {n} nodes: needed between {n} (the loops) and "
                f"{n + n * (n - 1) // 2}"
            )
        if self.num_edges < _KEPT:
            return self._made()
        sizes = f"{self.kind}-{self.num_nodes}-{self.num_edges}-{self.seed}"
        file = Path(tempfile.gettempdir()) / f"graphattn-{sizes}.pt"
        if not file.exists():
            write_whole(self._made(), file)
        return torch.load(file, weights_only=True)

    def _made(self) -> Tensor:
        n, wanted = self.num_nodes, self.num_edges - self.num_nodes
        generator = torch.Generator().manual_seed(self.seed)
        if self.kind == "hub":
            senders = torch.randint(1, n, (wanted,), generator=generator)
            ends = torch.stack([senders.sort().values, torch.zeros_like(senders)])
        else:
            ends = self._distinct(wanted, generator)
        return torch.cat([ends, torch.arange(n).expand(2, n)], 1)

    def _distinct(self, wanted: int, generator: torch.Generator) -> Tensor:
        """So many edges, none twice and none a loop."""
        n = self.num_nodes
        labels = torch.randperm(n, generator=generator)
        power = 1.0 if self.kind == "uniform" else 1 / (1 - _EXPONENT)  # inverse of the distribution function
        pairs = torch.empty(0, dtype=torch.int64)  # sender * n + receiver
        while pairs.numel() < wanted:
            draws = torch.rand(2, wanted + 16, generator=generator, dtype=torch.float64)
            ends = labels[(n * draws**power).long().clamp_(max=n - 1)]
            fresh = (ends[0] * n + ends[1])[ends[0] != ends[1]]
            pairs = torch.cat([pairs, fresh]).unique()
        pairs = pairs[torch.randperm(pairs.numel(), generator=generator)[:wanted].sort().values]
        return torch.stack([pairs // n, pairs % n])
