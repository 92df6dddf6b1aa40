"""Sparse features against the dense matrix they stand for."""

import re

import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, TOLERANCE, close, edge_index
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric import nn as pyg

from graphattn import Graph, conv
from graphattn.conv import SparseFeatures, sparse_linear

N, WIDTH = 30, 12


def bag_of_words(n=N, width=WIDTH, dtype=torch.float64) -> torch.Tensor:
    """A matrix with few non-zeros, of which some rows and columns have none."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    x[torch.rand(n, width, generator=generator) < 0.7] = 0
    x[3] = 0
    x[:, 5] = 0
    return x.to(dtype)


MATRICES = {
    "bag of words": bag_of_words(),
    "no non-zeros": torch.zeros(4, 3, dtype=torch.float64),
    "no rows": torch.zeros(0, 3, dtype=torch.float64),
    "no columns": torch.zeros(4, 0, dtype=torch.float64),
    "full": torch.arange(1.0, 7, dtype=torch.float64).view(2, 3),
}


def parameters(width, out=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return weight, torch.randn(out, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", MATRICES)
def test_the_map_and_its_gradients_are_those_of_the_dense_matrix(name, with_bias):
    x = MATRICES[name]
    weight, bias = parameters(x.shape[1])
    given = (weight, bias) if with_bias else (weight,)
    out, expected = sparse_linear(SparseFeatures.from_dense(x), *given), F.linear(x, *given)
    close(out, expected)
    for ours, theirs in zip(
        torch.autograd.grad(out.square().sum(), given), torch.autograd.grad(expected.square().sum(), given), strict=True
    ):
        close(ours, theirs)


def test_gradients_agree_with_finite_differences_twice():
    x = SparseFeatures.from_dense(MATRICES["bag of words"])
    function = lambda weight, bias: sparse_linear(x, weight, bias)  # noqa: E731
    assert gradcheck(function, parameters(WIDTH))
    assert gradgradcheck(function, parameters(WIDTH), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_computes_in_the_dtype_of_the_weight(dtype):
    weight, bias = parameters(WIDTH, dtype=dtype)
    for stored in (torch.float32, torch.float64):
        out = sparse_linear(SparseFeatures.from_dense(bag_of_words(dtype=stored)), weight, bias)
        assert out.dtype == dtype
        torch.testing.assert_close(out, F.linear(bag_of_words(dtype=dtype), weight, bias), **TOLERANCE[torch.float32])


@pytest.mark.parametrize("name", MATRICES)
def test_dense_and_sparse_are_each_others_inverse(name):
    x = MATRICES[name]
    sparse = SparseFeatures.from_dense(x)
    assert torch.equal(sparse.to_dense(), x)
    assert sparse.shape == x.shape == sparse.size()
    assert (sparse.size(0), sparse.size(-1), sparse.dim()) == (x.shape[0], x.shape[1], 2)
    assert sparse.dtype == x.dtype
    assert sparse.values.numel() == x.count_nonzero()


def test_csr_arrays_are_read_row_by_row():
    sparse = SparseFeatures.from_csr(
        torch.tensor([0, 2, 2, 3]), torch.tensor([3, 0, 1]), torch.tensor([1.0, 2.0, 4.0]), 4
    )
    expected = torch.tensor([[2.0, 0, 0, 1], [0, 0, 0, 0], [0, 4, 0, 0]])
    assert torch.equal(sparse.to_dense(), expected)
    weight = torch.arange(8.0).view(2, 4)
    assert torch.equal(sparse_linear(sparse, weight), expected @ weight.t())


def test_entries_at_the_same_place_add_up():
    twice = SparseFeatures(Graph(torch.tensor([1, 1]), torch.tensor([0, 0]), 2, 1), torch.tensor([2.0, 3.0]))
    assert twice.to_dense().tolist() == [[0, 5]]
    assert sparse_linear(twice, torch.eye(2)).tolist() == [[0, 5]]


def test_a_move_keeps_the_entries(device):
    sparse = SparseFeatures.from_dense(MATRICES["bag of words"]).to(device)
    assert sparse.device.type == sparse.graph.device.type == sparse.values.device.type == device.type
    weight, bias = (p.detach().to(device) for p in parameters(WIDTH))
    close(sparse_linear(sparse, weight, bias), F.linear(MATRICES["bag of words"].to(device), weight, bias))


def test_a_move_to_another_device_moves_graph_and_values():
    moved = SparseFeatures.from_dense(MATRICES["no non-zeros"]).to("meta")
    assert moved.device.type == moved.graph.device.type == "meta"


def test_dropout_has_the_distribution_of_dropout_on_the_dense_matrix():
    x = torch.ones(200, 100)
    torch.manual_seed(0)
    dropped = F.dropout(SparseFeatures.from_dense(x), 0.3).values
    share = (dropped == 0).double().mean().item()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / x.numel()) ** 0.5
    close(dropped[dropped != 0], torch.full(((dropped != 0).sum(),), 1 / 0.7))


def test_dropout_keeps_zeros_shares_the_graph_and_rests_in_eval():
    sparse = SparseFeatures.from_dense(MATRICES["bag of words"])
    dropped = F.dropout(sparse, p=0.5, training=True)
    assert dropped.graph is sparse.graph
    assert not dropped.to_dense()[MATRICES["bag of words"] == 0].any()
    assert F.dropout(sparse, 0.5, training=False) is sparse
    assert F.dropout(sparse, 0.0) is sparse
    assert not F.dropout(sparse, 1.0).values.any()


def test_matmul_and_torchs_linear_take_them():
    x = MATRICES["bag of words"]
    weight, bias = parameters(WIDTH)
    sparse = SparseFeatures.from_dense(x)
    close(torch.matmul(sparse, weight.t()), x @ weight.t())
    close(F.linear(sparse, weight, bias=bias), F.linear(x, weight, bias))
    layer = torch.nn.Linear(WIDTH, 3).double()
    close(layer(sparse), layer(x))


EDGES = edge_index(GRAPHS["random"])


@pytest.mark.parametrize(
    "build",
    [
        lambda: pyg.GCNConv(WIDTH, 4),
        lambda: conv.GATConv(WIDTH, 4, heads=2, residual=True),
        lambda: conv.GATConv((WIDTH, WIDTH), 4),
        lambda: conv.GATv2Conv(WIDTH, 4, heads=2, share_weights=True, residual=True),
        lambda: conv.GATv2Conv(WIDTH, 4, heads=2),
        lambda: conv.TransformerConv(WIDTH, 4, heads=2, beta=True),
        lambda: conv.ConstantConv(WIDTH, 4, heads=2, residual=True),
    ],
    ids=["PyG's GCN", "GAT", "GAT, a width each", "GATv2, shared", "GATv2", "Transformer", "Constant"],
)
def test_graph_layers_take_them_with_equal_output_and_gradients(build):
    torch.manual_seed(0)
    layer = build().double()
    x = MATRICES["bag of words"]
    results = []
    for given in (x, SparseFeatures.from_dense(x)):
        layer.zero_grad()
        out = layer(given, EDGES)
        out.square().sum().backward()
        results.append([out, *(parameter.grad.clone() for parameter in layer.parameters())])
    for dense, sparse in zip(*results, strict=True):
        close(sparse, dense)


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_widths_left_open_are_learned_from_them(name):
    layer = getattr(conv, name)(-1, 4)
    assert layer(SparseFeatures.from_dense(bag_of_words(dtype=torch.float32)), EDGES).shape == (N, 4)


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_pairs_and_pygs_path_take_them(name):
    layer = getattr(conv, name)((WIDTH, WIDTH), 4).double()
    x = MATRICES["bag of words"]
    sparse = SparseFeatures.from_dense(x)
    expected = layer((x, x), EDGES)
    close(layer((sparse, sparse), EDGES), expected)
    layer.register_message_forward_hook(lambda *_: None)
    close(layer((sparse, sparse), EDGES), expected)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.relu(x), "relu"),
        (lambda x: torch.cat([x, x]), "cat"),
        (lambda x: F.softmax(x, 1), "softmax"),
        (lambda x: torch.matmul(torch.ones(2, N), x), "matmul"),
    ],
)
def test_a_function_that_does_not_take_them_says_what_to_do(function, name):
    message = f"{name} does not take SparseFeatures: use linear, matmul or dropout, or x.to_dense()"
    with pytest.raises(TypeError, match=re.escape(message)):
        function(SparseFeatures.from_dense(MATRICES["bag of words"]))


def test_wrong_shapes_are_refused_with_the_shape_found_and_needed():
    sparse = SparseFeatures.from_dense(MATRICES["full"])
    for weight in (torch.ones(2, 4), torch.ones(3)):
        message = f"weight has shape {list(weight.shape)}: needed [D, 3], one column a feature"
        with pytest.raises(ValueError, match=re.escape(message)):
            sparse_linear(sparse, weight)
    with pytest.raises(ValueError, match=re.escape("values has shape [5]: needed one entry an edge, [6]")):
        SparseFeatures(sparse.graph, torch.ones(5))


def test_both_orders_are_sorted_once_for_all_steps():
    sparse = SparseFeatures.from_dense(MATRICES["bag of words"])
    weight, _ = parameters(WIDTH)
    for _ in range(2):
        sparse_linear(F.dropout(sparse, 0.5), weight).sum().backward()
    assert {"_by_receiver", "_by_sender"} <= vars(sparse.graph).keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_and_autocast_work(dtype):
    x = SparseFeatures.from_dense((torch.rand(7, 5) < 0.4) * torch.randn(7, 5))
    weight = torch.randn(3, 5, requires_grad=True)
    expected = F.linear(x.to_dense(), weight)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(sparse_linear(x, weight.to(dtype)).float(), expected, **tolerance)
    with torch.autocast("cpu", dtype=dtype):
        out = sparse_linear(x, weight)
        torch.testing.assert_close(out.float(), expected, **tolerance)
        out.sum().backward()
    torch.testing.assert_close(weight.grad, x.to_dense().sum(0).expand(3, 5), rtol=1e-5, atol=1e-5)


def test_values_that_need_a_gradient_are_refused():
    x = SparseFeatures(Graph(torch.tensor([0]), torch.tensor([0]), 2, 1), torch.ones(1, requires_grad=True))
    with pytest.raises(ValueError, match=r"use x\.to_dense"):
        sparse_linear(x, torch.randn(3, 2))
