"""What the compiled module refuses when it is called without the doors of `ops`: nothing unchecked reaches a kernel."""

import re

import pytest
import torch

from graphattn import native

if native.kernels is None:
    pytest.skip("needs the compiled kernels", allow_module_level=True)

SENDERS, RECEIVERS, EDGES, HEADS, WIDTH = 3, 2, 4, 2, 5
GIVEN, ADDITIVE, ADDITIVE_V2, DOT_PRODUCT = range(4)
F64 = {"dtype": torch.float64}


def call(function, arguments, **changes):
    given = {**arguments, **changes}
    arrays = {name: native.arrays(value)[0] for name, value in given.items() if isinstance(value, torch.Tensor)}
    getattr(native.kernels, function)(**{**given, **arrays})


def orders():
    """Edges 2, 0 and 1 enter receiver 0, edge 3 receiver 1; edges 0 and 3 leave sender 0, 1 leaves 1, 2 leaves 2."""
    receivers = {"ptr": [0, 3, 4], "edges": [2, 0, 1, 3], "others": [2, 0, 1, 0]}
    senders = {"sender_ptr": [0, 2, 3, 4], "sender_edges": [0, 3, 1, 2], "sender_others": [0, 1, 0, 0]}
    return {name: torch.tensor(numbers) for name, numbers in (receivers | senders).items()}


def inputs(score):
    """The arguments that forward and backward share, with an edge term."""
    rows = torch.ones(SENDERS, HEADS, WIDTH)
    wide = score in (ADDITIVE_V2, DOT_PRODUCT)
    return {
        "score": score,
        "values": rows,
        "left": {ADDITIVE: torch.ones(SENDERS, HEADS), DOT_PRODUCT: rows}.get(score),
        "right": None if score == GIVEN else torch.ones([RECEIVERS, HEADS] + [WIDTH] * wide),
        "att": torch.ones(HEADS, WIDTH) if score == ADDITIVE_V2 else None,
        "edge": torch.ones([EDGES, HEADS] + [WIDTH] * wide),
        "heads": HEADS,
        "constant": 0.5,
        "p": 0.25,
        "seed": 7,
        "threads": 1,
    }


def forward(score):
    receivers = {name: tensor for name, tensor in orders().items() if "sender" not in name}
    out, lse = torch.empty(RECEIVERS, HEADS, WIDTH), torch.empty(RECEIVERS, HEADS, **F64)
    return {**inputs(score), **receivers, "out": out, "lse": lse, "weights": torch.empty(EDGES, HEADS)}


def backward(score):
    given = forward(score)
    call("forward", given)
    grads = {
        f"grad_{name}": None if given[name] is None else torch.empty_like(given[name])
        for name in ("values", "left", "right", "att", "edge")
    }
    more = {
        "grad_out": torch.ones(RECEIVERS, HEADS, WIDTH),
        "grad_weights": torch.ones(EDGES, HEADS),
        "row_sums": torch.empty(RECEIVERS, HEADS),
        "logit_grads": torch.empty(EDGES, HEADS),
    }
    return {**given, **orders(), **grads, **more}


def weighted_sum():
    receivers = {name: tensor for name, tensor in orders().items() if "sender" not in name}
    sizes = {"weights": torch.ones(EDGES), "rows": torch.ones(SENDERS, WIDTH), "out": torch.empty(RECEIVERS, WIDTH)}
    return {**receivers, **sizes, "p": 0.25, "seed": 7, "threads": 1}


def group():
    ends, others = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 0])
    outputs = {"ptr": torch.empty(3, dtype=torch.int64), "edges": torch.empty(4, dtype=torch.int64)}
    return {
        **{"ends": ends, "others": others, "other_nodes": 3, "threads": 1},
        **outputs,
        "grouped_others": torch.empty(4, dtype=torch.int64),
    }


def drop():
    return {"from_": torch.ones(6, WIDTH), "p": 0.25, "seed": 7, "threads": 1, "to": torch.empty(6, WIDTH)}


