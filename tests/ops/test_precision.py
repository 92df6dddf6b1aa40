"""Half precision loses at most twice what plain PyTorch loses, or the tolerance of its dtype."""

import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, OPERATIONS, TOLERANCE, complete

from graphattn import ops


def logits_and_messages(operation, graph, arguments):
    """The formulas of the four operations, edge by edge, in the dtype of their arguments."""
    a, (s, r) = arguments, (graph.senders, graph.receivers)
    edge = a.get("edge", 0)
    if operation.name == "attend":
        return a["logits"], a["values"][s]
    if operation.name == "additive":
        return F.leaky_relu(a["score_s"][s] + a["score_r"][r] + a.get("edge_logits", 0), 0.2), a["values"][s]
    if operation.name == "additive_v2":
        return (F.leaky_relu(a["left"][s] + a["right"][r] + edge, 0.2) * a["att"]).sum(-1), a["left"][s]
    return (a["q"][r] * (a["k"][s] + edge)).sum(-1) * a["q"].shape[-1] ** -0.5, a["v"][s] + edge


def plain(operation, graph, arguments):
    """Softmax in float32 (or wider), cast back, sum: what a careful user writes in PyTorch."""
    logits, messages = logits_and_messages(operation, graph, arguments)
    index = graph.receivers.unsqueeze(1).expand_as(logits)
    shape = (graph.num_receivers, logits.shape[1])
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    z = z - z.new_zeros(shape).scatter_reduce(0, index, z, "amax", include_self=False)[graph.receivers]
    total = z.new_zeros(shape).index_add(0, graph.receivers, z.exp())
    weights = (z.exp() / total[graph.receivers]).to(messages.dtype).unsqueeze(-1)
    return messages.new_zeros(graph.num_receivers, *messages.shape[1:]).index_add(
        0, graph.receivers, weights * messages
    )


def results(function, operation, graph, dtype, low):
    """Output and gradients in float64, computed in `dtype` from arguments first rounded to `low`."""
    arguments = {
        name: tensor.detach().to(low).to(dtype).requires_grad_()
        for name, tensor in operation.arguments(graph, heads=4, width=16).items()
    }
    out = function(operation, graph, arguments)
    out.square().sum().backward()
    return {"out": out.double(), **{name: tensor.grad.double() for name, tensor in arguments.items()}}


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_low_precision_loses_at_most_twice_what_plain_pytorch_loses(backend, operation, low):
    graph = complete(20, 15) if backend == "dense" else GRAPHS["hub"]

    def ours(operation, graph, arguments):
        return getattr(ops, operation.name)(**arguments, graph=graph, backend=backend)

    exact = results(plain, operation, graph, torch.float64, low)
    naive = results(plain, operation, graph, low, low)
    actual = results(ours, operation, graph, low, low)
    scale = max(1.0, *(tensor.abs().max().item() for tensor in exact.values()))  # of terms that may cancel
    for what in exact:
        allowed = TOLERANCE[low]["atol"] * scale
        allowed = max(2 * (naive[what] - exact[what]).abs().max().item(), allowed)
        if backend == "gpu" and not torch.cuda.is_available():
            allowed *= 2  # Triton's interpreter cuts bfloat16 off, the hardware rounds it
        assert (actual[what] - exact[what]).abs().max().item() <= allowed, what


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_output_weights_and_gradients_keep_the_dtype_of_the_arguments(backend, dtype):
    graph = complete(4, 3)
    for operation in OPERATIONS:
        arguments = operation.arguments(graph, dtype=dtype)
        out, weights = getattr(ops, operation.name)(**arguments, graph=graph, return_weights=True, backend=backend)
        assert out.dtype == weights.dtype == dtype
        (out.sum() + weights.sum()).backward()
        assert {tensor.grad.dtype for tensor in arguments.values()} == {dtype}


@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_half_precision_sums_in_float32(backend):
    """In bfloat16 a running sum of ones stops at 256; the mean of 1000 ones must still be one."""
    graph = complete(1000, 1)
    logits = torch.zeros(1000, 1, dtype=torch.bfloat16)
    out = ops.attend(logits, torch.ones(1000, 1, 2, dtype=torch.bfloat16), graph, backend=backend)
    assert torch.equal(out, torch.ones(1, 1, 2, dtype=torch.bfloat16))
