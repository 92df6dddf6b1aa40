"""The models of graphs by name: their shapes, their sizes, their symmetry, and the layers they stand on."""

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, close, edge_index
from sklearn.semi_supervised import LabelPropagation as SklearnLabelPropagation
from torch_geometric import nn as pyg
from torch_geometric.utils import add_self_loops, degree

from graphattn import models
from graphattn.conv import SparseFeatures
from graphattn.models import DETECTORS, GRAPH_MODELS, IMAGE_MODELS, MODELS, TEXT_MODELS
from graphattn.models.cheb import ChebConv
from graphattn.topology import from_networkx

N, WIDTH, CLASSES = 30, 12, 5
EDGES = edge_index(GRAPHS["random"].without_self_loops())
EDGES = torch.cat([EDGES, EDGES.flip(0)], 1).unique(dim=1)  # undirected, as spectral models need
TRAINED = [name for name in GRAPH_MODELS if name not in ("label-propagation", "random")]


def words() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N, WIDTH, generator=generator, dtype=torch.float64)
    return x * (torch.rand(N, WIDTH, generator=generator) < 0.4)


def known_labels() -> torch.Tensor:
    """[N, C] one-hot rows for the first nodes, zeros elsewhere."""
    known = torch.zeros(N, CLASSES, dtype=torch.float64)
    known[torch.arange(10), torch.arange(10) % CLASSES] = 1
    return known


def built(name, **options):
    torch.manual_seed(0)
    if name == "label-propagation":
        options = {"steps": 50, **options}
    return MODELS[name](WIDTH, CLASSES, **options).double()


def called(name, model, x, edges, known=None):
    if name == "label-propagation":
        return model(x, edges, known_labels() if known is None else known)
    return model(x, edges)


@pytest.mark.parametrize("name", GRAPH_MODELS)
def test_every_model_gives_a_row_of_logits_a_node(name):
    for training in (True, False):
        out = called(name, built(name).train(training), words(), EDGES)
        assert out.shape == (N, CLASSES)
        assert out.isfinite().all()


@pytest.mark.parametrize("name", [name for name in GRAPH_MODELS if name != "random"])
def test_permuting_nodes_permutes_logits(name):
    model = built(name).eval()
    nodes = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    x = words()
    expected = called(name, model, x, EDGES)[nodes]
    close(called(name, model, x[nodes], nodes.argsort()[EDGES], known_labels()[nodes]), expected)


@pytest.mark.parametrize("name", TRAINED)
def test_sparse_features_give_the_logits_of_dense_ones(name):
    model = built(name).eval()
    x = words()
    close(model(SparseFeatures.from_dense(x), EDGES), model(x, EDGES))


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_gets_a_gradient(name):
    model = built(name)
    model(words(), EDGES).square().sum().backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not unused


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "sage"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_model_has_as_many_layers_as_asked(name, num_layers):
    model = built(name, num_layers=num_layers).eval()
    assert len(model.layers) == num_layers
    assert model(words(), EDGES).shape == (N, CLASSES)


@pytest.mark.parametrize("name", TRAINED)
def test_dropout_acts_in_training_only(name):
    model = built(name, dropout=0.5)
    x = words()
    torch.manual_seed(0)
    first, second = model(x, EDGES), model(x, EDGES)
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(x, EDGES), model(x, EDGES))


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("gat", {}, 92_373),  # the paper's model: 1433*64 + 3*64 + 64*7 + 3*7
        ("gcn", {}, 1433 * 16 + 16 + 16 * 7 + 7),
        ("gcn", {"hidden": 64}, 1433 * 64 + 64 + 64 * 7 + 7),
        ("mlp", {}, 1433 * 16 + 16 + 16 * 7 + 7),
        ("cheb", {}, 3 * 1433 * 16 + 16 + 3 * 16 * 7 + 7),
        ("const-gat", {}, 1433 * 64 + 64 + 64 * 7 + 7),
        ("gatv2", {}, 2 * (1433 * 64 + 64) + 2 * 64 + 2 * (64 * 7 + 7) + 2 * 7),
        ("label-propagation", {}, 0),
    ],
)
def test_the_number_of_parameters_on_cora(name, options, count):
    assert sum(p.numel() for p in MODELS[name](1433, 7, **options).parameters()) == count