def band_sum():
    sizes = {"weights": torch.ones(2, 4, HEADS, 3), "values": torch.ones(2, 4, HEADS, WIDTH)}
    return {**sizes, "left": 1, "threads": 1, "out": torch.empty(2, 4, HEADS, WIDTH)}


def band_sum_backward(shared):
    given = {name: value for name, value in band_sum().items() if name != "out"}
    given["weights"] = torch.ones(HEADS, 3) if shared else given["weights"]
    grads = {f"grad_{name}": torch.empty_like(given[name]) for name in ("weights", "values")}
    return {**given, "grad_out": torch.ones_like(given["values"]), **grads}


CALLS = {
    **{f"forward-{score}": ("forward", lambda score=score: forward(score)) for score in range(4)},
    **{f"backward-{score}": ("backward", lambda score=score: backward(score)) for score in range(4)},
    "weighted_sum": ("weighted_sum", weighted_sum),
    "drop": ("drop", drop),
    "group": ("group", group),
    "band_sum": ("band_sum", band_sum),
    "band_sum_backward": ("band_sum_backward", lambda: band_sum_backward(shared=False)),
    "band_sum_backward-shared": ("band_sum_backward", lambda: band_sum_backward(shared=True)),
}
REQUIRED = {"values", "out", "lse", "grad_out", "row_sums", "ptr", "edges", "others", "rows", "ends", "from_", "to"}
RESULT = re.compile("out$|to$|lse$|grad_(values|left|right|att|edge|weights)$")
COUNTING = {"ptr", "rows"}  # these alone say how many nodes there are, as do the values of forward unless left does
ARRAYS = [
    pytest.param(name, argument, id=f"{name}-{argument}")
    for name, (_, make) in CALLS.items()
    for argument, value in make().items()
    if isinstance(value, torch.Tensor)
]


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_from_which_the_cases_below_depart_are_sound(name):
    function, make = CALLS[name]
    arguments = make()
    call(function, arguments)
    for argument, tensor in arguments.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and argument != "row_sums":
            assert tensor.isfinite().all(), argument


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_an_array_of_another_size_or_number_of_dimensions_is_refused(name, argument):
    function, make = CALLS[name]
    given = make()[argument]
    wrong = [given.flatten()[0]] if function == "drop" else [given.flatten()[0], given[None]]
    if argument not in COUNTING and (name, argument) not in {("forward-0", "values"), ("forward-2", "values")}:
        wrong += [given[:-1].contiguous(), torch.cat([given, given[:1]])]
    if given.dim() > 1 and (name, argument) != ("band_sum", "weights"):  # which alone says how many taps there are
        wrong += [given[..., :-1].contiguous(), torch.cat([given, given[..., :1]], -1)]
    for array in wrong:
        with pytest.raises((ValueError, TypeError)):
            call(function, make(), **{argument: array})


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_an_array_of_another_dtype_or_without_memory_is_refused(name, argument):
    function, make = CALLS[name]
    given = make()[argument]
    others = (torch.int64, torch.complex64, torch.float16), (torch.int32, torch.bool, torch.float64)
    for dtype in others[0 if given.is_floating_point() else 1]:
        with pytest.raises((ValueError, TypeError)):
            call(function, make(), **{argument: given.to(dtype)})
    with pytest.raises((ValueError, TypeError, BufferError)):
        call(function, make(), **{argument: given.to("meta")})
    if argument in REQUIRED and argument != "weights":
        with pytest.raises((ValueError, TypeError)):
            call(function, make(), **{argument: None})


@pytest.mark.parametrize(("name", "argument"), [case for case in ARRAYS if RESULT.match(case.values[1])])
def test_an_array_for_results_that_is_not_contiguous_is_refused_and_never_copied(name, argument):
    function, make = CALLS[name]
    given = make()[argument]
    strided = torch.zeros(*given.shape, 2, dtype=given.dtype)[..., 0]
    with pytest.raises(TypeError):
        call(function, make(), **{argument: strided})


