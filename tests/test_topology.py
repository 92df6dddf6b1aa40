"""Makers of Graphs against hand-written edges, PyG, scikit-learn and networkx."""

import re
from collections import Counter

import networkx as nx
import pytest
import torch
from cases import BIPARTITE, GRAPHS, SQUARE
from sklearn.neighbors import NearestNeighbors
from torch_geometric import EdgeIndex

from graphattn import Graph, topology
from graphattn.topology import band, clique, columns, from_edge_index, from_networkx, knn, rows, to_networkx

# torch says once a process that its compressed layouts are in beta
pytestmark = pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")

PAIRS = torch.tensor([[0, 3, 1, 3], [1, 0, 2, 2]])  # three receivers, four senders


def pairs(graph: Graph) -> list[tuple[int, int]]:
    return list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))


class SparseTensorLike:
    """As much of torch_sparse.SparseTensor as a maker may rely on: rows receive."""

    def __init__(self, rows, columns, sizes):
        self._rows, self._columns, self._sizes = rows, columns, sizes

    def coo(self):
        return self._rows, self._columns, None

    def sparse_sizes(self):
        return self._sizes


def layouts() -> dict[str, object]:
    """The same bipartite edges as an adjacency in each layout: its rows receive, its columns send."""
    senders, receivers = PAIRS
    coo = torch.sparse_coo_tensor(torch.stack([receivers, senders]), torch.ones(4), (3, 4), check_invariants=True)
    return {
        "coo": coo.coalesce(),
        "coo, not coalesced": coo,
        "csr": coo.to_sparse_csr(),
        "csc": coo.to_sparse_csc(),
        "SparseTensor": SparseTensorLike(receivers, senders, (3, 4)),
        "EdgeIndex": EdgeIndex(PAIRS, sparse_size=(4, 3)),
    }


def test_row_0_of_an_edge_index_sends_and_row_1_receives():
    g = from_edge_index(PAIRS)
    assert pairs(g) == [(0, 1), (3, 0), (1, 2), (3, 2)]


@pytest.mark.parametrize("layout", ["coo", "coo, not coalesced", "csr", "csc", "SparseTensor", "EdgeIndex"])
def test_every_layout_gives_the_same_edges_and_knows_its_sizes(layout):
    g = from_edge_index(layouts()[layout])
    assert Counter(pairs(g)) == Counter(pairs(from_edge_index(PAIRS)))
    assert (g.num_senders, g.num_receivers) == (4, 3)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("coo", [(3, 0), (0, 1), (1, 2), (3, 2)]),
        ("csr", [(3, 0), (0, 1), (1, 2), (3, 2)]),
        ("csc", [(0, 1), (1, 2), (3, 0), (3, 2)]),
        ("SparseTensor", [(0, 1), (3, 0), (1, 2), (3, 2)]),
        ("EdgeIndex", [(0, 1), (3, 0), (1, 2), (3, 2)]),
    ],
)
def test_edges_keep_the_order_of_the_layouts_own_indices(layout, expected):
    assert pairs(from_edge_index(layouts()[layout])) == expected


