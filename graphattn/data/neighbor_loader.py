"""Mini-batches of a graph too large to train on as a whole, made in threads while the last one is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import NeighborSampler as PyGNeighborSampler
from torch_geometric.sampler.base import SubgraphType

from graphattn.data.neighbor_sampler import NeighborSampler
from graphattn.record import one_of


class NeighborLoader(NodeLoader):
    """PyG's `NeighborLoader`, with its arguments and batch fields, on our sampler; needs neither pyg-lib nor
    torch-sparse.

    A batch has `n_id`, `e_id`, `input_id`, `batch_size`, `num_sampled_nodes`, `num_sampled_edges` and, if disjoint,
    `batch`; its first `batch_size` nodes are the seeds. `NeighborSampler` says what is sampled.

    Up to `prefetch` batches are made ahead in threads, which sample and gather features without Python's lock; how
    many, and in which order they finish, changes nothing. Transforms are called where the batch is used. `num_workers`
    makes batches in processes instead, as in PyG; without a `batch_size` or with a sampler that is not ours, each is
    made when it is asked for. With `pin_memory` the threads also copy batches to where a CUDA device reads them fast.
    Features that lie in a memory-mapped file (`torch.from_file`, `torch.load(mmap=True)`, `torch.from_numpy` of a
    `numpy.memmap`) are read as far as batches need them.

    Args:
        neighbor_sampler: a sampler to use instead of our own, e.g. PyG's where pyg-lib is installed.
        prefetch: batches made ahead; 0 makes each when it is asked for.
        **kwargs: of torch's DataLoader: `batch_size`, `shuffle`, `drop_last`, `num_workers`, ...

    Raises:
        ValueError: arguments that contradict each other, or as of `NeighborSampler`.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: Any,
        input_nodes: Any = None,
        input_time: Tensor | None = None,
        replace: bool = False,
        subgraph_type: SubgraphType | str = "directional",
        disjoint: bool = False,
        temporal_strategy: Literal["uniform", "last"] = "uniform",
        time_attr: str | None = None,
        weight_attr: str | None = None,
        transform: Callable[..., Any] | None = None,
        transform_sampler_output: Callable[..., Any] | None = None,
        is_sorted: bool = False,
        filter_per_worker: bool | None = None,
        neighbor_sampler: PyGNeighborSampler | None = None,
        directed: bool = True,
        prefetch: int = 2,
        **kwargs: Any,
    ) -> None:
        if input_time is not None and time_attr is None:
            raise ValueError("input_time is given without time_attr, the attribute to compare it with: give both")
        if prefetch < 0:
            raise ValueError(f"prefetch is {prefetch}, needed a number of batches that is not negative")
        if neighbor_sampler is None:
            neighbor_sampler = NeighborSampler(
                data,
                num_neighbors,
                subgraph_type=subgraph_type if directed else "induced",
                replace=replace,
                disjoint=disjoint,
                temporal_strategy=temporal_strategy,
                time_attr=time_attr,
                weight_attr=weight_attr,
                is_sorted=is_sorted,
            )
        _check_seeds(data, input_nodes, input_time)
        super().__init__(
            data=data,
            node_sampler=neighbor_sampler,
            input_nodes=input_nodes,
            input_time=input_time,
            transform_sampler_output=transform_sampler_output,
            filter_per_worker=filter_per_worker,
            **kwargs,
        )
        self._ahead, self._last_transform = prefetch, transform

    def filter_fn(self, out: Any) -> Any:
        """The sampled nodes and edges with their features, transformed."""
        return self._transformed(super().filter_fn(out))

    def _transformed(self, batch: Any) -> Any:
        return batch if self._last_transform is None else self._last_transform(batch)

    def _get_iterator(self) -> Iterator[Any]:
        ours = isinstance(self.node_sampler, NeighborSampler)
        # Without CUDA torch warns; without filter_per_worker, as for features on a GPU, it pins what is sampled alone.
        pins_elsewhere = self.pin_memory and not (torch.cuda.is_available() and self.filter_per_worker)
        if not ours or self.num_workers > 0 or self.batch_sampler is None or pins_elsewhere:
            return super()._get_iterator()
        return self._from_threads() if self._ahead else self._one_by_one()

    def _one_by_one(self) -> Iterator[Any]:
        for make, finish in self._batches():
            yield finish(make())

    def _from_threads(self) -> Iterator[Any]:
        waiting: deque[tuple[Future[Any], Callable[[Any], Any]]] = deque()
        with ThreadPoolExecutor(self._ahead, thread_name_prefix="sampling") as threads:
            try:
                for make, finish in self._batches():
                    waiting.append((threads.submit(make), finish))
                    if len(waiting) > self._ahead:
                        made, finish = waiting.popleft()
                        yield finish(made.result())
                while waiting:
                    made, finish = waiting.popleft()
                    yield finish(made.result())
            finally:
                for made, _ in waiting:
                    made.cancel()

    def _batches(self) -> Iterator[tuple[Callable[[], Any], Callable[[Any], Any]]]:
        """How to make each batch, wherever, and how to finish it, where it is used: there the transforms are called.

        A batch is drawn by a seed made of its number and of one that is drawn here, before all else.
        """
        sampler, transformed_late = self.node_sampler, self.transform_sampler_output is not None
        first = sampler.seed
        if first is None:
            first = int(torch.randint(2**62, (), generator=self.generator))
        gradients = torch.is_grad_enabled()

        def make(number: int, index: Any) -> Any:
            with torch.set_grad_enabled(gradients):
                out = sampler.seeded(first + number).sample_from_nodes(self.input_data[index])
                return out if transformed_late else self._pinned(NodeLoader.filter_fn(self, out))

        def finish(made: Any) -> Any:
            if transformed_late:
                return self._pinned(self.filter_fn(made))
            return made if self._last_transform is None else self._pinned(self._transformed(made))

        for number, index in enumerate(self.batch_sampler):
            yield partial(make, number, index), finish

    def _pinned(self, batch: Any) -> Any:
        return pin_memory(batch) if self.pin_memory else batch


def _check_seeds(data: Data | HeteroData, input_nodes: Any, input_time: Tensor | None) -> None:
    if isinstance(data, HeteroData):
        kind, seeds = (input_nodes, None) if input_nodes is None or isinstance(input_nodes, str) else input_nodes
        one_of(kind, data.node_types, "kind of input_nodes")
        count = data[kind].num_nodes
    else:
        seeds, count = input_nodes, data.num_nodes
    asked = count if seeds is None else len(seeds)
    if asked and seeds is not None and not isinstance(seeds, Tensor):
        found = torch.tensor(seeds).dtype  # of which PyG makes int64: of a mask zeros and ones
        if found == torch.bool or found.is_floating_point:
            raise ValueError(
                f"input_nodes is a {type(seeds).__name__} of {found}: needed numbers of nodes, or a mask as a tensor"
            )
    if isinstance(seeds, Tensor) and seeds.dtype == torch.bool:
        if seeds.shape != (count,):
            raise ValueError(
                f"input_nodes is a mask of shape {tuple(seeds.shape)}, needed [{count}]: one for each node"
            )
        asked = int(seeds.sum())
    if input_time is not None and input_time.shape != (asked,):
        raise ValueError(
            f"input_time has shape {tuple(input_time.shape)} for {asked} input_nodes: needed a time for each"
        )
