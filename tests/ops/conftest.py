"""What tests of the kernels set and have to give back, and where a back end can run."""

from collections.abc import Callable, Iterator

import pytest
import torch

from graphattn import native

SETS = [] if native.kernels is None else native.kernels.instruction_sets()


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine, whatever the width of the rows."""
    native.kernels.use_instruction_set(request.param)
    yield request.param
    native.kernels.use_instruction_set(None)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """A function that sets the number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _where_a_back_end_runs(request: pytest.FixtureRequest) -> None:
    """The back end for GPUs runs on the CPU where Triton interprets it, so where there is no GPU."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    names, device = {given.get("backend"), given.get("backend_name")}, str(given.get("device", "cpu"))
    on_gpu = device == "cuda" or request.node.get_closest_marker("gpu") is not None
    if not on_gpu and "gpu" in names and torch.cuda.is_available():
        pytest.skip("on this machine tests of the back end for GPUs are those on a GPU")
    if device == "cuda" and "cpu" in names:
        pytest.skip("the back end for CPUs does not run on a GPU")