def test_gat_inspected_gives_each_layers_output_and_attention():
    model = built("gat").eval()
    x = words()
    outputs, attention = model.inspect(x, EDGES)
    close(outputs[-1], model(x, EDGES))
    assert [out.shape[1] for out in outputs] == [64, CLASSES]
    assert [weights.shape[1] for _, weights in attention] == [8, 1]
    looped, weights = attention[0]
    total = torch.zeros(N, 8, dtype=torch.float64).index_add(0, looped[1], weights)
    close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", ["gat", "gatv2", "graph-transformer"])
def test_attention_models_are_pygs_layers_with_elu_between(name):
    model = built(name, out_heads=2).eval()
    layer = {"gat": pyg.GATConv, "gatv2": pyg.GATv2Conv, "graph-transformer": pyg.TransformerConv}[name]
    judges = [layer(WIDTH, 8, 8).double(), layer(64, CLASSES, 2, concat=False).double()]
    for judge, mine in zip(judges, model.layers, strict=True):
        judge.load_state_dict(mine.state_dict())
    x = words()
    close(model(x, EDGES), judges[1](F.elu(judges[0](x, EDGES)), EDGES))


@pytest.mark.parametrize("name", ["gat", "gatv2", "const-gat"])
def test_a_mapped_skip_is_the_middle_layers_residual(name):
    sizes = {"hidden": 4, "heads": 2, "num_layers": 3}
    model = built(name, **sizes, skip=True, skip_mapped=True).eval()
    plain, residual = built(name, **sizes).eval(), model.layers[1]
    plain.layers.load_state_dict(model.layers.state_dict())
    x = words()
    first = F.elu(plain.step(0, x, EDGES))
    middle = residual(first, EDGES) + first @ model.skips[0].weight.t()
    close(model(x, EDGES), plain.layers[2](F.elu(middle), EDGES))
    with pytest.raises(ValueError, match="skip_mapped is true without skip"):
        built(name, **sizes, skip_mapped=True)


def test_gcn_is_pygs_model():
    model = built("gcn").eval()
    judge = pyg.models.GCN(WIDTH, 16, 2, CLASSES).double()
    judge.load_state_dict({key.replace("layers.", "convs."): value for key, value in model.state_dict().items()})
    close(model(words(), EDGES), judge(words(), EDGES))


def test_mlp_is_blind_to_edges():
    model = built("mlp").eval()
    expected = model.layers[1](F.relu(model.layers[0](words())))
    close(model(words(), EDGES), expected)
    close(model(words(), EDGES[:, :0]), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5])
def test_cheb_conv_is_pygs_in_output_and_gradients(terms, normalization, weighted):
    mine = ChebConv(WIDTH, CLASSES, terms, normalization=normalization).double()
    judge = pyg.ChebConv(WIDTH, CLASSES, terms, normalization=normalization).double()
    judge.load_state_dict(mine.state_dict())
    with torch.no_grad():
        for layer in (mine, judge):
            layer.bias.fill_(0.5)
    weight = torch.rand(EDGES.shape[1], dtype=torch.float64) if weighted else None
    results = []
    for layer in (mine, judge):
        x = words().requires_grad_()
        out = layer(x, EDGES, weight, lambda_max=torch.tensor(3.0, dtype=torch.float64) if weighted else None)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)


def test_cheb_conv_takes_batches_as_pygs_does():
    mine, judge = ChebConv(WIDTH, CLASSES, 3).double(), pyg.ChebConv(WIDTH, CLASSES, 3).double()
    judge.load_state_dict(mine.state_dict())
    edges, x = torch.cat([EDGES, EDGES + N], 1), torch.cat([words(), words() + 1])
    batch = torch.arange(2).repeat_interleave(N)
    largest = torch.tensor([1.5, 2.0], dtype=torch.float64)
    close(mine(x, edges, batch=batch, lambda_max=largest), judge(x, edges, batch=batch, lambda_max=largest))


