"""Residual networks, block by block: the paper's formulas written out over PyG's layers, and what is refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, close, edge_index
from torch import Tensor
from torch_geometric import nn as pyg
from torch_geometric.utils import add_self_loops

from graphattn.models import MODELS
from graphattn.models.residual import Residual, normalised_sum

N, WIDTH, HIDDEN, CLASSES = 30, 12, 8, 5
EDGES = edge_index(GRAPHS["random"].without_self_loops())
BLOCKS = [
    *(("mlp", False), ("gcn", False), ("gat", False), ("gatv2", False), ("graph-transformer", False)),
    *(("gcn", True), ("gat", True), ("gatv2", True), ("graph-transformer", True)),
]


def features() -> Tensor:
    return torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def built(block: str, separate: bool = False, **options: Any) -> Residual:
    torch.manual_seed(0)
    options = {"hidden": HIDDEN, "num_layers": 2, **({} if block in ("mlp", "gcn") else {"heads": 2}), **options}
    model = Residual(WIDTH, CLASSES, block=block, separate=separate, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # that each is added where it should be shows only if it is not zero
                parameter.uniform_(-1, 1)
    return model


def heard(block: str, layer: Any, x: Tensor, edges: Tensor) -> Tensor:
    """By PyG's layers, which take the parameters of ours."""
    if block == "mlp":
        return x
    judge: Any
    if block == "gcn":
        judge = pyg.GCNConv(HIDDEN, HIDDEN, add_self_loops=False, bias=False).double()
        judge.lin.weight.data = torch.eye(HIDDEN, dtype=torch.float64)
    elif block == "graph-transformer":
        judge = pyg.TransformerConv(HIDDEN, HIDDEN // 2, 2, root_weight=False).double()
        judge.load_state_dict(layer.conv.state_dict(), strict=False)
    else:
        kind = {"gat": pyg.GATConv, "gatv2": pyg.GATv2Conv}[block]
        judge = kind(HIDDEN, HIDDEN // 2, 2, add_self_loops=False).double()
        judge.load_state_dict(layer.conv.state_dict())
    return judge(x, edges)


@pytest.mark.parametrize(("block", "separate"), BLOCKS)
def test_it_is_the_papers_formula(block: str, separate: bool) -> None:
    model = built(block, separate).eval()
    x = F.gelu(model.enter(features()))
    edges = EDGES if separate else add_self_loops(EDGES, num_nodes=N)[0]
    for layer in model.layers:
        normed = F.layer_norm(x, [HIDDEN], layer.norm.weight, layer.norm.bias)
        own = heard(block, layer, normed, edges)
        own = torch.cat([normed, own], 1) if separate else own
        if block == "graph-transformer":
            x = x + layer.out(own)
            own = F.layer_norm(x, [HIDDEN], layer.second_norm.weight, layer.second_norm.bias)
        x = x + layer.narrow(F.gelu(layer.widen(own)))
    close(model(features(), EDGES), model.leave(F.layer_norm(x, [HIDDEN], model.norm.weight, model.norm.bias)))


@pytest.mark.parametrize(("block", "separate"), BLOCKS)
def test_every_parameter_gets_a_gradient(block: str, separate: bool) -> None:
    model = built(block, separate)
    model(features(), EDGES).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("block", "separate"), BLOCKS)
def test_a_permutation_of_the_nodes_permutes_the_logits(block: str, separate: bool) -> None:
    model, x = built(block, separate).eval(), features()
    nodes = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    close(model(x[nodes], nodes.argsort()[EDGES]), model(x, EDGES)[nodes])


@pytest.mark.parametrize(("block", "separate"), BLOCKS)
def test_a_node_without_edges_has_logits(block: str, separate: bool) -> None:
    assert built(block, separate)(features(), EDGES[:, :0]).isfinite().all()


def test_normalised_sum_is_gcns_without_loops() -> None:
    """Also where a node hears nobody, or one sender twice."""
    edges = torch.tensor([[0, 1, 1, 2, 0], [1, 0, 2, 1, 1]])
    judge = pyg.GCNConv(3, 3, add_self_loops=False, bias=False).double()
    judge.lin.weight.data = torch.eye(3, dtype=torch.float64)
    x = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    close(normalised_sum(x, edges), judge(x, edges))


def test_the_papers_number_of_parameters() -> None:
    """GAT on minesweeper, 5 layers of 512: as the authors' code has them, but for a bias a head and layer."""
    model = MODELS["residual"](7, 2)
    enter, leave = 7 * 512 + 512, 2 * 512 + 512 * 2 + 2
    layer = 2 * 512 + (512 * 512 + 512) + 2 * 512 + 2 * (512 * 512 + 512)
    assert sum(p.numel() for p in model.parameters()) == enter + 5 * layer + leave


def test_dropout_of_the_layers_differs_from_that_of_the_entry() -> None:
    """Everything dropped, only biases are left; nothing of the neighbours, so all nodes are alike."""
    model = built("gat", dropout=1.0)
    out = model(features(), EDGES)
    close(out, out[:1].expand_as(out))
    assert not torch.allclose(model.eval()(features(), EDGES)[0], out[0])


def test_by_hop_unless_the_senders_degrees_count() -> None:
    assert [block for block, _ in BLOCKS[:5] if not built(block).by_hop] == ["gcn"]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden is 8 for 3 heads: needed a multiple"):
        built("gat", heads=3)
    with pytest.raises(ValueError, match=r"separate is true for block mlp, which hears no neighbours: leave it out"):
        built("mlp", separate=True)
    with pytest.raises(ValueError, match=r"heads is 3 for block gcn, which has none: leave it out"):
        built("gcn", heads=3)
