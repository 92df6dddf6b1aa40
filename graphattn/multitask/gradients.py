"""The gradient of each task by itself: how they agree, and how another one takes the place of their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def task_gradients(losses: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
    """[T, P]: the gradient of each of the losses [T] in all shared parameters, one after the other.

    The graph is kept: the losses can still be gone back from.
    """
    if not shared:
        return losses.new_zeros(len(losses), 0)
    return torch.stack([_flat(_gradient(loss, shared), shared) for loss in losses])


def cosines(gradients: Tensor) -> Tensor:
    """[T, T]: of each pair of rows of [T, P]; below 0 the tasks are in conflict. A gradient of zero has none: 0."""
    products = gradients @ gradients.T
    norms = gradients.norm(dim=1)
    return products / (norms[:, None] * norms).clamp(min=torch.finfo(gradients.dtype).tiny)


def steered(loss: Tensor, shared: Sequence[nn.Parameter], more: Tensor) -> Tensor:
    """`loss` with its own value, whose gradient in the shared parameters has `more` [P] added.

    It is gone back from as any loss, so what watches gradients as they come, such as DDP, sees nothing unusual.
    """
    if not shared:
        return loss
    pieces = more.detach().split([p.numel() for p in shared])
    added = torch.stack([(p * piece.view_as(p)).sum() for p, piece in zip(shared, pieces, strict=True)]).sum()
    return loss + (added - added.detach())


def _gradient(loss: Tensor, shared: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
    if not loss.requires_grad:  # all that it depends on is frozen
        return [None] * len(shared)
    return torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)


def _flat(gradients: Sequence[Tensor | None], shared: Sequence[nn.Parameter]) -> Tensor:
    pieces = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, shared, strict=True)]
    return torch.cat([piece.flatten() for piece in pieces])