def test_a_doubled_entry_of_an_uncoalesced_matrix_is_two_edges():
    matrix = torch.sparse_coo_tensor(torch.tensor([[1, 1], [0, 0]]), torch.ones(2), (2, 2), check_invariants=True)
    assert pairs(from_edge_index(matrix)) == [(0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("num_nodes", "expected"), [(None, (4, 4)), (6, (6, 6)), ((5, 3), (5, 3))], ids=["inferred", "square", "bipartite"]
)
def test_the_number_of_nodes_is_the_one_given_or_the_largest_index_plus_one(num_nodes, expected):
    g = from_edge_index(PAIRS, num_nodes)
    assert (g.num_senders, g.num_receivers) == expected


def test_given_numbers_of_nodes_override_a_sparse_matrix():
    g = from_edge_index(layouts()["csr"], 7)
    assert (g.num_senders, g.num_receivers) == (7, 7)


def test_an_edge_index_without_edges_has_no_nodes_unless_told():
    empty = torch.zeros(2, 0, dtype=torch.long)
    assert from_edge_index(empty).num_senders == 0
    assert from_edge_index(empty, 3).num_receivers == 3


def test_an_edge_index_of_unknown_size_is_measured():
    assert from_edge_index(EdgeIndex(PAIRS)).num_senders == 4


_ERRORS = {
    "pairs in rows": (ValueError, (torch.zeros(5, 2, dtype=torch.long),), ["shape [5, 2]", "[2, E]", "transpose"]),
    "one dimension": (ValueError, (torch.zeros(2, dtype=torch.long),), ["shape [2]", "[2, E]"]),
    "a list": (TypeError, ([[0], [1]],), ["is a list", "[2, E]"]),
    "floats": (TypeError, (torch.zeros(2, 3),), ["torch.float32", ".long()"]),
    "too few nodes": (IndexError, (PAIRS, 3), ["senders holds node 3", "3 nodes"]),
    "negative": (IndexError, (PAIRS - 1, 4), ["holds node -1"]),
}


@pytest.mark.parametrize("name", _ERRORS)
def test_what_is_no_edge_index_is_refused_with_the_value_found(name):
    error, arguments, parts = _ERRORS[name]
    with pytest.raises(error, match=".*".join(map(re.escape, parts))):
        from_edge_index(*arguments)


def test_a_sparse_layout_in_blocks_is_refused_with_those_that_are_taken():
    with pytest.raises(ValueError, match=r"sparse_bsr.*strided, sparse_coo, sparse_csr or sparse_csc"):
        from_edge_index(torch.eye(4).to_sparse_bsr(2))


@pytest.mark.parametrize(
    ("n", "k", "offset"),
    [(2, 1, 0), (50, 1, 0), (50, 7, 0), (50, 49, 0), (50, 7, 1000)],
    ids=["two points", "one each", "seven each", "all", "far from the origin"],
)
def test_knn_agrees_with_scikit_learn(n, k, offset):
    points = torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) + offset
    expected = NearestNeighbors(n_neighbors=k).fit(points.double().numpy()).kneighbors(return_distance=False)
    g = knn(points, k)
    assert torch.equal(g.senders.view(n, k), torch.from_numpy(expected))
    assert torch.equal(g.receivers.view(n, k), torch.arange(n)[:, None].expand(n, k))


def test_knn_in_blocks_of_rows_is_knn_in_one(monkeypatch):
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    whole = knn(points, 5)
    cdist, heights = torch.cdist, []
    monkeypatch.setattr(torch, "cdist", lambda a, b, **options: heights.append(len(a)) or cdist(a, b, **options))
    for block, expected in ((30 * 8, [8, 8, 8, 6]), (1, [1] * 30)):
        monkeypatch.setattr(topology, "_BLOCK", block)
        heights.clear()
        assert torch.equal(knn(points, 5).senders, whole.senders)
        assert heights == expected


def test_knn_takes_the_first_of_equally_near_points_and_never_the_point_itself():
    g = knn(torch.ones(5, 2), 2)
    assert pairs(g) == [(1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4)]


def test_knn_takes_whole_numbers():
    assert knn(torch.tensor([[0], [10], [11], [30]]), 1).senders.tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("points", "k", "parts"),
    [
        (torch.zeros(4), 1, ["shape [4]", "[N, F]"]),
        (torch.tensor([[0.0], [torch.nan]]), 1, ["shape [2, 1]", "finite"]),
        (torch.zeros(4, 2), 0, ["k is 0 for 4 points", "between 1 and 3"]),
        (torch.zeros(4, 2), 4, ["k is 4 for 4 points", "between 1 and 3"]),
        (torch.zeros(0, 2), 1, ["k is 1 for 0 points"]),
    ],
)
def test_knn_refuses_what_it_cannot_join(points, k, parts):
    with pytest.raises(ValueError, match=".*".join(map(re.escape, parts))):
        knn(points, k)


@pytest.mark.parametrize("length", [0, 1, 2, 5, 9])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 1), (3, 0), (0, 2), (2, 3), (30, 30)])
def test_in_a_band_each_step_hears_its_neighbours_that_exist_the_earliest_first(length, left, right):
    g = band(length, left, right)
    expected = [(s, r) for r in range(length) for s in range(max(0, r - left), min(length, r + right + 1))]
    assert pairs(g) == expected
    assert g.num_senders == g.num_receivers == length


def test_a_band_as_long_as_its_sequence_is_complete():
    assert band(6, 5, 5).is_complete
    assert not band(6, 5, 4).is_complete


