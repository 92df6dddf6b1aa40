"""What a training step holds: kept for backward, at its peak, and whether that would fit at all."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from graphattn.bench.case import Case, Entry

_MIB = 2**20
_EDGE_TENSORS = {"attend": 4.5, "additive": 4.5, "additive_v2": 6.5, "dot_product": 6.5}
_USABLE = 0.7  # of the memory that is free


def kept(entry: Entry) -> tuple[float, float]:
    """MiB (saved for backward, inputs and output). A storage saved twice counts once; weights and indices do not."""
    weights = {_storage(weight).data_ptr() for weight in entry.parameters}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        held = tensor if tensor.layout == torch.strided else tensor.values()
        if held.dtype not in (torch.int32, torch.int64) and _storage(held).data_ptr() not in weights:
            saved[_storage(held).data_ptr()] = _storage(held).nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = entry.output()
    return sum(saved.values()) / _MIB, sum(t.nbytes for t in [*entry.inputs, out]) / _MIB


def peak(case: Case, contestant: str, device: str) -> float:
    """MiB at the peak of a training step, beyond weights and inputs.

    A first step, which loads code and compiles, is not counted; the next two get a new edge_index, so that ordering
    its edges and keeping the order is. On the CPU resident memory (Linux; elsewhere NaN) of a process of its own, on a
    GPU torch's allocations, which others in the process do not disturb.
    """
    if device == "cuda":
        return _peak(case, contestant, device, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak, case, contestant, device, torch.get_num_threads()).result()


def _peak(case: Case, contestant: str, device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    entry = case.build(contestant, device)
    entry.step()
    entry.renew()
    gc.collect()
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        entry.step()
        entry.step()
        return (torch.cuda.max_memory_allocated() - held) / _MIB
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)  # freed memory that glibc holds back would hide as much of the peak
    before = _kibibytes("self/status", "VmRSS")
    if (clear := Path("/proc/self/clear_refs")).exists():
        clear.write_text("5")  # VmHWM begins again
    entry.step()
    entry.step()
    return (_kibibytes("self/status", "VmHWM") - before) / 2**10


def unfused_step(op: str, E: int, H: int, D: int, size: int = 4) -> float:
    """Bytes at the peak of a training step that makes the message of every edge, of numbers of `size` bytes.

    As much as 4.5 tensors of E x H x D, or 6.5 where the scores are made of such tensors too: measured on PyG's layers
    and on `reference`; PyG compiled takes less.
    """
    return size * _EDGE_TENSORS[op] * E * H * D


def lack(needed: float, device: str) -> str | None:
    """Why so many bytes are too much for this device now, or None if they are not."""
    if device == "cuda":
        torch.cuda.empty_cache()  # what torch holds back is free
        free = float(torch.cuda.mem_get_info()[0])
    else:
        free = 2**10 * _kibibytes("meminfo", "MemAvailable")
    if not needed > _USABLE * free:  # where nothing is known of the memory, it is tried
        return None
    return f"needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"


def limit_to_free() -> None:
    """From here on this process gets no more memory than is free now (Linux): a larger request is an error, not the
    end of some process of the machine.
    """
    free = _kibibytes("meminfo", "MemAvailable")
    if free == free:
        import resource

        size = int(2**10 * free)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def resident_peak() -> float:
    """MiB that this process has held at most, all counted (Linux; elsewhere NaN)."""
    return _kibibytes("self/status", "VmHWM") / 2**10


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _kibibytes(file: str, key: str) -> float:
    """An entry of a file below Linux's /proc; NaN elsewhere."""
    path = Path("/proc") / file
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(key)), float("nan"))
