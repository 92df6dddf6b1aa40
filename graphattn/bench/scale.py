"""Graphs that fill a machine: GAT trained on the whole of one, and on batches sampled from one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GATConv as PyGGATConv

from graphattn import ops
from graphattn.bench import memory
from graphattn.bench.case import Alone
from graphattn.bench.graphs import MadeGraph
from graphattn.bench.timing import quantile
from graphattn.conv import GATConv
from graphattn.data import NeighborLoader
from graphattn.models.gat import GAT

_STEPS = 3  # that count, after a first one that orders the edges


@dataclass(frozen=True)
class _GATCase(Alone):
    """Three layers of `heads` x `width`, no dropout, cross-entropy on `trained` nodes, Adam."""

    name: str
    graph: MadeGraph
    in_features: int = 128
    num_classes: int = 40
    heads: int = 4
    width: int = 64
    trained: int = 100_000

    def about(self) -> dict[str, Any]:
        sizes = {"N": self.graph.num_nodes, "E": self.graph.num_edges, "H": self.heads, "D": self.width}
        return {"op": "GAT", "graph": self.graph.kind, "in_features": self.in_features, **sizes}

    def _network(self, ours: bool) -> GAT:
        torch.manual_seed(0)
        options: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "feature_dropout": 0.0}
        options |= {"hidden": self.width, "heads": self.heads, "num_layers": 3}
        model = GAT(self.in_features, self.num_classes, **options)
        for layer in [module for module in model.modules() if isinstance(module, GATConv)]:
            layer.add_self_loops = False  # the graph has them
            if not ours:
                layer.__class__ = PyGGATConv
        return model

    def _labels(self) -> tuple[Tensor, Tensor]:
        """The training nodes, and the class of every node."""
        generator = torch.Generator().manual_seed(1)
        labels = torch.randint(self.num_classes, (self.graph.num_nodes,), generator=generator)
        return torch.randperm(self.graph.num_nodes, generator=generator)[: self.trained], labels


@dataclass(frozen=True)
class FullBatchCase(_GATCase):
    """The whole graph in every step. "recomputed": the layers compute again in the backward pass what lies inside them;
    "bf16": under autocast to bfloat16. `peak_mib` is all that the process holds.
    """

    directions: ClassVar[tuple[str, ...]] = ("training step",)

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("graphattn", "graphattn recomputed", "graphattn recomputed bf16", "pyg")

    def obstacle(self, contestant: str, device: str) -> str | None:
        if contestant == "pyg":
            return memory.lack(memory.unfused_step("additive", self.graph.num_edges, self.heads, self.width), device)
        return memory.lack(self._least_bytes(contestant), device)

    def _least_bytes(self, contestant: str) -> float:
        """Of what a step cannot do without: the features, and of each hidden layer what enters it, and beside that the
        mapped values of one layer, their gradients and its output's (of every layer its values and outputs too, if
        they are kept).
        """
        channels = self.heads * self.width
        held = 5 if "recomputed" in contestant else 8
        size = 2 if "bf16" in contestant else 4
        return self.graph.num_nodes * (4.0 * self.in_features + size * held * channels)

    def measure(self, contestant: str, device: str) -> Iterator[dict[str, Any]]:
        model = self._network(ours=contestant != "pyg").to(device)
        model.recompute = "recomputed" in contestant
        x = torch.randn(self.graph.num_nodes, self.in_features, generator=torch.Generator().manual_seed(0)).to(device)
        edge_index = self.graph.edge_index().to(device)
        train, labels = (tensor.to(device) for tensor in self._labels())
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled="bf16" in contestant):
                logits = model(x, edge_index)
            F.cross_entropy(logits[train].float(), labels[train]).backward()
            optimizer.step()

        times = [_seconds(step, device) for _ in range(1 + _STEPS)][1:]
        peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else memory.resident_peak()
        yield {"direction": "training step", **_quantiles(times), "peak_mib": peak, "repeats": _STEPS}


@dataclass(frozen=True)
class SampledCase(_GATCase):
    """Batches of `batch` nodes with neighbours drawn hop by hop, as `neighbors` says, from features in a memory-mapped
    file. `sampling` is the loader alone, a batch, two made ahead in threads; `training step` is a batch with loader,
    model and optimizer; `epoch` has all of them. "pyg" has PyG's layers on our loader, since PyG's own needs pyg-lib.
    """

    directions: ClassVar[tuple[str, ...]] = ("sampling", "training step", "epoch")

    batch: int = 1024
    neighbors: tuple[int, ...] = (15, 10, 5)

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("graphattn", "pyg")

    def obstacle(self, contestant: str, device: str) -> str | None:
        return memory.lack(4.0 * self.graph.num_nodes * self.in_features + 32.0 * self.graph.num_edges, device)

    def measure(self, contestant: str, device: str) -> Iterator[dict[str, Any]]:
        model = self._network(ours=contestant != "pyg").to(device)
        if contestant == "pyg":
            model.forward = ops.use(backend="reference")(model.forward)  # type: ignore[method-assign]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005, fused=True)
        with tempfile.TemporaryDirectory() as folder:
            train, labels = self._labels()
            data = Data(x=self._mapped(Path(folder) / "x.bin"), edge_index=self.graph.edge_index(), y=labels)
            loader = NeighborLoader(data, list(self.neighbors), input_nodes=train, batch_size=self.batch, shuffle=True)

            def step(batch: Data) -> None:
                batch = batch.to(device)
                optimizer.zero_grad()
                logits = model(batch.x, batch.edge_index, per_hop=(batch.num_sampled_nodes, batch.num_sampled_edges))
                F.cross_entropy(logits[: batch.batch_size], batch.y[: batch.batch_size]).backward()
                optimizer.step()

            sampling, training = _each(loader, lambda batch: None, device), _each(loader, step, device)
        peak = {"peak_mib": memory.resident_peak()} if device == "cpu" else {}
        yield {"direction": "sampling", **_quantiles(sampling), "repeats": len(sampling)}
        yield {"direction": "training step", **_quantiles(training), **peak, "repeats": len(training)}
        yield {"direction": "epoch", "p50_ms": 1e3 * sum(training), "repeats": 1}

    def _mapped(self, file: Path) -> Tensor:
        """Random features, written a part at a time to a file that the loader reads from."""
        rows = self.graph.num_nodes
        x = torch.from_file(str(file), shared=True, size=rows * self.in_features).view(rows, self.in_features)
        generator = torch.Generator().manual_seed(0)
        for part in x.split(65_536):
            part.normal_(generator=generator)
        return x


def _each(loader: NeighborLoader, step: Callable[[Data], None], device: str) -> list[float]:
    """Seconds of each batch of an epoch, from the last one's end to its own."""
    times = []
    last = time.perf_counter()
    for batch in loader:
        step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return times


def _seconds(run: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{100 * q:.0f}_ms": 1e3 * quantile(seconds, q) for q in (0.2, 0.5, 0.8)}
