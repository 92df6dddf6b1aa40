"""The memory that the kernels take, and offsets that 32 bits cannot hold, in huge arrays that are hardly touched."""

import mmap
import subprocess
import sys

import pytest
import torch
from cases import GRAPHS, OPERATIONS, close

from graphattn import Graph, attend, native, ops
from graphattn.ops.dropout import Dropout, scale

BEYOND_31, BEYOND_32 = 2**31 + 5, 2**32 + 5


def vast(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Zeros of which only pages that are written, or read, take memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, torch.Size(shape).numel() * dtype.itemsize, flags=flags)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def test_nodes_beyond_2_to_the_31_send_their_own_values():
    senders = torch.tensor([3, BEYOND_31, BEYOND_31 - 10])
    graph = Graph(senders, torch.tensor([0, 0, 1]), BEYOND_31 + 1, 2)
    values = vast(graph.num_senders, 1, 1, dtype=torch.bfloat16)
    values[senders] = torch.tensor([2.0, 4.0, 8.0], dtype=torch.bfloat16).view(3, 1, 1)
    out, weights = attend(torch.zeros(3, 1, dtype=torch.bfloat16), values, graph, return_weights=True, backend="cpu")
    assert out.flatten().tolist() == [3.0, 8.0]
    assert weights.flatten().tolist() == [0.5, 0.5, 1.0]


def test_rows_whose_offsets_pass_2_to_the_32_are_those_of_their_nodes():
    """The same for rows of several numbers, and for sums with given weights."""
    nodes, width = BEYOND_32 // 16 + 1, 16
    rows = vast(nodes, width, dtype=torch.bfloat16)
    rows[-1], rows[-2], rows[1] = 2.0, 4.0, 8.0
    order = [torch.tensor([0, 2, 3]), torch.arange(3), torch.tensor([nodes - 1, 1, nodes - 2])]
    weights = torch.tensor([0.5, 0.25, 1.0], dtype=torch.bfloat16)
    out = torch.ops.graphattn.weighted_sum(weights, rows, order, 0.0, None)
    assert torch.equal(out, torch.tensor([[3.0], [4.0]], dtype=torch.bfloat16).expand(2, width))


@pytest.mark.parametrize("first", [BEYOND_31 - 9, BEYOND_32 - 9], ids=["over 2^31", "over 2^32"])
def test_edges_beyond_what_32_bits_count_have_logits_masks_weights_and_gradients_of_their_own(first):
    """Six edges at the end of a list of billions; the orders' pointers skip all before them."""
    ids = first + torch.tensor([8, 0, 5, 7, 1, 4])  # the edges in the order of receivers, two and four of them
    total, heads = int(ids.max()) + 1, 2
    receivers, senders = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([0, 1, 1, 0, 0, 0])
    by_sender = torch.argsort(senders, stable=True)
    counts = senders.bincount()
    logits, values = torch.randn(6, heads), torch.randn(2, heads, 3)
    upstream, weights_upstream = torch.randn(2, heads, 3), torch.randn(6, heads)

    orders = {
        "ptr": total - 6 + torch.tensor([0, 2, 6]),
        "sender_ptr": total - 6 + torch.tensor([0, int(counts[0]), 6]),
    }
    for name, numbers in {
        **{"edges": ids, "others": senders},
        **{"sender_edges": ids[by_sender], "sender_others": receivers[by_sender]},
    }.items():
        orders[name] = vast(total, dtype=torch.int64)
        orders[name][-6:] = numbers
    edge, grad_weights = vast(total, heads), vast(total, heads)
    edge[ids], grad_weights[ids] = logits, weights_upstream
    seed = 0x123456789ABCDEF
    shared = {"score": 0, "values": values, "left": None, "right": None, "att": None, "edge": edge, "heads": heads}
    shared |= {"constant": 0.0, "p": 0.4, "seed": seed, "threads": 2}
    out, lse, weights = torch.empty(2, heads, 3), torch.empty(2, heads, dtype=torch.float64), vast(total, heads)
    forward = {name: order for name, order in orders.items() if "sender" not in name}
    native.kernels.forward(**shared, **forward, out=out, lse=lse, weights=weights)
    grad_values, grad_edge = torch.empty_like(values), vast(total, heads)
    native.kernels.backward(
        **{**shared, **orders, "out": out, "lse": lse, "weights": weights},
        **{"grad_out": upstream, "grad_weights": grad_weights, "grad_values": grad_values, "grad_edge": grad_edge},
        **{"grad_left": None, "grad_right": None, "grad_att": None},
        **{"row_sums": torch.empty(2, heads), "logit_grads": None},
    )

    logits, values = logits.requires_grad_(), values.requires_grad_()
    softmax = torch.cat([logits[:2].softmax(0), logits[2:].softmax(0)])
    expected_weights = softmax * scale(Dropout(0.4, seed), ids, heads, torch.float32)
    assert 0 < (expected_weights == 0).sum() < 12
    messages = expected_weights.unsqueeze(-1) * values[senders]
    expected = torch.zeros(2, heads, 3).index_add(0, receivers, messages)
    loss = (expected * upstream).sum() + (expected_weights * weights_upstream).sum()
    expected_edge, expected_values = torch.autograd.grad(loss, (logits, values))
    close(out, expected.detach())
    close(weights[ids], expected_weights.detach())
    close(grad_edge[ids], expected_edge)
    close(grad_values, expected_values)