_CASES = {
    "additive without left": ("forward-1", {"left": None}, "left is missing"),
    "additive without right": ("forward-1", {"right": None}, "right is missing"),
    "additive_v2 without right": ("forward-2", {"right": None}, "right is missing"),
    "additive_v2 without att": ("backward-2", {"att": None}, "att is missing"),
    "dot_product without keys": ("backward-3", {"left": None}, "left is missing"),
    "dot_product without queries": ("forward-3", {"right": None}, "right is missing"),
    "no logits": ("forward-0", {"edge": None}, "edge is missing"),
    "additive_v2 with one head for all": ("forward-2", {"values": torch.ones(SENDERS, 1, WIDTH)}, "values must have"),
    "more heads than values have": ("forward-1", {"heads": 3}, "shape"),
    "no heads": ("forward-1", {"heads": 0}, "heads"),
    "fewer than no heads": ("forward-1", {"heads": -1}, "heads"),
    "an unknown score": ("forward-0", {"score": 4}, "score"),
    "a negative score": ("backward-0", {"score": -1}, "score"),
    "p above 1": ("forward-0", {"p": 1.5}, "p "),
    "p below 0": ("backward-0", {"p": -0.5}, "p "),
    "p that is no number": ("weighted_sum", {"p": float("nan")}, "p "),
    "a negative seed": ("forward-0", {"seed": -1}, "incompatible function arguments"),
    "a ptr that ends too early": ("forward-0", {"ptr": torch.tensor([0, 2, 3])}, "end with the number of edges"),
    "a ptr that ends too late": ("weighted_sum", {"ptr": torch.tensor([0, 3, 5])}, "end with the number of edges"),
    "an empty ptr": ("forward-0", {"ptr": torch.tensor([], dtype=torch.int64)}, "ptr is empty"),
    "fewer edges than others": ("weighted_sum", {"edges": torch.arange(3)}, "ptr"),
    "a sender order of another graph": ("backward-0", {"sender_ptr": torch.tensor([0, 4])}, "sender_ptr"),
    "a gradient of weights without weights": ("backward-0", {"weights": None}, "weights are missing"),
    "a receivers' gradient without its scratch": ("backward-1", {"logit_grads": None}, "logit_grads is missing"),
    "rows of eight bits": ("weighted_sum", {"rows": torch.ones(3, WIDTH).to(torch.float8_e5m2)}, "must be float32"),
    "an end beyond the nodes": ("group", {"ends": torch.tensor([0, 0, 0, 2])}, "node"),
    "a negative end": ("group", {"ends": torch.tensor([0, -1, 0, 1])}, "node"),
    "another end beyond its nodes": ("group", {"other_nodes": 2}, "node"),
    "a negative other end": ("group", {"others": torch.tensor([0, 1, -(2**40), 0])}, "node"),
    "a tap before the first": ("band_sum", {"left": -1}, "left is no tap"),
    "a tap after the last": ("band_sum_backward", {"left": 3}, "left is no tap"),
    "weights without taps": ("band_sum", {"weights": torch.ones(2, 4, HEADS, 0)}, "left is no tap"),
    "weights of a graph": ("band_sum", {"weights": torch.ones(2, 4, HEADS)}, "weights has another number"),
    "values of a graph": ("band_sum", {"values": torch.ones(2, HEADS, WIDTH)}, "values has another number"),
    "no nodes to group by": ("group", {"ptr": torch.empty(0, dtype=torch.int64)}, "ptr is empty"),
}
_OUT_OF_RANGE = ("an end beyond the nodes", "a negative end", "another end beyond its nodes", "a negative other end")


@pytest.mark.parametrize("case", _CASES)
def test_a_call_that_makes_no_sense_is_refused_with_what_is_wrong(case):
    name, changes, message = _CASES[case]
    function, make = CALLS[name]
    error = IndexError if case in _OUT_OF_RANGE else (ValueError, TypeError)
    with pytest.raises(error, match=message):
        call(function, make(), **changes)
