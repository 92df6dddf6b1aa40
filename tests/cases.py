"""The graphs, the arguments of each operation and the tolerances that all tests share."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphattn import Graph, ops

# Relative and absolute tolerance of two correct computations of the same thing.
TOLERANCE: dict[torch.dtype, dict[str, float]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}


def close(actual: Tensor | None, expected: Tensor | None, claim: str = "") -> None:
    """Equal up to the tolerance of their dtype (integers: equal); the dtypes must be the same."""
    if expected is None or actual is None:
        assert actual is expected, f"{claim}: only one of the two is None"
        return
    tolerance = TOLERANCE.get(expected.dtype, {"rtol": 0.0, "atol": 0.0})
    torch.testing.assert_close(actual, expected, **tolerance, msg=lambda text: f"{claim}: {text}" if claim else text)


def _graph(pairs: list[tuple[int, int]], num_senders: int, num_receivers: int | None = None) -> Graph:
    ends = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return Graph(
        ends[:, 0].clone(), ends[:, 1].clone(), num_senders, num_senders if num_receivers is None else num_receivers
    )


def _random(num_edges: int, num_senders: int, num_receivers: int, seed: int) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    senders = torch.randint(num_senders, (num_edges,), generator=generator)
    receivers = torch.randint(num_receivers, (num_edges,), generator=generator)
    return Graph(senders, receivers, num_senders, num_receivers)


def complete(num_senders: int, num_receivers: int, seed: int = 0) -> Graph:
    """Every sender to every receiver once, in shuffled order."""
    pairs = torch.cartesian_prod(torch.arange(num_senders), torch.arange(num_receivers))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    return Graph(pairs[:, 0].clone(), pairs[:, 1].clone(), num_senders, num_receivers)


def _strided() -> Graph:
    """Senders and receivers are views that skip through a larger tensor."""
    ends = torch.stack([_random(40, 9, 9, seed=3).senders, _random(40, 9, 9, seed=4).receivers], 1)
    return Graph(ends[::2, 0], ends[1::2, 1], 9, 9)


_HUB = [(i, 0) for i in range(1, 201)] + [(0, 1), (1, 2), (0, 0)]

GRAPHS: dict[str, Graph] = {
    "no_nodes": _graph([], 0),
    "no_edges": _graph([], 4),
    "one_node": _graph([], 1),
    "one_node_loop": _graph([(0, 0)], 1),
    "isolated": _graph([(0, 1), (1, 3), (3, 0), (3, 1)], 5),  # nodes 2 and 4
    "duplicates": _graph([(0, 1), (2, 1), (0, 1), (1, 0), (0, 1), (2, 0), (1, 0)], 3),
    "self_loops": _graph([(1, 1), (0, 1), (2, 0), (0, 0), (1, 2), (1, 1)], 4),
    "hub": _graph(_HUB, 201),
    "directed": _graph([(0, 1), (0, 2), (1, 2), (2, 3), (0, 3), (3, 4), (1, 4)], 5),  # never back
    "more_senders": _graph([(0, 1), (5, 0), (2, 1), (4, 1), (3, 0), (1, 0), (0, 0)], 6, 3),  # receiver 2 hears none
    "more_receivers": _graph([(0, 4), (1, 0), (2, 4), (0, 1), (1, 3), (1, 1)], 3, 6),
    "no_senders": _graph([], 0, 3),
    "no_receivers": _graph([], 3, 0),
    "strided": _strided(),
    "complete": complete(5, 5),
    "complete_bipartite": complete(4, 3, seed=1),
    "random": _random(150, 30, 30, seed=2),
}
SQUARE = [name for name, graph in GRAPHS.items() if graph.is_square]
BIPARTITE = [name for name, graph in GRAPHS.items() if not graph.is_square]
COMPLETE = [name for name, graph in GRAPHS.items() if graph.is_complete]


def edge_index(graph: Graph) -> Tensor:
    """PyG's [2, E] of a graph; not contiguous where the graph's own tensors are not."""
    if graph.senders.is_contiguous():
        return torch.stack([graph.senders, graph.receivers])
    return torch.stack([graph.senders, graph.receivers], 1).t()


@dataclass(frozen=True)
class Operation:
    """An operation of `ops`, the letters of its tensors in the order of its arguments, and the optional edge term."""

    name: str
    tensors: dict[str, str]
    edge_term: dict[str, str]
    with_edge_term: bool = False

    def __str__(self) -> str:
        return self.name + ("+edge" if self.with_edge_term else "")

    def arguments(
        self, graph: Graph, heads: int = 2, width: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> dict[str, Tensor]:
        """Random leaves that need gradients, by argument name."""
        generator = torch.Generator().manual_seed(seed)
        sizes = {"E": graph.num_edges, "N_s": graph.num_senders, "N_r": graph.num_receivers, "H": heads, "D": width}
        letters = {**self.tensors, **(self.edge_term if self.with_edge_term else {})}
        return {
            name: torch.randn([sizes[letter] for letter in shape.split()], generator=generator, dtype=torch.float64)
            .to(graph.device, dtype)
            .requires_grad_()
            for name, shape in letters.items()
        }


_PLAIN = (
    Operation("attend", {"logits": "E H", "values": "N_s H D"}, {}),
    Operation("additive", {"values": "N_s H D", "score_s": "N_s H", "score_r": "N_r H"}, {"edge_logits": "E H"}),
    Operation("additive_v2", {"left": "N_s H D", "right": "N_r H D", "att": "H D"}, {"edge": "E H D"}),
    Operation("dot_product", {"q": "N_r H D", "k": "N_s H D", "v": "N_s H D"}, {"edge": "E H D"}),
)
OPERATIONS: tuple[Operation, ...] = (*_PLAIN, *(replace(op, with_edge_term=True) for op in _PLAIN if op.edge_term))


def results(
    operation: Operation,
    graph: Graph,
    backend: str,
    dropout: float = 0.0,
    heads: int = 2,
    width: int = 3,
    dtype: torch.dtype = torch.float64,
    arguments: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Output, weights and the gradient of each argument, of a loss that looks at output and weights alike."""
    arguments = operation.arguments(graph, heads, width, dtype) if arguments is None else arguments
    torch.manual_seed(7)
    out, weights = getattr(ops, operation.name)(
        **arguments, graph=graph, dropout=dropout, return_weights=True, backend=backend
    )
    loss = (out * torch.linspace(-1, 1, out.numel()).to(out).view_as(out)).sum() + weights.square().sum()
    wanted = {name: tensor for name, tensor in arguments.items() if tensor.requires_grad}
    gradients = torch.autograd.grad(loss, tuple(wanted.values()))
    named = {f"gradient of {name}": gradient for name, gradient in zip(wanted, gradients, strict=True)}
    return {"out": out.detach(), "weights": weights.detach(), **named}


def on_our_operations(layer, *args, **options) -> bool:
    """Whether a call reaches `ops`: there, and only there, an unknown back end is an error."""
    with ops.use(backend="none of this name"):
        try:
            layer(*args, **options)
        except ValueError as error:
            if "none of this name" not in str(error):
                raise
            return True
    return False
