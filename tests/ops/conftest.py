"""What tests of the kernels set and have to give back: the instruction set and the number of threads."""

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
