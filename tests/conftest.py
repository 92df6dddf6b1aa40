"""What holds for every test: checked shapes, fresh memory that is NaN, and no skip that goes unnoticed."""

import os
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # tiny tensors on a busy machine: threads that spin cost minutes

import pytest
import torch
from jaxtyping import install_import_hook

# Before anything imports graphattn. The doors of `ops` are left out: they check bad input themselves.
install_import_hook(
    [f"graphattn.ops.{name}" for name in ("reference", "dense", "scatter", "scores", "dropout")]
    + ["graphattn.grid.reference"],
    "beartype.beartype",
)

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the kernels for GPUs then run on the CPU

# With deterministic algorithms torch fills fresh memory (empty, empty_like, new_empty, resize_) with NaN, or with the
# largest integer, so that a result which was never written cannot look right.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA refuses deterministic products without it
torch.use_deterministic_algorithms(True)

_DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
_skips: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help="fail if any test was skipped, except those marked gpu"
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "gpu" not in report.keywords and not hasattr(report, "wasxfail"):
        _skips.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skips.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--strict-skips") and _skips:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.config.getoption("--strict-skips"):
        for nodeid in _skips:
            terminalreporter.write_line(f"SKIPPED, which --strict-skips forbids: {nodeid}", red=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers whatever ran before it."""
    torch.manual_seed(0)


def pytest_report_header() -> str:
    return f"devices: {', '.join(_DEVICES)}"


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.gpu] if name == "cuda" else []) for name in _DEVICES])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device there is; a test that takes it needs no second version for the GPU."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _where_torch_scatter_is(request: pytest.FixtureRequest) -> None:
    """torch-scatter is an extra that builds from source: tests with it as their back end need it, no others."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "scatter" in (given.get("backend"), given.get("backend_name")) and find_spec("torch_scatter") is None:
        pytest.skip("needs torch-scatter: make scatter")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that GRAPHATTN_DATA names."""
    if not (folder := os.environ.get("GRAPHATTN_DATA")):
        pytest.skip("needs real data sets: set GRAPHATTN_DATA to the folder that holds them")
    return Path(folder)
