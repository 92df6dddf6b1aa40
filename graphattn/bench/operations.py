"""The four operations by themselves, over their back ends and torch.sparse."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch_geometric.utils import softmax

from graphattn import ops
from graphattn.bench import limit, memory
from graphattn.bench.case import Case, Entry
from graphattn.bench.graphs import MadeGraph
from graphattn.graph import Graph

_SHAPES: dict[str, dict[str, str]] = {  # the arguments of an operation before the graph
    "attend": {"logits": "EH", "values": "NHD"},
    "additive": {"values": "NHD", "score_s": "NH", "score_r": "NH"},
    "additive_v2": {"left": "NHD", "right": "NHD", "att": "HD"},
    "dot_product": {"q": "NHD", "k": "NHD", "v": "NHD"},
}


@dataclass(frozen=True)
class OpCase(Case):
    """An operation whose arguments all want their gradient. Contestants are named after their back ends.

    The back end `dense` is left out: it takes complete graphs only. `torch.sparse` runs `attend` with one head: PyG's
    softmax, then a CSR product. Each contestant orders the edges once, before it is timed.
    """

    baseline: ClassVar[str] = "reference"

    name: str
    op: Literal["attend", "additive", "additive_v2", "dot_product"]
    graph: MadeGraph
    heads: int
    width: int
    peers: tuple[str, ...] = ("scatter", "torch.sparse")

    def contestants(self, device: str) -> tuple[str, ...]:
        there = {
            "dense": False,
            "cpu": device == "cpu",
            "gpu": device == "cuda",
            "scatter": "scatter" in self.peers and find_spec("torch_scatter") is not None,
            "torch.sparse": "torch.sparse" in self.peers and self.op == "attend" and self.heads == 1,
        }
        return tuple(name for name in (*ops.BACKENDS, "torch.sparse") if there.get(name, True))

    def obstacle(self, contestant: str, device: str) -> str | None:
        if contestant == "torch.sparse":  # the gradient of its CSR product passes through a dense N x N matrix
            return memory.lack(4 * self.graph.num_nodes**2, device)
        if contestant in ("reference", "scatter"):
            needed = memory.unfused_step(self.op, self.graph.num_edges, self.heads, self.width)
            return memory.lack(needed, device)
        return None

    def about(self) -> dict[str, Any]:
        return {"op": self.op, "graph": self.graph.kind, "dtype": "float32"} | self._sizes()

    def least_bytes(self) -> int:
        return limit.forward_bytes(self.op, **self._sizes())

    def build(self, contestant: str, device: str) -> Entry:
        edge_index = self.graph.edge_index().to(device)
        generator = torch.Generator().manual_seed(self.graph.seed)
        sizes = self._sizes()
        arguments = {
            name: torch.randn([sizes[letter] for letter in letters], generator=generator).to(device).requires_grad_()
            for name, letters in _SHAPES[self.op].items()
        }

        def make_graph() -> Graph:
            return Graph(edge_index[0], edge_index[1], sizes["N"], sizes["N"])

        if contestant == "torch.sparse":
            return Entry(lambda csr: csr.attend(**arguments), lambda: _Csr(make_graph()), arguments)
        run: Callable[..., Tensor] = getattr(ops, self.op)
        return Entry(lambda graph: run(**arguments, graph=graph, backend=contestant), make_graph, arguments)

    def _sizes(self) -> dict[str, int]:
        return {"N": self.graph.num_nodes, "E": self.graph.num_edges, "H": self.heads, "D": self.width}


class _Csr:
    """`attend` with one head as torch has it: the weights are the non-zeros of a CSR matrix.

    Torch's gradient of such a matrix takes each row's columns to be distinct and in order.
    """

    def __init__(self, graph: Graph) -> None:
        with warnings.catch_warnings():  # torch says once a process that CSR is in beta: let that be here, unheard
            warnings.simplefilter("ignore")
            torch.sparse_csr_tensor([0, 0], [], [], (1, 1))
        self.receivers, self.size = graph.receivers, (graph.num_receivers, graph.num_senders)
        self.edges = graph.pair.argsort()
        self.ptr, self.columns = graph.by_receiver.ptr, graph.senders[self.edges]

    def attend(self, logits: Tensor, values: Tensor) -> Tensor:
        weights = softmax(logits[:, 0], self.receivers, num_nodes=self.size[0]).index_select(0, self.edges)
        return (torch.sparse_csr_tensor(self.ptr, self.columns, weights, self.size) @ values[:, 0]).unsqueeze(1)
