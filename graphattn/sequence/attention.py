"""Multi-head attention over whole sequences: the complete graph, against which the bands are measured.

The maths is torch's `scaled_dot_product_attention`. Layout and `padding` as in `taps`: [B, T, d], bool [B, T], true at
padding, of which the modules hear nothing, whatever stands there. A step that hears nobody gets the output's bias, as
its weighted sum is zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from graphattn.sequence.linear import linear
from graphattn.sequence.taps import by_head, check_sequence, without_padding


def multihead_attention(
    q: Float[Tensor, "B T d"],
    k: Float[Tensor, "B S d"],
    v: Float[Tensor, "B S d"],
    heads: int,
    *,
    padding: Bool[Tensor, "B S"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "B T d"]:
    """softmax(q k / sqrt(d / H)) v, head by head, over the steps of k that are no padding.

    With `causal` the last step of q stands at the last of k, and hears no later one: T may be less than S. What stands
    at padding must be finite. Second derivatives are those of torch's MATH back end alone: see
    torch.nn.attention.sdpa_kernel.

    Vaswani et al., 'Attention Is All You Need', NeurIPS 2017.

    Raises:
        ValueError: shapes that do not fit each other or the heads, or padding that is not bool [B, S].
    """
    check_sequence(k, heads, padding)
    if q.dim() != 3 or q.shape[::2] != k.shape[::2] or v.shape != k.shape:
        raise ValueError(
            f"q has shape {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}: needed [B, T, d], [B, S, d], [B, S, d]"
        )
    (length, others), mask = (q.shape[1], k.shape[1]), None
    if padding is not None:
        mask = ~padding.view(len(padding), 1, 1, others)
    whole = causal and mask is None and length == others
    if causal and not whole and length > 1:
        earlier = torch.ones(length, others, dtype=torch.bool, device=q.device).tril(others - length)
        mask = earlier if mask is None else mask & earlier
    q, k, v = (by_head(tensor, heads).transpose(1, 2) for tensor in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=whole)
    return out.transpose(1, 2).flatten(2)


class KeyValues:
    """The keys and values of the steps so far, [B, S, d] each: unlike with a `Ring`, a step costs O(S d).

    Written in place, so without gradients. Room is doubled when it is used up.
    """

    def __init__(
        self, batch: int, channels: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> None:
        self._keys = torch.empty(batch, 0, channels, dtype=dtype, device=device)
        self._values = torch.empty_like(self._keys)
        self._padding = torch.empty(batch, 0, dtype=torch.bool, device=device)
        self._padded = False
        self.seen = 0

    @property
    def keys(self) -> Float[Tensor, "B S d"]:
        return self._keys[:, : self.seen]

    @property
    def values(self) -> Float[Tensor, "B S d"]:
        return self._values[:, : self.seen]

    @property
    def padding(self) -> Bool[Tensor, "B S"] | None:
        return self._padding[:, : self.seen] if self._padded else None

    def reorder(self, sequences: Int[Tensor, "B2"]) -> None:
        """Goes on with these of the sequences, in this order; one may be named twice, as beams are, or dropped."""
        for name in ("_keys", "_values", "_padding"):  # with their room, so that the next step need not grow them
            setattr(self, name, getattr(self, name).index_select(0, sequences))

    def push(
        self, keys: Float[Tensor, "B T d"], values: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None
    ) -> None:
        """
        Raises:
            ValueError: another number of sequences or channels than before.
            RuntimeError: what is pushed needs a gradient, which would be lost.
        """
        if keys.shape[::2] != self._keys.shape[::2]:
            raise ValueError(
                f"keys have shape {list(keys.shape)}: needed [{self._keys.shape[0]}, T, {self._keys.shape[2]}]"
            )
        if keys.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "keys and values keep no gradients: decode under torch.no_grad(), train with full passes"
            )
        end = self.seen + keys.shape[1]
        if end > self._keys.shape[1]:
            room = max(end, 2 * self.seen) - self.seen
            self._keys = F.pad(self.keys, (0, 0, 0, room))
            self._values = F.pad(self.values, (0, 0, 0, room))
            self._padding = F.pad(self._padding[:, : self.seen], (0, room))
        self._keys[:, self.seen : end] = keys
        self._values[:, self.seen : end] = values
        self._padding[:, self.seen : end] = False if padding is None else padding
        self._padded = self._padded or padding is not None
        self.seen = end


class MemoryKeyValues(KeyValues):
    """Those of a memory, which stay where they are as long as each row goes on with the memory that it had: so they do
    when the beams of a sequence change places.
    """

    def __init__(
        self, batch: int, channels: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> None:
        super().__init__(batch, channels, dtype, device)
        self._heard = torch.arange(batch, device=device)  # by each row, of the sequences that there were at first

    def reorder(self, sequences: Int[Tensor, "B2"]) -> None:
        before, self._heard = self._heard, self._heard[sequences]
        if not torch.equal(before, self._heard):
            super().reorder(sequences)


class _Attention(nn.Module):
    """The four maps d -> d, initialised as in torch's `nn.MultiheadAttention`, the output's Xavier-uniform."""

    def __init__(self, channels: int, heads: int, weight_dropout: float) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(
                f"{channels} channels and {heads} heads: needed a number of heads that divides the channels"
            )
        if not 0.0 <= weight_dropout <= 1.0:
            raise ValueError(f"weight_dropout is {weight_dropout}: needed a probability between 0 and 1")
        self.channels, self.heads, self.weight_dropout = channels, heads, weight_dropout
        self.query, self.key, self.value = (linear(channels, channels, gain=2**-0.5) for _ in range(3))
        self.output = linear(channels, channels)

    def _heard(
        self,
        x: Float[Tensor, "B T d"],
        keys: Float[Tensor, "B S d"],
        values: Float[Tensor, "B S d"],
        padding: Bool[Tensor, "B S"] | None,
        causal: bool = False,
    ) -> Float[Tensor, "B T d"]:
        check_sequence(x, self.heads, None, self.channels)
        dropout = self.weight_dropout if self.training else 0.0
        heard = multihead_attention(
            self.query(x), keys, values, self.heads, padding=padding, causal=causal, dropout=dropout
        )
        return self.output(heard)

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}, weight_dropout={self.weight_dropout}"


class SelfAttention(_Attention):
    """Every step hears every step, or with `causal` itself and those before it: [B, T, d] -> [B, T, d].

    `weight_dropout` drops normalised weights. For decoding a step at a time hand in `state(batch)`.
    """

    def __init__(self, channels: int, heads: int, *, causal: bool = False, weight_dropout: float = 0.0) -> None:
        super().__init__(channels, heads, weight_dropout)
        self.causal = causal

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        padding: Bool[Tensor, "B T"] | None = None,
        state: KeyValues | None = None,
    ) -> Float[Tensor, "B T d"]:
        """x is a whole sequence, or with a state the steps that come next."""
        check_sequence(x, self.heads, padding, self.channels)
        heard = without_padding(x, padding)
        keys, values = self.key(heard), self.value(heard)
        if state is not None:
            state.push(keys, values, padding)
            keys, values, padding = state.keys, state.values, state.padding
        return self._heard(x, keys, values, padding, self.causal)

    def state(self, batch: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> KeyValues:
        """An empty memory for decoding `batch` sequences, by default of the weights' dtype and on their device.

        Raises:
            ValueError: the attention is not causal, so a step would have to wait for later ones.
        """
        if not self.causal:
            raise ValueError("only causal attention can go step by step: build it with causal=True")
        weight = self.key.weight
        return KeyValues(batch, self.channels, dtype or weight.dtype, device or weight.device)


class CrossAttention(_Attention):
    """Every step of one sequence hears every step of another: x [B, T, d], memory [B, S, d] -> [B, T, d]."""

    def __init__(self, channels: int, heads: int, *, weight_dropout: float = 0.0) -> None:
        super().__init__(channels, heads, weight_dropout)

    def forward(
        self, x: Float[Tensor, "B T d"], memory: Float[Tensor, "B S d"], padding: Bool[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B T d"]:
        """`padding` is that of the memory."""
        return self._heard(x, *self._mapped(memory, padding), padding)

    def state(self, memory: Float[Tensor, "B S d"], padding: Bool[Tensor, "B S"] | None = None) -> MemoryKeyValues:
        """The memory's keys and values, to be mapped once and heard at every step; see `recall`."""
        state = MemoryKeyValues(memory.shape[0], self.channels, memory.dtype, memory.device)
        state.push(*self._mapped(memory, padding), padding)
        return state

    def recall(self, x: Float[Tensor, "B T d"], state: KeyValues) -> Float[Tensor, "B T d"]:
        """As a call with the memory that `state` was made of."""
        return self._heard(x, state.keys, state.values, state.padding)

    def _mapped(
        self, memory: Float[Tensor, "B S d"], padding: Bool[Tensor, "B S"] | None
    ) -> tuple[Float[Tensor, "B S d"], Float[Tensor, "B S d"]]:
        check_sequence(memory, self.heads, padding, self.channels)
        memory = without_padding(memory, padding)
        return self.key(memory), self.value(memory)
