"""Hard sharing: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from graphattn.multitask.sharing import Sharing


class HardSharing(Sharing):
    """out_t = head_t(trunk(inputs)): all tasks train the trunk, each its own head.

    With one task it is single-task learning.

    Paper: Caruana, Multitask Learning, Machine Learning 28, 1997.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__(heads)
        self.trunk = trunk

    def features(self, tasks: tuple[str, ...], *inputs: Any) -> dict[str, Any]:
        return dict.fromkeys(tasks, self.trunk(*inputs))

    def trunk_of(self, task: str) -> nn.Module:
        return self.trunk
