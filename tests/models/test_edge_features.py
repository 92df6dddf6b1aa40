"""Features of edges through the attention models: whole, hop by hop, layer by layer; and what models for OGB have."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, close, edge_index
from torch import nn
from torch_geometric import nn as pyg
from torch_geometric.data import Batch, Data

from graphattn.data import NeighborLoader
from graphattn.models import MODELS, GraphNetwork, MoleculeEncoder
from graphattn.training import layerwise
from graphattn.training.sampled import seeds_output

LAYERS = {"gat": pyg.GATConv, "gatv2": pyg.GATv2Conv, "graph-transformer": pyg.TransformerConv}
EDGES = edge_index(GRAPHS["random"].without_self_loops())
N = GRAPHS["random"].num_senders
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ATTR = torch.randn(EDGES.shape[1], 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def built(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](6, 4, 3, hidden=5, heads=2, **options).double().eval()


@pytest.mark.parametrize("name", LAYERS)
def test_models_are_pygs_layers_with_elu_between(name: str) -> None:
    model = built(name)
    judges = [LAYERS[name](6, 5, 2, edge_dim=3).double(), LAYERS[name](10, 4, 1, concat=False, edge_dim=3).double()]
    for judge, mine in zip(judges, model.layers, strict=True):  # type: ignore[arg-type]
        judge.load_state_dict(mine.state_dict())
    expected = judges[1](F.elu(judges[0](X, EDGES, ATTR)), EDGES, ATTR)
    close(model(X, EDGES, ATTR), expected)
    assert not torch.allclose(model(X, EDGES, edge_attr=-ATTR), expected), "they are looked at"
    outputs, _ = model.inspect(X, EDGES, ATTR)  # type: ignore[operator]
    close(outputs[-1], expected)


@pytest.mark.parametrize("name", ["gat", "graph-transformer", "mlp", "sage"])
def test_what_would_be_ignored_is_refused(name: str) -> None:
    model = MODELS[name](6, 4)
    with pytest.raises(ValueError, match=rf"edge_attr was passed to a {type(model).__name__} without edge_dim, .*=3"):
        model(X.float(), EDGES, ATTR.float())
    with pytest.raises(ValueError, match="with edge_dim=1 if"):
        model(X.float(), EDGES, ATTR[:, 0].float())


@pytest.mark.parametrize("name", ["gat", "gatv2"])
def test_residuals_norms_and_the_dropout_of_inputs(name: str) -> None:
    model = built(name, num_layers=3, residual=True, batch_norm=True, input_dropout=0.0, dropout=0.7).train()
    judges = [
        LAYERS[name](width, out, heads, concat, edge_dim=3, residual=True).double()
        for width, out, heads, concat in ((6, 5, 2, True), (10, 5, 2, True), (10, 4, 1, False))
    ]
    for judge, mine in zip(judges, model.layers, strict=True):  # type: ignore[arg-type]
        judge.load_state_dict(mine.state_dict())
        mine.dropout = 0.0
    model.eval()
    for norm in model.norms:  # type: ignore[union-attr]
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    hidden = X
    for i, judge in enumerate(judges):
        hidden = judge(hidden if i == 0 else F.elu(model.norms[i - 1](hidden)), EDGES, ATTR)  # type: ignore[index]
    close(model(X, EDGES, edge_attr=ATTR), hidden)
    assert model.dropouts == [0.0, 0.7, 0.7]


@pytest.mark.parametrize("name", [*LAYERS, "sage", "mlp"])
def test_layer_by_layer_is_the_whole(name: str) -> None:
    options = {"batch_norm": True} if name in LAYERS else {}
    torch.manual_seed(0)
    model = (built(name, **options) if name in LAYERS else MODELS[name](6, 4)).double().eval()
    given = {"edge_attr": ATTR} if name in LAYERS else {}
    close(layerwise(model, X, EDGES, batch_size=7, edge_attr=ATTR), model(X, EDGES, **given))


@pytest.mark.parametrize("name", LAYERS)
def test_seeds_of_a_sampled_batch_are_those_of_the_whole_where_all_is_sampled(name: str) -> None:
    model = built(name, num_layers=2)
    data = Data(x=X, edge_index=EDGES, edge_attr=ATTR)
    whole = model(X, EDGES, edge_attr=ATTR)
    for batch in NeighborLoader(data, [-1, -1], batch_size=5):
        close(seeds_output(model, batch), whole[batch.input_id])


MOLECULES = [
    Data(
        x=torch.randint(0, 2, (nodes, 9), generator=torch.Generator().manual_seed(nodes)),
        edge_index=torch.tensor([[0, 1], [1, 0]]),
        edge_attr=torch.randint(0, 2, (1, 3), generator=torch.Generator().manual_seed(nodes)).expand(2, 3),
    )
    for nodes in (2, 4)
]


def test_without_ogbs_package_there_is_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ogb.graphproppred.mol_encoder", None)
    with pytest.raises(ImportError, match=r"pip install 'graphattn\[ogb\]'"):
        MoleculeEncoder(8)


@pytest.mark.parametrize("name", ["gat", "gcn"])
def test_molecules_are_encoded_as_ogb_does(name: str) -> None:
    encoders = pytest.importorskip("ogb.graphproppred.mol_encoder")
    torch.manual_seed(0)
    bonds = name == "gat"
    nodes = MODELS[name](8, 8, *([8] if bonds else []))
    model = GraphNetwork(nodes, 8, 2, encoder=MoleculeEncoder(8, bonds)).eval()
    atoms = encoders.AtomEncoder(8)
    atoms.load_state_dict(model.encoder.atoms.state_dict())  # type: ignore[union-attr]
    batch = Batch.from_data_list(MOLECULES)
    given = {}
    if bonds:
        bond = encoders.BondEncoder(8)
        bond.load_state_dict(model.encoder.bonds.state_dict())  # type: ignore[union-attr]
        given["edge_attr"] = bond(batch.edge_attr)
    hidden = F.elu(nodes(atoms(batch.x), batch.edge_index, **given))
    expected = model.classifier(model.readout(hidden, batch.batch, dim_size=2))  # type: ignore[misc]
    found = model(batch.x.float(), batch.edge_index, batch.batch, 2, batch.edge_attr.float())
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
