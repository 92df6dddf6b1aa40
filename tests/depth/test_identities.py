"""Each rule against the one operation on its own DAG, and against other forms of the same maths; float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from graphattn.depth import (
    AttentionResidual,
    DepthWeighted,
    HyperConnections,
    LayerMemory,
    MRLABase,
    MRLABaseTokens,
    MRLALight,
    Place,
    Rule,
    ScalarMix,
    SelfAttentive,
)
from graphattn.depth.attend import attend_layers, layer_scores, weighted_sum
from graphattn.layer_dags import history
from graphattn.ops import attend

B, T, C, SIZE = 2, 5, 6, 3


def places(count: int = T) -> list[Place]:
    return [Place(f"block{i}", (C, SIZE, SIZE), (C, SIZE, SIZE), (C, SIZE, SIZE)) for i in range(count)]


def run(modules: list[nn.Module], entry: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """What each place gives, for blocks that give `outputs` whatever they get."""
    memory = LayerMemory()
    memory.open(entry)
    given = []
    for module, x in zip(modules, outputs, strict=True):
        memory.shortcut = entry
        given.append(module(x, memory))
    return given


def built(rule: Rule, count: int = T) -> list[nn.Module]:
    modules = [module.double().eval() for module in rule.modules(places(count))]
    for module in modules:
        for value in module.parameters():
            nn.init.normal_(value)
    return modules


def maps(count: int = T) -> list[Tensor]:
    return [torch.randn(B, C, SIZE, SIZE, dtype=torch.float64, requires_grad=True) for _ in range(count)]


def over_dag(logits: Tensor, values: Tensor, graph) -> Tensor:
    """`attend` for each sample: logits [B, T, T, H] receiver first, values [B, T, H, D]."""
    at = logits[:, graph.receivers, graph.senders]
    return torch.stack([attend(at[b], values[b], graph, backend="reference") for b in range(logits.shape[0])])


def agree(ours: Callable[[], list[Tensor]], theirs: Callable[[], list[Tensor]], leaves: list[Tensor]) -> None:
    """Outputs, and the gradients of every leaf."""
    results = []
    for compute in (ours, theirs):
        outputs = compute()
        weights = [torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape) for out in outputs]
        loss = sum((out * w).sum() for out, w in zip(outputs, weights, strict=True))
        results.append((outputs, torch.autograd.grad(loss, leaves, materialize_grads=True)))
    for part in (0, 1):
        for a, b in zip(results[0][part], results[1][part], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dim", [2, 6])
@pytest.mark.parametrize("judge", ["reference", "sdpa"])
def test_mrla_base_is_causal_attention_over_layers(dim: int, judge: str) -> None:
    modules = built(MRLABase(dim=dim))
    outputs, heads = maps(), C // dim

    def theirs() -> list[Tensor]:
        of_layers = zip(*(m.maps(x) for m, x in zip(modules, outputs, strict=True)), strict=True)
        q, k, v = (torch.stack(part, 1) for part in of_layers)
        wide = v.reshape(B, T, heads, -1)
        if judge == "sdpa":
            out = nn.functional.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), wide.transpose(1, 2), is_causal=True
            ).transpose(1, 2)
        else:
            logits = torch.einsum("bihd,bjhd->bijh", q, k) * dim**-0.5
            out = over_dag(logits, wide, MRLABase().graph(T))
        read = out.reshape(B, T, C, SIZE, SIZE).unbind(1)
        return [x + m.norm(o).relu() for x, m, o in zip(outputs, modules, read, strict=True)]

    leaves = [*outputs, *(p for m in modules for p in m.parameters())]
    agree(lambda: run(modules, outputs[0], outputs), theirs, leaves)


def test_swapped_heads_and_layers_are_seen() -> None:
    """The published code of equation 4 takes [B, T, C] for [B, H, T, C / H] without moving an axis; permuting the
    layers' values must permute with the weights, head by head.
    """
    query = torch.randn(B, 3, 2)
    keys, values = list(torch.randn(T, B, 3, 2)), list(torch.randn(T, B, C, SIZE, SIZE))
    out, weights = attend_layers(query, keys, values, 0.5)
    order = [3, 1, 4, 0, 2]
    shuffled, moved = attend_layers(query, [keys[i] for i in order], [values[i] for i in order], 0.5)
    torch.testing.assert_close(shuffled, out)
    torch.testing.assert_close(moved, weights[..., order])
    heads = [2, 0, 1]
    by_head = [v.reshape(B, 3, 2, SIZE, SIZE)[:, heads].reshape(v.shape) for v in values]
    turned, _ = attend_layers(query[:, heads], [k[:, heads] for k in keys], by_head, 0.5)
    torch.testing.assert_close(turned, out.reshape(B, 3, 2, SIZE, SIZE)[:, heads].reshape(out.shape))
    scrambled = torch.stack(keys, 1).reshape(B, T, C).view(B, 3, T, 2)  # what the published code reads
    wrong = (query.unsqueeze(2) * scrambled).sum(-1) * 0.5
    assert (wrong - layer_scores(query, keys, 0.5)).abs().max() > 0.1


def test_incremental_equals_all_at_once() -> None:
    query, keys, values = torch.randn(T, B, 2, 3), torch.randn(T, B, 2, 3), torch.randn(T, B, C, SIZE, SIZE)
    scores = torch.einsum("ibhd,jbhd->bhij", query, keys) * 0.7
    weights = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)
    whole = torch.einsum("bhij,jbhdxy->ibhdxy", weights, values.reshape(T, B, 2, 3, SIZE, SIZE))
    for t in range(T):
        out, _ = attend_layers(query[t], list(keys[: t + 1]), list(values[: t + 1]), 0.7)
        torch.testing.assert_close(out, whole[t].reshape(B, C, SIZE, SIZE))


def test_weighted_sum_gradcheck() -> None:
    weights = torch.randn(B, 2, 3, dtype=torch.float64, requires_grad=True)
    values = [torch.randn(B, 4, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda w, *v: weighted_sum(w, v), (weights, *values))


@pytest.mark.parametrize("carry", ["state", "shortcut"])
def test_light_scan_is_a_dense_dag(carry: str) -> None:
    """o_t = sum over s <= t of (lambda_{s+1} ... lambda_t) sigma_s v_s, after what was carried in."""
    modules, outputs, entry = built(MRLALight(carry=carry, dim=2)), maps(), maps(1)[0]
    gates, decays = [], []
    for m, x in zip(modules, outputs, strict=True):
        q, k, v = m.maps(x)
        gates.append(((q * k).sum(-1) * 2**-0.5).sigmoid().repeat_interleave(2, 1)[..., None, None] * v)
        decays.append(torch.zeros(C, 1, 1).double() if m.decay is None else m.decay)

    def dense(t: int) -> Tensor:
        if carry == "shortcut":
            return gates[t] + decays[t] * entry
        out = gates[t]
        for s in range(t):
            out = out + torch.stack(decays[s + 1 : t + 1]).prod(0) * gates[s]
        return out

    def theirs() -> list[Tensor]:
        return [x + m.norm(dense(t)) for t, (x, m) in enumerate(zip(outputs, modules, strict=True))]

    leaves = [entry, *outputs, *(p for m in modules for p in m.parameters())]
    agree(lambda: run(modules, entry, outputs), theirs, leaves)


def test_mrla_base_of_tokens_is_attention_over_layers() -> None:
    rule, tokens = MRLABaseTokens(dim=2), 1 + SIZE**2
    modules = [m.double() for m in rule.modules([Place(f"b{i}", *[(tokens, C)] * 3) for i in range(T)])]
    outputs = [torch.randn(B, tokens, C, dtype=torch.float64, requires_grad=True) for _ in range(T)]

    def theirs() -> list[Tensor]:
        normed = [m.norm(x) for m, x in zip(modules, outputs, strict=True)]
        patches = [x[:, 1:].mT.reshape(B, C, SIZE, SIZE) for x in normed]
        of_layers = zip(*(m.maps(x) for m, x in zip(modules, patches, strict=True)), strict=True)
        q, k, v = (torch.stack(part, 1) for part in of_layers)
        logits = torch.einsum("bihd,bjhd->bijh", q, k) * 2**-0.5
        out = over_dag(logits, v.reshape(B, T, C // 2, -1), rule.graph(T)).reshape(B, T, C, -1).mT.unbind(1)
        return [x + torch.cat([n[:, :1], o], 1) for x, n, o in zip(outputs, normed, out, strict=True)]

    leaves = [*outputs, *(p for m in modules for p in m.parameters())]
    agree(lambda: run(modules, outputs[0], outputs), theirs, leaves)


@pytest.mark.parametrize("rule", [SelfAttentive(), SelfAttentive(tokens="positions", heads=3, entry=True)])
def test_self_attention_reads_once_what_attention_over_all_layers_would(rule: SelfAttentive) -> None:
    """Against the last row of Q K^T of all layers, on the read-out graph."""
    modules, outputs, entry = built(rule), maps(), maps(1)[0]
    read = modules[-1]
    nodes = [entry] * rule.entry + outputs
    heads, pixels = rule.heads, read.size[0] * read.size[1]

    def theirs() -> list[Tensor]:
        tokens = torch.stack([nn.functional.adaptive_avg_pool2d(x, read.size).flatten(2).mT for x in nodes], 2)
        tokens = tokens.reshape(B * pixels, len(nodes), C)
        layers = (read.query, read.key, read.value)
        q, k, v = (layer(tokens).reshape(B * pixels, len(nodes), heads, -1) for layer in layers)
        logits = torch.einsum("bihd,bjhd->bijh", q, k) * (C // heads) ** -0.5
        out = over_dag(logits, v, rule.graph(T))[:, -1].reshape(B, pixels, C)
        return [out.mT.reshape(B, C, *read.size)]

    agree(lambda: run(modules, entry, outputs)[-1:], theirs, [*nodes, *read.parameters()])


def test_scalar_mix_is_attention_with_static_scores() -> None:
    modules, outputs = built(ScalarMix()), maps()
    mix = modules[-1]

    def theirs() -> list[Tensor]:
        logits = mix.logits.expand(B, T, T).unsqueeze(-1)
        values = torch.stack(outputs, 1).reshape(B, T, 1, -1)
        return [mix.gamma * over_dag(logits, values, ScalarMix().graph(T))[:, -1].reshape(outputs[0].shape)]

    agree(lambda: run(modules, outputs[0], outputs)[-1:], theirs, [*outputs, mix.logits, mix.gamma])


def keys_of(read: nn.Module, x: Tensor) -> Tensor:
    """Logits [B, h, w] of one reader for one layer, by the definition."""
    normed = nn.functional.rms_norm(x.movedim(1, -1), (C,), read.scale, 1e-6)
    return normed @ read.query


def test_attention_residuals_are_attention_at_each_position() -> None:
    modules, outputs, entry = built(AttentionResidual()), maps(), maps(1)[0]
    nodes = [entry, *outputs]

    def theirs() -> list[Tensor]:
        logits = torch.zeros(B, SIZE, SIZE, T + 1, T + 1, dtype=torch.float64)
        rows = [torch.stack([keys_of(m, x) for x in nodes], -1) for m in modules]
        logits = torch.stack([torch.zeros_like(rows[0]), *rows], -2).reshape(B * SIZE * SIZE, T + 1, T + 1, 1)
        values = torch.stack(nodes, 1).permute(0, 3, 4, 1, 2).reshape(B * SIZE * SIZE, T + 1, 1, C)
        out = over_dag(logits, values, AttentionResidual().graph(T))
        return list(out.reshape(B, SIZE, SIZE, T + 1, C).permute(3, 0, 4, 1, 2)[1:])

    leaves = [*nodes, *(p for m in modules for p in m.parameters())]
    agree(lambda: run(modules, entry, outputs), theirs, leaves)


def test_attention_residuals_in_blocks_read_sums() -> None:
    modules, outputs, entry = built(AttentionResidual(block=2)), maps(), maps(1)[0]

    def read(t: int) -> Tensor:
        done = [outputs[i : i + 2] for i in range(0, t + 1, 2)]
        nodes = [entry, *(sum(part[: t + 1 - 2 * i]) for i, part in enumerate(done))]
        weights = torch.stack([keys_of(modules[t], x) for x in nodes]).softmax(0)
        return (weights.unsqueeze(2) * torch.stack(nodes)).sum(0)

    leaves = [entry, *outputs, *(p for m in modules for p in m.parameters())]
    agree(lambda: run(modules, entry, outputs), lambda: [read(t) for t in range(T)], leaves)


def test_two_phases_equal_one() -> None:
    """Static queries against the finished blocks in one batch, then an online-softmax merge with the last one."""
    modules, outputs, entry = built(AttentionResidual(block=2)), maps(), maps(1)[0]
    given = run(modules, entry, outputs)
    for first in range(0, T, 2):
        finished = [entry, *(outputs[i] + outputs[i + 1] for i in range(0, first, 2))]
        readers = modules[first : first + 2]
        logits = torch.stack([torch.stack([keys_of(m, x) for x in finished]) for m in readers])
        top = logits.amax(1)
        weights = (logits - top.unsqueeze(1)).exp()
        total, mean = weights.sum(1), torch.einsum("rtbhw,tbchw->rbchw", weights, torch.stack(finished))
        for r, reader in enumerate(readers):
            partial = sum(outputs[first : first + r + 1])
            own = keys_of(reader, partial)
            largest = torch.maximum(top[r], own)
            old, new = (top[r] - largest).exp(), (own - largest).exp()
            merged = (old.unsqueeze(1) * mean[r] + new.unsqueeze(1) * partial) / (old * total[r] + new).unsqueeze(1)
            torch.testing.assert_close(merged, given[first + r])


def test_depth_weighted_average_is_a_signed_sum_over_its_dag() -> None:
    rule = DepthWeighted(dilation=2, period=2)
    modules, outputs, entry = built(rule), maps(), maps(1)[0]
    nodes, graph = [entry, *outputs], rule.graph(T)
    for t, out in enumerate(run(modules, entry, outputs), start=1):
        senders = graph.senders[graph.receivers == t].tolist()
        weights = [1.0] if modules[t - 1].weights is None else modules[t - 1].weights
        torch.testing.assert_close(out, sum(w * nodes[j] for w, j in zip(weights, senders, strict=True)))


def test_hyper_connections_are_a_dense_dag_of_rank_n() -> None:
    """What branch t + 1 reads is sum over j of alpha^T (A_t ... A_{j+1})^T beta_j F_j, static coefficients."""
    n = 3
    modules, outputs, entry = built(HyperConnections(streams=n, dynamic=False)), maps(), maps(1)[0]
    vectors = [torch.ones(n, dtype=torch.float64)] + [m.spread.static[:, 0] for m in modules]
    nodes = [entry, *outputs]

    def dense(t: int) -> Tensor:
        reader = torch.ones(n, dtype=torch.float64) if modules[t].read is None else modules[t].read.static[:, 0]
        out = torch.zeros_like(entry)
        for j in range(t + 2):
            carried = vectors[j]
            for later in modules[j : t + 1]:
                carried = later.mixing.static.T @ carried
            out = out + (reader @ carried) * nodes[j]
        return out

    leaves = [*nodes, *(p for m in modules for p in m.parameters())]
    agree(lambda: run(modules, entry, outputs), lambda: [dense(t) for t in range(T)], leaves)


def test_dynamic_hyper_connections_by_hand() -> None:
    """static + s tanh(W LN(H)), one position at a time."""
    modules, outputs, entry = built(HyperConnections(streams=2), 2), maps(2), maps(1)[0]
    given = run(modules, entry, outputs)

    def coefficients(c: nn.Module, streams: Tensor) -> Tensor:
        return c.static + c.scale * (c.norm(streams) @ c.weight.T).tanh()

    for b, i, j in [(0, 0, 0), (1, 2, 1)]:
        streams = torch.stack([entry[b, :, i, j]] * 2)
        for t, module in enumerate(modules):
            mixing, spread = coefficients(module.mixing, streams), coefficients(module.spread, streams)[:, 0]
            streams = mixing.T @ streams + spread.unsqueeze(1) * outputs[t][b, :, i, j]
            read = torch.ones(2).double() if module.read is None else coefficients(module.read, streams)[:, 0]
            torch.testing.assert_close(given[t][b, :, i, j], read @ streams)


def test_linear_layer_attention_has_a_state_form() -> None:
    """With phi = elu + 1 for exp, layer attention is a running sum: what makes constant memory possible."""
    query, keys, values = torch.randn(T, B, 4), torch.randn(T, B, 4), torch.randn(T, B, C)
    phi_q, phi_k = nn.functional.elu(query) + 1, nn.functional.elu(keys) + 1
    state, total = torch.zeros(B, 4, C), torch.zeros(B, 4)
    graph = history(T)
    for t in range(T):
        state = state + phi_k[t].unsqueeze(-1) * values[t].unsqueeze(1)
        total = total + phi_k[t]
        out = torch.einsum("bk,bkc->bc", phi_q[t], state) / (phi_q[t] * total).sum(-1, keepdim=True)
        for b in range(B):
            logits = (phi_q[graph.receivers, b] * phi_k[graph.senders, b]).sum(-1, keepdim=True).log()
            dense = attend(logits, values[:, b].unsqueeze(1), graph, backend="reference")
            torch.testing.assert_close(out[b], dense[t, 0])
