"""Where the kernels could not be compiled, everything runs on `reference`, and says so once."""

import subprocess
import sys

CODE = """
import sys, warnings
sys.modules["graphattn._cpu"] = None  # what an install without a compiler lacks
import torch
from graphattn import Graph, ops
from graphattn.conv import GATConv
from graphattn.grid import AttentionWise

graph = Graph(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), 3, 2)
logits, values = torch.randn(3, 2), torch.randn(3, 2, 4, requires_grad=True)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    out = ops.attend(logits, values, graph)
    out.sum().backward()
    GATConv(4, 2)(torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]))
    ops.weighted_sum(logits[:, 0], values[:, 0], graph)
    ops.feature_dropout(values)
    ops.band_sum(logits, torch.randn(1, 4, 3, 2), 1)
    AttentionWise(1, 4)(torch.rand(2, 1, 4, 4)).sum().backward()
assert torch.equal(out, ops.attend(logits, values, graph, backend="reference"))
print([f"{w.category.__name__}: {w.message}" for w in heard])
try:
    ops.attend(logits, values, graph, backend="cpu")
except ImportError as error:
    print(error)
"""


def test_without_kernels(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, cwd=tmp_path)
    warned, refused = done.stdout.splitlines()
    assert warned.count("RuntimeWarning") == 1 == warned.count("Warning: "), warned
    for part in ("no compiled kernels", "runs on 'reference'", "C++ compiler"):
        assert part in warned
    for part in ("back end 'cpu'", "C++ compiler", "backend='reference'"):
        assert part in refused
