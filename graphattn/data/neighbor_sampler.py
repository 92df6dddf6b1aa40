"""Neighbour sampling by our own kernel: PyG's sampler with nothing to install beside it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.index import index2ptr
from torch_geometric.sampler import HeteroSamplerOutput, SamplerOutput
from torch_geometric.sampler import NeighborSampler as PyGNeighborSampler
from torch_geometric.sampler.base import DataType, SubgraphType
from torch_geometric.sampler.utils import to_csc

from graphattn import native
from graphattn.graph import Graph
from graphattn.record import one_of

NodeKind = str | None  # None: the only one
EdgeKind = tuple[str, str, str] | None

_TIMES = "whole numbers, e.g. seconds as int64"


class NeighborSampler(PyGNeighborSampler):
    """Samples neighbours hop by hop, as PyG's sampler does with pyg-lib: same arguments, same outputs, same
    distribution; other draws.

    From the edges that enter a node, `num_neighbors[hop]` are drawn, each set of them equally likely (with `replace`
    each draw by itself; with `weight_attr` in proportion to the weights), or all if there are no more or it is below 0.
    With `time_attr`, a seed's sample holds nothing later than the seed, and `temporal_strategy="last"` takes
    the latest instead of any. One seed of torch's generator is drawn a call: what it samples depends on nothing else.

    Paper: Hamilton, Ying and Leskovec, Inductive Representation Learning on Large Graphs, NeurIPS 2017. Differences
    from PyG 2.8: `induced` also for several kinds of edges and for `disjoint`; sampling along the edges' direction
    (`sample_direction="backward"`), remote stores, `share_memory` and the deprecated `directed` are not offered.

    Raises:
        ImportError: the package was installed without its compiled kernels.
        ValueError: one number of neighbours instead of one for each hop; an attribute that does not exist or has
            another length, weights that are negative or not finite, seeds that are no nodes, edges said to be sorted
            that are not; an adjacency matrix that is a torch tensor.
        IndexError: an edge that ends at no node.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: Any,
        subgraph_type: SubgraphType | str = "directional",
        replace: bool = False,
        disjoint: bool = False,
        temporal_strategy: Literal["uniform", "last"] = "uniform",
        time_attr: str | None = None,
        weight_attr: str | None = None,
        is_sorted: bool = False,
    ) -> None:
        if native.kernels is None:
            raise ImportError(
                f"neighbour sampling needs the compiled kernels, which this install lacks ({native.missing}): install "
                f"a C++ compiler and reinstall graphattn, or pyg-lib and use PyG's loader"
            )
        self.data_type = DataType.from_data(data)
        if self.data_type == DataType.remote:
            raise ValueError("data is a pair of stores: needed PyG's Data or HeteroData")
        if isinstance(num_neighbors, int):
            raise ValueError(f"num_neighbors is {num_neighbors}: needed a number for each hop, e.g. [{num_neighbors}]")
        hetero = isinstance(data, HeteroData)
        self.sample_direction = "forward"  # PyG's, read by `num_neighbors`
        self.num_neighbors = num_neighbors
        self.subgraph_type = SubgraphType(subgraph_type)
        self.temporal_strategy = one_of(temporal_strategy, ("uniform", "last"), "temporal_strategy")
        self.replace, self.disjoint, self.keep_orig_edges = replace, disjoint, False

        self.node_types: list[Any] = data.node_types if hetero else [None]
        self.edge_types: list[Any] = data.edge_types if hetero else [None]
        sizes = {kind: (data[kind] if hetero else data).num_nodes for kind in self.node_types}
        self.num_nodes = sizes if hetero else sizes[None]
        node_time, edge_time = _times(data, time_attr)
        if self.subgraph_type == SubgraphType.induced and time_attr is not None:
            raise ValueError(
                "subgraph_type is 'induced' with time_attr: edges of other times would join: choose another"
            )
        if temporal_strategy == "last" and (replace or weight_attr is not None):
            raise ValueError("temporal_strategy is 'last', which draws nothing: leave out replace and weight_attr")
        self.node_time = node_time if hetero or node_time is None else node_time[None]
        self.edge_time = edge_time if hetero or edge_time is None else edge_time[None]
        ptrs, neighbours, perms = {}, {}, {}
        for kind in self.edge_types:
            source, target = (kind[0], kind[-1]) if hetero else (None, None)
            ptrs[kind], neighbours[kind], perms[kind] = _by_receiver(
                data[kind] if hetero else data,
                (sizes[source], sizes[target]),
                (node_time or {}).get(source),
                (edge_time or {}).get(kind),
                is_sorted,
            )
        self.perm = perms if hetero else perms[None]

        weights = _weights(data, weight_attr, self.edge_types)
        places = {kind: place for place, kind in enumerate(self.node_types)}
        self._arrays: dict[str, Any] = {
            "num_nodes": [sizes[kind] for kind in self.node_types],
            "node_times": [_long((node_time or {}).get(kind)) for kind in self.node_types],
            "ends": [(places[kind[0]], places[kind[-1]]) if hetero else (0, 0) for kind in self.edge_types],
            "ptrs": [_long(ptrs[kind]) for kind in self.edge_types],
            "neighbours": [_long(neighbours[kind]) for kind in self.edge_types],
            "weights": [_ordered(weights.get(kind), perms[kind]) for kind in self.edge_types],
            "edge_times": [_long(_ordered((edge_time or {}).get(kind), perms[kind])) for kind in self.edge_types],
        }
        self._graph = _held(self._arrays)
        self.seed: int | None = None

    def seeded(self, seed: int) -> NeighborSampler:
        """The same sampler, which draws what `seed` says, in each call anew, instead of asking torch's generator.

        `NeighborLoader` adds the number of the batch, but not where processes make it.
        """
        other = object.__new__(type(self))
        other.__dict__.update(vars(self), seed=seed)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_graph"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._graph = _held(self._arrays)

    def _sample(self, seed: Any, seed_time: Any = None, **_: Any) -> SamplerOutput | HeteroSamplerOutput:
        hetero = isinstance(seed, dict)
        seeds = seed if hetero else {None: seed}
        times = (seed_time or {}) if hetero else {None: seed_time}
        if self.is_temporal:
            for kind, place in ((kind, self.node_types.index(kind)) for kind in seeds):
                if times.get(kind) is None and self._arrays["node_times"][place] is None:
                    raise ValueError(
                        f"the seeds{f' {kind}' if kind else ''} have no times of their own: give input_time"
                    )
        for kind, some in seeds.items():
            _check_whole(some, "input_nodes", "numbers of nodes")
            _check_whole(times.get(kind), "input_time", _TIMES)
        wanted = self.num_neighbors.get_values(self.edge_types if hetero else None)
        nodes, edges = self._graph.sample(
            [wanted[kind] for kind in self.edge_types] if hetero else [wanted],
            [self.node_types.index(kind) for kind in seeds],
            native.inputs(*(_long(some) for some in seeds.values())),
            native.inputs(*(_long(times.get(kind)) for kind in seeds)),
            self.replace,
            self.subgraph_type == SubgraphType.induced,
            self.disjoint,
            self.temporal_strategy == "last",
            int(torch.randint(2**63 - 1, ())) if self.seed is None else self.seed,
        )
        node, of_seed, per_hop = _by_kind(self.node_types, nodes)
        row, col, edge, edges_per_hop = _by_kind(self.edge_types, edges)
        induced = self.subgraph_type == SubgraphType.induced
        parts: dict[str, Any] = {
            "node": node,
            "row": row,
            "col": col,
            "edge": edge,
            "batch": of_seed if self.disjoint else None,
            "num_sampled_nodes": None if induced else per_hop,
            "num_sampled_edges": None if induced else edges_per_hop,
        }
        if hetero:
            return HeteroSamplerOutput(**parts)
        return SamplerOutput(**{name: part and part[None] for name, part in parts.items()})


