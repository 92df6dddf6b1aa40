"""Evaluation of a network on a graph too large for it: one layer after the other, some nodes at a time."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphattn.data import NeighborLoader, NeighborSampler


@torch.no_grad()
def layerwise(
    model: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    batch_size: int = 65_536,
    folder: Path | None = None,
    edge_attr: Tensor | None = None,
) -> Tensor:
    """The logits [N, C] of the whole graph, as `model(x, edge_index)` gives them in evaluation.

    Features of edges, `edge_attr` [E, D], are for a model that looks at them.

    Layer by layer, `batch_size` nodes at a time hear all that enter them; each layer is computed once for each node,
    not once for each node that needs it. In memory at any time: one batch with its senders, and two layers' outputs;
    with `folder` these lie in memory-mapped files there, which are removed but for the last one, the result's. The
    result is in the CPU's memory whatever device the model is on.

    Raises:
        ValueError: a model whose layers look further than one hop, features not dense, or a batch size below 1.
    """
    if not getattr(model, "by_hop", False):  # a Layered, or one that Fabric has wrapped
        raise ValueError(
            f"{type(model).__name__} cannot be run layer by layer: needed a model with step(), a hop a layer"
        )
    if getattr(x, "layout", None) != torch.strided:
        raise ValueError(f"x is a sparse {type(x).__name__}, whose rows cannot be taken: needed x.to_dense()")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, needed at least 1")
    if getattr(model, "edge_dim", None) is None:
        edge_attr = None
    if x.shape[0] == 0:
        return model(x, edge_index, edge_attr=edge_attr)
    num_layers = len(model.layers)  # type: ignore[arg-type]
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        whole = Data(edge_index=edge_index, edge_attr=edge_attr, num_nodes=x.shape[0])
        sampler = NeighborSampler(whole, [-1]).seeded(0)  # takes all, so torch's generator need not be asked
        loader = NeighborLoader(whole, [-1], batch_size=batch_size, neighbor_sampler=sampler)
        for i in range(num_layers):
            out: Tensor | None = None
            for batch in loader:
                parts = (x[batch.n_id].to(device), batch.edge_index.to(device))
                edges = None if edge_attr is None else batch.edge_attr.to(device)
                own = model(*parts, only=i, edge_attr=edges)[: batch.batch_size].cpu()
                if out is None:
                    out = _held(x.shape[0], own, folder and folder / f"layer-{i}.bin")
                out[batch.input_id] = own
            if folder is not None and i > 0:
                (folder / f"layer-{i - 1}.bin").unlink()
            assert out is not None  # there are nodes, so there was a batch
            x = out
    finally:
        model.train(training)
    return x


def _held(rows: int, like: Tensor, file: Path | None) -> Tensor:
    """[rows, width of `like`], in memory or in a file."""
    if file is None:
        return like.new_empty(rows, like.shape[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # an earlier result may still be in use; it keeps its own
    flat = torch.from_file(str(file), shared=True, size=rows * like.shape[1], dtype=like.dtype)
    return flat.view(rows, like.shape[1])
