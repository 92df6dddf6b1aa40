"""A model of nodes made one of graphs: what it is made of, and what it must not see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, close, edge_index
from torch_geometric.data import Batch, Data
from torch_geometric.nn import aggr, global_mean_pool

from graphattn.models import MODELS, GraphNetwork

NODE_MODELS = ("gat", "gatv2", "gcn", "graph-transformer", "mlp")
EDGES = edge_index(GRAPHS["random"].without_self_loops())
NODES = GRAPHS["random"].num_senders


def graphs() -> Batch:
    generator = torch.Generator().manual_seed(0)
    own = [(NODES, EDGES), (5, EDGES[:, :0]), (3, torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))]
    return Batch.from_data_list(
        [Data(x=torch.randn(n, 6, generator=generator, dtype=torch.float64), edge_index=edges) for n, edges in own]
    )


def built(name: str, **options: object) -> GraphNetwork:
    torch.manual_seed(0)
    return GraphNetwork(MODELS[name](6, 10), 10, 4, **options).double().eval()  # type: ignore[arg-type]


def called(model: GraphNetwork, batch: Batch) -> torch.Tensor:
    return model(batch.x, batch.edge_index, batch.batch, batch.num_graphs)


@pytest.mark.parametrize("readout", ["attention", "mean"])
@pytest.mark.parametrize("name", NODE_MODELS)
def test_it_is_the_model_pygs_read_out_and_a_linear_map(name: str, readout: str) -> None:
    model, batch = built(name, readout=readout), graphs()
    hidden = F.elu(model.nodes(batch.x, batch.edge_index))
    if readout == "attention":
        judge = aggr.AttentionalAggregation(torch.nn.Linear(10, 1)).double()
        judge.load_state_dict(model.readout.state_dict())  # type: ignore[union-attr]
        pooled = judge(hidden, batch.batch)
    else:
        pooled = global_mean_pool(hidden, batch.batch)
    close(called(model, batch), F.linear(pooled, model.classifier.weight, model.classifier.bias))


@pytest.mark.parametrize("name", NODE_MODELS)
def test_a_graph_sees_only_itself_and_not_the_order_of_its_nodes(name: str) -> None:
    model, batch = built(name), graphs()
    alone = [called(model, Batch.from_data_list([graph])) for graph in batch.to_data_list()]
    close(called(model, batch), torch.cat(alone))
    first = batch[0]
    nodes = torch.randperm(NODES, generator=torch.Generator().manual_seed(1))
    moved = Data(x=first.x[nodes], edge_index=nodes.argsort()[first.edge_index])
    close(called(model, Batch.from_data_list([moved])), alone[0])


@pytest.mark.parametrize("readout", ["attention", "mean"])
def test_every_parameter_gets_a_gradient(readout: str) -> None:
    model = built("gat", readout=readout, dropout=0.5).train()
    called(model, graphs()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_dropout_acts_in_training_only() -> None:
    model, batch = built("mlp", dropout=0.5), graphs()
    model.nodes.eval()
    close(called(model, batch), called(model, batch))
    model.training = True
    assert not torch.equal(called(model, batch), called(model, batch))
