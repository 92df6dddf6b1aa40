"""The kernels in forked processes, where OpenMP's threads are gone, in data loaders and in Python threads at once."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import OPERATIONS, results

from graphattn import Graph, attend, native, ops

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 on, if there are threads
SECONDS = 60  # how long a child that hangs is waited for


@pytest.fixture(autouse=True)
def _two_threads(set_threads):
    set_threads(2)


def graph() -> Graph:
    """Enough for several tasks in each direction, and for two threads to group the edges."""
    generator = torch.Generator().manual_seed(3)
    senders, receivers = (torch.randint(400, (12_000,), generator=generator) for _ in range(2))
    receivers[::4] = 17
    return Graph(senders, receivers, 400, 400)


def computed(operation) -> dict[str, bytes]:
    found = results(operation, graph(), "cpu", 0.3, heads=1, width=4, dtype=torch.float32)
    return {what: tensor.numpy().tobytes() for what, tensor in found.items()}


def send(channel, operation) -> None:
    channel.send((native.threads(), computed(operation)))


@pytest.mark.parametrize("operation", OPERATIONS[:4], ids=str)
def test_a_forked_process_computes_the_same_bits_and_does_not_hang(operation):
    expected = computed(operation)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=send, args=(theirs, operation), daemon=True)
    child.start()
    try:
        assert ours.poll(SECONDS), "the child hangs"
        threads, actual = ours.recv()
    finally:
        child.kill()
        child.join()
    assert threads == 1
    assert actual == expected
    assert native.threads() == 2


class Sums(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, item: int) -> torch.Tensor:
        torch.manual_seed(item)
        return attend(torch.randn(12_000, 1), torch.randn(400, 1, 4), graph(), backend="cpu")


def test_a_data_loader_may_call_them_in_its_workers():
    expected = [Sums()[item] for item in range(6)]
    loader = torch.utils.data.DataLoader(
        Sums(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=SECONDS
    )
    for actual, wanted in zip(loader, expected, strict=True):
        assert torch.equal(actual, wanted)


def test_python_threads_may_call_them_at_the_same_time():
    """Each call lets go of the interpreter; each has memory of its own."""
    jobs = [
        (operation, heads, dtype)
        for operation in OPERATIONS
        for heads, dtype in ((1, torch.float32), (3, torch.float64))
    ]
    shared, start = graph(), threading.Barrier(4)

    def run(operation, heads, dtype):
        arguments = operation.arguments(shared, heads, 4, dtype)
        out = getattr(ops, operation.name)(**arguments, graph=shared, backend="cpu")
        return [out, *torch.autograd.grad(out.square().sum(), tuple(arguments.values()))]

    def together(job):
        start.wait(SECONDS)
        return run(*job)

    expected = [run(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(together, [jobs[k % len(jobs)] for k in range(28)]))
    for k, actual in enumerate(found):
        for ours, theirs in zip(actual, expected[k % len(jobs)], strict=True):
            assert torch.equal(ours, theirs)


def test_graphs_may_be_sorted_by_several_python_threads_at_once():
    shared = graph()
    with ThreadPoolExecutor(4) as pool:
        orders = list(pool.map(lambda _: shared.by_receiver, range(8)))
    for order in orders:
        assert torch.equal(order.edges, torch.argsort(shared.receivers, stable=True))
