"""Triton compiles every kernel for the GPUs we mean, here without one: what the interpreter accepts is not enough."""

import os
import subprocess
import sys

import pytest

COMPILE = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

capability, dtype, names = int(sys.argv[1]), getattr(torch, sys.argv[2]), sys.argv[3].split(",")


class NoDevice:
    def get_current_target(self):
        return GPUTarget("cuda", capability, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


driver.set_active(NoDevice())

from cases import GRAPHS, OPERATIONS
from graphattn import Graph, ops
from graphattn.ops import gpu, gpu_band, gpu_kernels, gpu_launch
from graphattn.ops.dropout import draw

gpu.INTERPRETED = True  # CPU tensors may come in: nothing is run on them
gpu_launch.WHOLE = 0
compiled = {}


class Compiled:
    def __init__(self, module, name):
        self.kernel = getattr(module, name)
        self.name = name

    def __getitem__(self, grid):
        return lambda *args, **options: compiled.setdefault(self.name, []).append(
            self.kernel.warmup(*args, grid=grid, **options)
        )


for name in sys.argv[4].split(","):
    module = gpu_band if name.endswith("_band") else gpu_kernels
    setattr(module, name, Compiled(module, name))
gpu_launch.LONGEST = 64
graph = GRAPHS["hub"]
for operation in OPERATIONS:
    if str(operation) in names:
        arguments = operation.arguments(graph, 3, 20, dtype)
        out = getattr(ops, operation.name)(
            **arguments, graph=graph, dropout=0.3, return_weights=True, backend="gpu"
        )
        (out[0].sum() + out[1].sum()).backward()
if "additive" in names:  # one head that all share, and none of what is optional
    values, scores = torch.ones(graph.num_senders, 1, 20, requires_grad=True), torch.ones(graph.num_senders, 3)
    ops.additive(values, scores, scores, graph, backend="gpu").sum().backward()
    ops.dot_product(torch.ones(graph.num_receivers, 3, 20), values, values, graph, backend="gpu").sum().backward()
for width in ((8,), (3, 5)):
    rows = torch.ones(graph.num_senders, *width)
    ops.gpu.weighted_sum(torch.ones(graph.num_edges), rows, graph.by_receiver, draw(0.5, "cpu"))
for shape in ((2, 40, 3, 7), (3, 7)):  # weights of each step, and shared
    weights = torch.ones(shape, dtype=dtype, requires_grad=True)
    values = torch.ones(2, 40, 3, 20, dtype=dtype, requires_grad=True)
    ops.band_sum(weights, values, 2, backend="gpu").sum().backward()
for name, kernels in sorted(compiled.items()):
    assert all("cubin" in kernel.asm or "ptx" in kernel.asm for kernel in kernels), name
    print(name)
"""
ALL = [
    "add_pieces",
    "backward_receivers",
    "backward_senders",
    "dot_over_band",
    "forward",
    "merge",
    "row_sums",
    "sum_over_band",
    "weigh",
    "weighted_sum",
]


@pytest.mark.parametrize(
    ("capability", "dtype", "names"),
    [
        (90, "bfloat16", "attend,additive+edge,additive_v2+edge,dot_product+edge"),
        (90, "float32", "additive,additive_v2,dot_product"),
        (80, "float64", "additive_v2,dot_product+edge"),
    ],
)
def test_every_kernel_compiles(tmp_path, capability, dtype, names):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, str(capability), dtype, names, ",".join(ALL)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ALL
