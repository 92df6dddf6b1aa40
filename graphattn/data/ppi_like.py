"""Generated graphs of PPI's shape, whose labels are known to need attention; no download.

24 graphs of about 2,400 nodes and 29 neighbours a node, degrees falling off as in PPI. A node has 50 features drawn
from a normal distribution: four voices v and 46 of content c. With N(i) the neighbours of i and i itself,

    w_ij = softmax over j in N(i) of 2 v_j[g]        m_i[g] = sum over j in N(i) of w_ij c_j

and node i has label k, of the group g = k mod 4, if a_k . c_i + 2 b_k . m_i[g] is among the highest 30 % of all nodes,
for directions a_k and b_k drawn once (m scaled to variance 1). So a third of what a label depends on (by standard
deviation) is the node itself, and two thirds are neighbours that matter unequally: four heads of additive attention can
follow the voices, equal weights hear about four loud ones among 29, a perceptron hears none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, RawGraphs
from graphattn.data.splits import Split

GROUPS, LOUDNESS, NEIGHBOUR_SHARE, LABELLED = 4, 2.0, 2.0, 0.3
_GRAPHS, _FEATURES, _LABELS, _DEGREE = 24, 50, 121, 28.8
_RANK_POWER = 0.5  # the node of rank r is drawn with probability ~ r^-0.5


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraphs:
    """20 graphs train, two validate, two are tested, always the same; there are no files to read."""
    random = np.random.RandomState(0)  # its streams never change, as those of newer generators may
    sizes = random.randint(2000, 2801, _GRAPHS)
    first = np.cumsum(sizes) - sizes
    features = random.standard_normal((sizes.sum(), _FEATURES))
    ends, neighbours = [], []
    for start, size in zip(first, sizes, strict=True):
        own = _edges(int(size), random)
        both = np.concatenate([own, own[::-1]], axis=1)
        ends.append(own + start)
        neighbours.append(heard(features[start : start + size], *both))
    labels = _labels(features, np.concatenate(neighbours), random)
    senders, receivers = np.concatenate(ends, axis=1)
    fixed = Split(torch.arange(20), torch.arange(20, 22), torch.arange(22, 24))
    graph = np.repeat(np.arange(_GRAPHS), sizes)
    return RawGraphs(features.astype(np.float32), labels, graph, senders, receivers, {"fixed": (fixed,)})


def heard(features: Array, senders: Array, receivers: Array) -> Array:
    """[N, GROUPS, 46]: m of the rule above, not yet scaled; the graph's edges have both directions and no loops."""
    voices, content = features[:, :GROUPS], features[:, GROUPS:]
    found = []
    for voice in voices.T:
        weights = np.diag(np.exp(LOUDNESS * voice))
        weights[receivers, senders] = np.exp(LOUDNESS * voice)[senders]
        found.append(weights @ content / weights.sum(1, keepdims=True))
    return np.stack(found, 1)


def _edges(num_nodes: int, random: np.random.RandomState) -> Array:
    """[2, E]: different pairs of different nodes, each drawn by rank; one direction."""
    wanted = int(num_nodes * _DEGREE / 2)
    names = random.permutation(num_nodes)
    pairs = np.empty(0, dtype=np.int64)
    while len(pairs) < wanted:
        ranks = (num_nodes * random.random_sample((2, wanted)) ** (1 / (1 - _RANK_POWER))).astype(np.int64)
        low, high = np.sort(names[ranks], axis=0)
        pairs = np.unique(np.concatenate([pairs, (low * num_nodes + high)[low != high]]))
    pairs = random.permutation(pairs)[:wanted]
    return np.stack([pairs // num_nodes, pairs % num_nodes])


def _labels(features: Array, neighbours: Array, random: np.random.RandomState) -> Array:
    """[N, C] of 0 and 1."""
    directions = random.standard_normal((2, features.shape[1] - GROUPS, _LABELS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    scores = features[:, GROUPS:] @ directions[0]
    for group in range(GROUPS):
        own = slice(group, None, GROUPS)
        scores[:, own] += NEIGHBOUR_SHARE * neighbours[:, group] / neighbours.std() @ directions[1][:, own]
    last = int((1 - LABELLED) * len(scores))
    return (scores > np.partition(scores, last, axis=0)[last]).astype(np.int64)
