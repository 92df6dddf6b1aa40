"""Mini-batches of a graph too large to train on as a whole, made in threads while the last one is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import NeighborSampler as PyGNeighborSampler
from torch_geometric.sampler.base import SubgraphType

from graphattn.data.neighbor_sampler import NeighborSampler


class NeighborLoader(NodeLoader):
    """PyG's `NeighborLoader`, with its arguments and batch fields, on our sampler; needs neither pyg-lib nor
    torch-sparse.

    A batch has `n_id`, `e_id`, `input_id`, `batch_size`, `num_sampled_nodes`, `num_sampled_edges` and, if disjoint,
    `batch`; its first `batch_size` nodes are the seeds. `NeighborSampler` says what is sampled.

    Up to `prefetch` batches are made ahead in threads, which sample and gather features without Python's lock; in which
    order they finish changes nothing. `num_workers` makes them in processes instead, as in PyG. Features that lie in a
    memory-mapped file (`torch.from_file`, `torch.load(mmap=True)`, `torch.from_numpy` of a `numpy.memmap`) are read as
    far as batches need them.

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
        super().__init__(
            data=data,
            node_sampler=neighbor_sampler,
            input_nodes=input_nodes,
            input_time=input_time,
            transform=transform,
            transform_sampler_output=transform_sampler_output,
            filter_per_worker=filter_per_worker,
            **kwargs,
        )
        self._ahead = prefetch

    def _get_iterator(self) -> Iterator[Any]:
        ours = isinstance(self.node_sampler, NeighborSampler)
        if not ours or self._ahead == 0 or self.num_workers > 0 or self.batch_sampler is None or self.pin_memory:
            return super()._get_iterator()
        return self._from_threads()

    def _from_threads(self) -> Iterator[Any]:
        """Each batch has a generator seed of its own, drawn here in order."""
        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(self._ahead, thread_name_prefix="sampling") as threads:
            try:
                for index in self.batch_sampler:
                    seed = int(torch.randint(2**63 - 1, ()))
                    waiting.append(threads.submit(self._batch, index, seed))
                    if len(waiting) > self._ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for batch in waiting:
                    batch.cancel()

    def _batch(self, index: Any, seed: int) -> Any:
        out = self.node_sampler.seeded(seed).sample_from_nodes(self.input_data[index])
        return self.filter_fn(out)