WIDE_GRAPH, HEADS, WIDTH = GRAPHS["random"], 8, 64


@pytest.mark.parametrize("return_weights", [False, True])
@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if not operation.with_edge_term], ids=str)
def test_nothing_of_edges_times_heads_times_width_is_kept_for_backward(operation, return_weights):
    arguments = operation.arguments(WIDE_GRAPH, HEADS, WIDTH, torch.float32)
    largest, kept = max(tensor.numel() for tensor in arguments.values()), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda it: it):
        getattr(ops, operation.name)(**arguments, graph=WIDE_GRAPH, return_weights=return_weights, backend="cpu")
    assert largest <= max(kept) <= max(largest, WIDE_GRAPH.num_receivers * HEADS * WIDTH)
    assert max(kept) < WIDE_GRAPH.num_edges * HEADS * WIDTH / 2


_PEAK = """
import pathlib, resource, sys, torch
from graphattn import Graph, ops
nodes, edges, heads, width = 500, 60_000, 8, 64
torch.manual_seed(0)
graph = Graph(torch.randint(nodes, (edges,)), torch.randint(nodes, (edges,)), nodes, nodes)
rows = [torch.randn(nodes, heads, width, requires_grad=True) for _ in range(3)]
scores = [torch.randn(nodes, heads, requires_grad=True) for _ in range(2)]
logits = torch.randn(edges, heads, requires_grad=True)
att = torch.randn(heads, width, requires_grad=True)
calls = {
    "attend": lambda **o: ops.attend(logits, rows[0], graph, **o),
    "additive": lambda **o: ops.additive(rows[0], *scores, graph, **o),
    "additive_v2": lambda **o: ops.additive_v2(*rows[:2], att, graph, **o),
    "dot_product": lambda **o: ops.dot_product(*rows, graph, **o),
}
calls["attend"](backend="cpu")[0].sum().backward()
def peak():
    status = pathlib.Path("/proc/self/status")  # Linux counts a parent's peak to getrusage's
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
for backend, names in (("cpu", calls), ("reference", ["attend"])):
    for name in names:
        out, weights = calls[name](dropout=0.1, return_weights=True, backend=backend)
        (out.square().sum() + weights.square().sum()).backward()
    print((peak() - before) / (edges * heads * width * 4))
"""


def test_no_array_of_edges_times_heads_times_width_is_ever_made(tmp_path):
    """How far memory rises, in such arrays, in a process of its own; the reference shows that the measure measures."""
    command = [sys.executable, "-W", "ignore", "-c", _PEAK]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    ours, reference = map(float, done.stdout.split())
    assert ours < 0.5
    assert reference > 1
