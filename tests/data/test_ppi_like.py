"""The generated set: PPI's shape, and labels that follow the rule it is documented by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphattn import Graph, ops
from graphattn.data import GraphSet, load_graphs
from graphattn.data.ppi_like import GROUPS, LABELLED, LOUDNESS, heard


@pytest.fixture(scope="module")
def data() -> GraphSet:
    return load_graphs("ppi-like")


def test_its_shape_is_that_of_ppi(data: GraphSet) -> None:
    assert (len(data.train), len(data.val), len(data.test)) == (20, 2, 2)
    graphs = [*data.train, *data.val, *data.test]
    assert all(2000 <= graph.num_nodes <= 2800 for graph in graphs)
    nodes, edges = sum(graph.num_nodes for graph in graphs), sum(graph.num_edges for graph in graphs)
    assert edges / nodes == pytest.approx(28.8, abs=0.1)
    most = [int(torch.bincount(graph.edge_index[1]).max()) for graph in graphs]
    assert min(most) > 400, "hubs, as in PPI"
    assert max(most) < 1000
    assert not any(graph.is_directed() or graph.has_self_loops() or graph.is_coalesced() is False for graph in graphs)


def test_three_labels_in_ten_are_given(data: GraphSet) -> None:
    y = torch.cat([graph.y for graph in (*data.train, *data.val, *data.test)])
    torch.testing.assert_close(y.mean(0), torch.full((121,), LABELLED), atol=1e-3, rtol=0)


def test_what_a_node_hears_is_additive_attention(data: GraphSet) -> None:
    """A head a group, whose score is a voice of the sender's."""
    graph = data.test[0]
    x, loops = graph.x.double(), torch.arange(graph.num_nodes)
    ends = torch.cat([graph.edge_index, torch.stack([loops, loops])], 1)
    voices, content = x[:, :GROUPS], x[:, GROUPS:].unsqueeze(1).expand(-1, GROUPS, -1)
    whole = Graph(ends[0], ends[1], graph.num_nodes, graph.num_nodes)
    out = ops.additive(content, LOUDNESS * voices, torch.zeros_like(voices), whole, negative_slope=1.0)
    torch.testing.assert_close(out, torch.from_numpy(heard(x.numpy(), *graph.edge_index.numpy())))


def linear_f1(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Micro-F1 of a least-squares fit whose scores are cut where three in ten are given."""
    (x, y), (held_out, answers) = train, test
    weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    scores = np.c_[held_out, np.ones(len(held_out))] @ weights
    given = scores > np.quantile(scores, 1 - LABELLED, axis=0)
    return float(2 * (given & (answers > 0)).sum() / (given.sum() + answers.sum()))


def test_attention_beats_equal_weights_beat_none(data: GraphSet) -> None:
    """No training involved: what a linear map makes of what the rule, the mean, or nobody lets a node hear."""

    def parts(kind: str, graphs: list[int]) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = [], []
        for i in graphs:
            graph = data.train[i]
            x, ends = graph.x.double().numpy(), graph.edge_index.numpy()
            if kind == "attention":
                x = np.concatenate([x, heard(x, *ends).reshape(len(x), -1)], 1)
            elif kind == "mean":
                total = np.zeros_like(x)
                np.add.at(total, ends[1], x[ends[0]])
                x = np.concatenate([x, total / np.maximum(np.bincount(ends[1], minlength=len(x)), 1)[:, None]], 1)
            inputs.append(x)
            labels.append(graph.y.numpy())
        return np.concatenate(inputs), np.concatenate(labels)

    f1 = {kind: linear_f1(parts(kind, [0, 1, 2, 3]), parts(kind, [4, 5])) for kind in ("attention", "mean", "own")}
    assert f1["attention"] > 0.85
    assert f1["attention"] > f1["mean"] + 0.25
    assert f1["mean"] > f1["own"] + 0.03
