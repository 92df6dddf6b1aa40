"""Classification of images: batches of them, moved about if wanted, and measured as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.data import Images
from graphattn.data.augment import crop_and_flip, random_moves
from graphattn.training.judging import measures_of
from graphattn.training.ranks import Shares, weighted

_AT_ONCE = 1000  # images that are measured together


class ImageClassification:
    """Each image has one class. A step takes `batch` images, in an order that torch's generator draws anew each epoch;
    the last one takes those left over.

    augment: `crop-flip` moves and mirrors each training image, see `data.augment`, drawn anew each epoch.
    label_smoothing: the part s of each label that is given to all classes alike: the loss is (1 - s) times that of the
        label plus s times the mean over the classes. Measures are without.
    channels_last: images are laid out by pixel, as the model's weights should be.
    log_gradient: `gradient` is among the measures, see `first_gradient`.
    """

    whole: ClassVar[bool] = False

    def __init__(
        self,
        data: Images,
        batch: int,
        *,
        augment: Literal["none", "crop-flip"] = "none",
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        log_gradient: bool = False,
    ) -> None:
        self.data = data
        self.score = data.score
        self.augment, self.label_smoothing, self.log_gradient = augment, label_smoothing, log_gradient
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._shares = Shares(len(data.train), batch)

    @property
    def steps(self) -> int:
        return len(self._shares)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images, `batch` at a time, as the model sees them, and their classes.

        All of an epoch is drawn here, of all images: ranks that share them draw alike.
        """
        images, device = self.data.train, self.data.train.device
        moves = random_moves(len(images), device) if self.augment == "crop-flip" else None
        shares = list(self._shares)
        order = torch.tensor([k for ids in shares for k in ids]).to(device)  # at once: each would wait for the GPU
        for ids in order.split([len(share) for share in shares]):
            some = images[ids] if moves is None else crop_and_flip(images[ids], moves.of(ids))
            yield self._seen(some), self.data.train_labels[ids]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy, averaged over the batch's images."""
        images, labels = batch
        return weighted(F.cross_entropy(model(images), labels, label_smoothing=self.label_smoothing), len(labels))

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """test_<score> and, if there are images that validate, val_loss and val_<score>, of the model as it is (call
        eval() first).
        """
        found = {}
        for part, (images, labels) in self.data.held_out().items():
            logits = [self.logits(model, self._seen(some)) for some in images.split(_AT_ONCE)]
            found[part] = (torch.cat(logits), labels)
        gradient = {"gradient": first_gradient(model)} if self.log_gradient else {}
        return measures_of(self.score, found) | gradient

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """[B, classes], of images as the model sees them."""
        return model(images)

    def over_epochs(self, history: Sequence[dict[str, float]], kept: int) -> dict[str, float]:
        """The kept epoch's train_loss, the mean over its steps; and beside its test score the best of any epoch, which
        nothing is chosen by.
        """
        best = max(row[f"test_{self.score}"] for row in history)
        return {f"best_test_{self.score}": best, "train_loss": history[kept]["train_loss"]}

    def _seen(self, images: Tensor) -> Tensor:
        return self.data.pixels(images).contiguous(memory_format=self._format)


def first_gradient(model: nn.Module) -> float:
    """The mean absolute gradient, of the last step, of all parameters of the layer that has the first; NaN without."""
    named = dict(model.named_parameters())
    first = next(iter(named))
    layer = first[: first.rfind(".") + 1]
    grads = [p.grad.abs().flatten() for name, p in named.items() if name.startswith(layer) and p.grad is not None]
    return float(torch.cat(grads).mean()) if grads else float("nan")