def test_cheb_is_pygs_layers_with_relu_between():
    model = built("cheb").eval()
    judges = [pyg.ChebConv(WIDTH, 16, 3).double(), pyg.ChebConv(16, CLASSES, 3).double()]
    for judge, mine in zip(judges, model.layers, strict=True):
        judge.load_state_dict(mine.state_dict())
    close(model(words(), EDGES), judges[1](F.relu(judges[0](words(), EDGES)), EDGES))


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("aggregation", ["add", "mean"])
def test_monet_is_pygs_gaussian_kernels_over_mapped_degrees(aggregation, dim):
    model = built("monet", aggregation=aggregation, dim=dim).eval()
    looped, _ = add_self_loops(EDGES, num_nodes=N)
    place = degree(looped[1], N) ** -0.5
    u = torch.stack([place[looped[0]], place[looped[1]]], 1).double()
    x = words()
    for i, mine in enumerate(model.layers):
        judge = pyg.GMMConv(mine.in_channels, mine.out_channels, dim, 3, aggr=aggregation).double()
        judge.load_state_dict({**mine.state_dict(), "root.weight": torch.zeros_like(judge.root.weight)})
        x = judge(F.relu(x) if i else x, looped, model.coordinates[i](u).tanh())
    close(model(words(), EDGES), x)


PATH = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])


def test_labels_spread_along_a_path_step_by_step():
    """Nodes 0 and 4 of 0 - 1 - 2 - 3 - 4 are known; node 2 hears of both after two steps."""
    known = torch.zeros(5, 2, dtype=torch.float64)
    known[0, 0] = known[4, 1] = 1
    steps = {
        0: [[1, 0], [0, 0], [0, 0], [0, 0], [0, 1]],
        1: [[1, 0], [0.5, 0], [0, 0], [0, 0.5], [0, 1]],
        2: [[1, 0], [0.5, 0], [0.25, 0.25], [0, 0.5], [0, 1]],
        3: [[1, 0], [0.625, 0.125], [0.25, 0.25], [0.125, 0.625], [0, 1]],
        1000: [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]],
    }
    for count, expected in steps.items():
        out = MODELS["label-propagation"](3, 2, steps=count)(torch.zeros(5, 3), PATH, known)
        close(out.exp(), torch.tensor(expected, dtype=torch.float64))


def test_labels_settle_at_the_harmonic_solution():
    """Unknown rows y_u = (I - P_uu)^-1 P_uk y_k, P the row-normalised adjacency (Zhu et al. 2003, equation 5)."""
    graph = from_networkx(nx.connected_watts_strogatz_graph(N, 4, 0.3, seed=0))
    adjacency = torch.zeros(N, N, dtype=torch.float64)
    adjacency[graph.receivers, graph.senders] = 1
    walk = adjacency / adjacency.sum(1, keepdim=True)
    known = known_labels()
    k, u = slice(0, 10), slice(10, N)
    harmonic = torch.linalg.solve(torch.eye(N - 10, dtype=torch.float64) - walk[u, u], walk[u, k] @ known[k])
    out = MODELS["label-propagation"](3, CLASSES)(torch.zeros(N, 3), edge_index(graph), known).exp()
    close(out[u], harmonic)
    close(out[k], known[k])


def test_labels_agree_with_scikit_learn_on_the_same_graph():
    graph = from_networkx(nx.connected_watts_strogatz_graph(N, 4, 0.3, seed=0)).with_self_loops()
    adjacency = torch.zeros(N, N, dtype=torch.float64)
    adjacency[graph.receivers, graph.senders] = 1
    target = [i % CLASSES if i < 10 else -1 for i in range(N)]
    judge = SklearnLabelPropagation(kernel=lambda a, b: adjacency.numpy(), max_iter=2000, tol=1e-12)
    judge.fit(torch.zeros(N, 1).numpy(), target)
    out = MODELS["label-propagation"](3, CLASSES)(torch.zeros(N, 3), edge_index(graph), known_labels()).exp()
    torch.testing.assert_close(out, torch.from_numpy(judge.label_distributions_), rtol=1e-6, atol=1e-6)


def test_nodes_that_no_label_reaches_are_undecided():
    known = torch.zeros(3, 2)
    known[0, 0] = 1
    out = MODELS["label-propagation"](3, 2)(torch.zeros(3, 3), torch.tensor([[0, 1], [1, 0]]), known)
    assert out.isfinite().all()
    assert out[2, 0] == out[2, 1]


def test_every_model_is_listed_by_name():
    kinds = (DETECTORS, GRAPH_MODELS, IMAGE_MODELS, TEXT_MODELS)
    for listed in (*kinds, MODELS):
        assert sorted(listed) == list(listed)
    assert len(MODELS) == sum(map(len, kinds)), "no name is used twice"
    assert set(models.__all__) == {
        "DETECTORS",
        "GRAPH_MODELS",
        "IMAGE_MODELS",
        "MODELS",
        "TEXT_MODELS",
        "GraphNetwork",
        "MoleculeEncoder",
    }