@pytest.mark.parametrize(("arguments", "name"), [((-1, 0, 0), "length"), ((3, -2, 0), "left"), ((3, 0, -3), "right")])
def test_a_band_of_negative_size_is_refused(arguments, name):
    with pytest.raises(ValueError, match=f"{name} is {min(arguments)}: needed 0 or more"):
        band(*arguments)


def test_a_clique_joins_everyone_to_everyone_once():
    assert pairs(clique(2)) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    g = clique(5)
    assert g.is_complete and g.num_receivers == 5
    assert nx.is_isomorphic(nx.Graph(to_networkx(g.without_self_loops())), nx.complete_graph(5))


@pytest.mark.parametrize(("height", "width"), [(3, 4), (1, 5), (5, 1), (1, 1), (0, 3), (3, 0)])
def test_pixels_hear_their_row_and_their_column(height, width):
    pixels = [(y, x) for y in range(height) for x in range(width)]
    for maker, along in ((rows, 0), (columns, 1)):
        expected = {(i, j) for i, p in enumerate(pixels) for j, q in enumerate(pixels) if p[along] == q[along]}
        g = maker(height, width)
        assert set(pairs(g)) == expected and g.num_edges == len(expected)
        assert g.num_senders == g.num_receivers == height * width


def test_rows_and_columns_together_are_the_rooks_graph():
    both = [pair for g in (rows(3, 4), columns(3, 4)) for pair in pairs(g.without_self_loops())]
    assert nx.is_isomorphic(nx.Graph(both), nx.line_graph(nx.complete_bipartite_graph(3, 4)))


@pytest.mark.parametrize("maker", [rows, columns])
def test_a_grid_of_negative_size_is_refused(maker):
    with pytest.raises(ValueError, match=r"grid is 2 x -1.*not negative"):
        maker(2, -1)


def test_from_networkx_numbers_nodes_in_order_and_keeps_the_direction():
    drawn = nx.DiGraph([("b", "a"), ("a", "c")])
    g = from_networkx(drawn)
    assert pairs(g) == [(0, 1), (1, 2)]
    assert g.num_senders == g.num_receivers == 3


def test_from_networkx_turns_an_undirected_edge_into_two_and_a_loop_into_one():
    drawn = nx.Graph([(0, 1), (1, 1)])
    drawn.add_node(2)
    g = from_networkx(drawn)
    assert Counter(pairs(g)) == Counter([(0, 1), (1, 0), (1, 1)])
    assert g.num_receivers == 3


def test_from_networkx_keeps_parallel_edges():
    assert Counter(pairs(from_networkx(nx.MultiGraph([(0, 1), (0, 1)])))) == Counter({(0, 1): 2, (1, 0): 2})
    assert pairs(from_networkx(nx.MultiDiGraph([(0, 1), (0, 1)]))) == [(0, 1), (0, 1)]


def test_from_networkx_of_nothing_is_nothing():
    g = from_networkx(nx.Graph())
    assert (g.num_edges, g.num_senders) == (0, 0)


def test_to_networkx_gives_each_edge_its_position_as_key():
    drawn = to_networkx(GRAPHS["duplicates"])
    assert set(drawn.edges(keys=True)) == {(s, r, e) for e, (s, r) in enumerate(pairs(GRAPHS["duplicates"]))}


def test_to_networkx_tells_senders_from_receivers_in_a_bipartite_graph():
    drawn = to_networkx(GRAPHS["more_senders"])
    assert drawn.number_of_nodes() == 9
    assert (("sender", 5), ("receiver", 0), 1) in drawn.edges(keys=True)
    assert nx.is_bipartite(drawn)


@pytest.mark.parametrize("name", SQUARE)
def test_a_square_graph_survives_the_way_to_networkx_and_back(name):
    g = GRAPHS[name]
    back = from_networkx(to_networkx(g))
    assert Counter(pairs(back)) == Counter(pairs(g))
    assert back.num_senders == back.num_receivers == g.num_senders


@pytest.mark.parametrize("name", BIPARTITE)
def test_a_bipartite_graph_comes_back_as_a_square_one_with_receivers_after_senders(name):
    g = GRAPHS[name]
    back = from_networkx(to_networkx(g))
    assert Counter(pairs(back)) == Counter((s, r + g.num_senders) for s, r in pairs(g))
    assert back.num_senders == g.num_senders + g.num_receivers
