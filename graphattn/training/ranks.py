"""Data-parallel training: several processes, the ranks, each with a share of every batch and the same model.

`torchrun` starts them, Lightning Fabric joins them, torch's DDP averages their gradients; here is what is left: which
share is whose, what it counts for, and that all ranks mean the same experiment and draw the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import Sampler


def joined(device: str, precision: str) -> Fabric:
    """Fabric on one device, or on those of all ranks if torchrun has started several."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=ranks // here,
        strategy="ddp",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def number() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class Shares(Sampler[list[int]]):
    """Of each batch of `size` out of `count` the part that is this rank's; all ranks begin together, in one order.

    Raises:
        ValueError: a batch, or what is left for the last one, is too small to give each rank something.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.rank, ranks = number()
        least = min(size, count % size or size)
        if least < ranks:
            raise ValueError(
                f"a batch has {least} of {count}, which {ranks} ranks cannot share: start fewer, or change train.batch"
            )

    def __iter__(self) -> Iterator[list[int]]:
        _, ranks = number()
        same_random_state()
        for batch in torch.randperm(self.count).split(self.size):
            yield batch[self.rank :: ranks].tolist()

    def __len__(self) -> int:
        return -(-self.count // self.size)


def same_random_state() -> None:
    """All ranks go on with the first one's random numbers, those of the CPU: dropout on shares of unequal size draws
    unequally many.
    """
    _, ranks = number()
    if ranks > 1:
        state = [torch.get_rng_state()]
        dist.broadcast_object_list(state)
        torch.set_rng_state(state[0])


def weighted(loss: Tensor, count: int | Tensor) -> Tensor:
    """A mean over `count` things, weighted so that DDP's average over the ranks is the mean over all of them."""
    _, ranks = number()
    if ranks == 1:
        return loss
    total = torch.as_tensor(count, device=loss.device).clone()
    dist.all_reduce(total)
    return loss * (count * ranks / total.clamp(min=1))  # where none has any, all losses are 0


def check_same(what: str, value: str | Callable[[], str]) -> None:
    """Compare a rank's `value` (or what it gives, if there are several ranks to ask) with that of the others.

    Raises:
        ValueError: on every rank, that they differ; with each rank's value.
    """
    _, ranks = number()
    if ranks == 1:
        return
    found: list[str] = [""] * ranks
    dist.all_gather_object(found, value if isinstance(value, str) else value())
    if len(set(found)) > 1:
        listed = ", ".join(f"rank {rank} has {its}" for rank, its in enumerate(found))
        raise ValueError(f"the ranks disagree on {what}: {listed}; give all of them the same")
