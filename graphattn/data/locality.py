"""An order of nodes in which neighbours are near each other, so that what a kernel gathers is still in the cache."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor


def locality_order(edge_index: Tensor, num_nodes: int) -> Tensor:
    """[N] int64, the nodes in reverse Cuthill-McKee order: breadth first from a node of few neighbours, by degree.

    `edge_index` [2, E] holds both directions of every edge; `order[k]` is the node that comes k-th. A layer is
    then faster on large graphs that have communities and come in no order (`graphattn bench orders`); on graphs without
    them, or already in order (a grid), nothing is gained.

    Paper: Cuthill and McKee, Reducing the bandwidth of sparse symmetric matrices, ACM 1969, reversed as George 1971
    does; the algorithm is scipy's.
    """
    if edge_index.shape[1] == 0:
        return torch.arange(num_nodes, device=edge_index.device)
    senders, receivers = edge_index.cpu().numpy()
    ones = np.ones(len(senders), dtype=np.int8)
    matrix = csr_matrix((ones, (receivers, senders)), shape=(num_nodes, num_nodes))
    order = reverse_cuthill_mckee(matrix, symmetric_mode=True)
    return torch.from_numpy(order.astype(np.int64)).to(edge_index.device)


def places(order: Tensor) -> Tensor:
    """[N] int64: where each node comes in `order`."""
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=order.device)
    return place