def _by_receiver(
    edges: Any, sizes: tuple[int, int], node_time: Tensor | None, edge_time: Tensor | None, is_sorted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """ptr, senders and which edges they are: grouped by receiver, in a group by time, else in the order given."""
    if "edge_index" not in edges:  # a sparse adjacency
        for name in ("adj", "adj_t"):
            if isinstance(edges.get(name), Tensor):
                raise ValueError(f"{name} is a tensor: needed edge_index, e.g. of torch_geometric.utils.to_edge_index")
        return to_csc(edges, device="cpu", is_sorted=is_sorted, src_node_time=node_time, edge_time=edge_time)
    senders, receivers = edges.edge_index.cpu()
    checked = Graph(senders, receivers, *sizes)
    times = edge_time.cpu() if edge_time is not None else None if node_time is None else node_time.cpu()[senders]
    if is_sorted:
        same = receivers.diff() == 0
        if (receivers.diff() < 0).any():
            raise ValueError("is_sorted is true, but the edges are not sorted by receiver: leave it out")
        if times is not None and (times.diff() < 0)[same].any():
            raise ValueError("is_sorted is true, but edges of one receiver are not sorted by time: leave it out")
        return index2ptr(checked.receivers, sizes[1]), checked.senders.clone(), None  # not the caller's to change
    by_time = None if times is None else times.argsort(stable=True)
    if by_time is not None:
        checked = Graph(senders[by_time], receivers[by_time], *sizes)
    order = checked.by_receiver
    return order.ptr, order.others, order.edges if by_time is None else by_time[order.edges]


def _held(arrays: dict[str, Any]) -> Any:
    """The kernels' object over these arrays, which it checks."""
    return native.kernels.Neighbourhoods(
        **{name: parts if name in ("num_nodes", "ends") else native.inputs(*parts) for name, parts in arrays.items()}
    )


def _by_kind(kinds: list[Any], found: list[tuple[Any, ...]]) -> list[dict[Any, Any]]:
    """Of each kind some arrays and a list, turned over: of each array a dict by kind."""
    columns = zip(*found, strict=True) if found else [()] * 4
    return [
        {
            kind: part if isinstance(part, list) else torch.from_numpy(part)
            for kind, part in zip(kinds, column, strict=True)
        }
        for column in columns
    ]


def _times(data: Data | HeteroData, name: str | None) -> tuple[dict[Any, Tensor] | None, dict[Any, Tensor] | None]:
    """The attribute by kind of node, or by kind of edge."""
    if name is None:
        return None, None
    if isinstance(data, HeteroData):
        of_nodes = {kind: store[name] for kind, store in data.node_items() if name in store}
        of_edges = {kind: store[name] for kind, store in data.edge_items() if name in store}
    else:
        of_nodes = {None: data[name]} if name in data and data.is_node_attr(name) else {}
        of_edges = {None: data[name]} if name in data and data.is_edge_attr(name) else {}
    for kind, times in (*of_nodes.items(), *of_edges.items()):
        _check_whole(times, f"time_attr {name!r}", _TIMES)
        store = data if kind is None else data[kind]
        things, count = ("edges", store.num_edges) if kind in of_edges else ("nodes", store.num_nodes)
        if times.shape != (count,):
            raise ValueError(f"time_attr {name!r} has shape {tuple(times.shape)} for {count} {things}: needed one each")
    if bool(of_nodes) == bool(of_edges):
        found = "both nodes and edges have it" if of_nodes else "neither nodes nor edges have it"
        raise ValueError(f"time_attr is {name!r}, but {found}: needed an attribute of the nodes or of the edges")
    return of_nodes or None, of_edges or None


def _weights(data: Data | HeteroData, name: str | None, kinds: list[Any]) -> dict[Any, Tensor]:
    if name is None:
        return {}
    weights = {}
    for kind in kinds:
        store = data[kind] if kind else data
        if name not in store:
            raise ValueError(f"weight_attr is {name!r}, which the edges{f' {kind}' if kind else ''} do not have")
        weights[kind] = store[name].detach().cpu().double().flatten()
        if weights[kind].numel() != store.num_edges:
            raise ValueError(f"weight_attr {name!r} has {weights[kind].numel()} entries for {store.num_edges} edges")
        wrong = ~(weights[kind].isfinite() & (weights[kind] >= 0))
        if wrong.any():
            raise ValueError(
                f"weight_attr {name!r}: edge {int(wrong.nonzero()[0])} weighs {float(weights[kind][wrong][0])}, needed "
                f"finite numbers that are not negative"
            )
    return weights


def _ordered(values: Tensor | None, perm: Tensor | None) -> Tensor | None:
    return values if values is None or perm is None else values[perm]


def _check_whole(values: Tensor | None, what: str, needed: str) -> None:
    if values is not None and (values.is_floating_point() or values.is_complex()):
        raise ValueError(f"{what} has dtype {values.dtype}: needed {needed}")


def _long(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.cpu().long()
