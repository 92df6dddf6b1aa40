"""The contract of wrapped networks, over every rule."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from nets import BLOCKS, RULES, SmallNet, fitting, images, inputs, on_tokens, wrapped
from torch import Tensor, nn

from graphattn.depth import Rule, recorded, wrap
from graphattn.depth.wrap import Placed

every_rule = pytest.mark.parametrize("name", RULES)


@every_rule
def test_states_what_it_is(name: str) -> None:
    rule: Rule = RULES[name]
    assert rule.score in ("constant", "static", "query-only", "key-only", "query-key", "matrix")
    assert rule.normalisation and rule.cost and isinstance(rule.identity, bool)
    graph = rule.graph(5)
    assert graph.num_receivers >= 5 and bool((graph.senders <= graph.receivers).all())


@every_rule
def test_every_parameter_learns(name: str) -> None:
    model = wrapped(name)
    nn.functional.cross_entropy(model(inputs(name)), torch.tensor([1, 2])).backward()
    assert [p for p, value in model.named_parameters() if value.grad is None] == []


@every_rule
def test_state_dict_of_the_unwrapped_model_loads(name: str) -> None:
    bare, model = fitting(name), wrapped(name)
    rules_own = {k: v.clone() for k, v in model.state_dict().items() if ".rule." in k or ".align." in k}
    model.load_state_dict(bare.state_dict())
    for key, value in bare.state_dict().items():
        inner = ".downsample.module." if ".downsample." in key else None
        place = ".".join(key.split(".")[:2]) if key.startswith(("layer", "blocks")) else None
        ours = key if place is None else key.replace(f"{place}.", f"{place}.block.", 1)
        assert torch.equal(model.state_dict()[ours.replace(".downsample.", inner) if inner else ours], value)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in rules_own.items())
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(1)
    model.load_state_dict(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@every_rule
def test_a_wrapped_state_dict_must_be_whole(name: str) -> None:
    model = wrapped(name)
    state = model.state_dict()
    learned = [key for key in state if ".rule." in key]
    if not learned:
        assert name in ("plain", "residual", "residual-projected")
        return
    del state[learned[0]]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)


@every_rule
def test_nothing_is_retained(name: str) -> None:
    model = wrapped(name)
    held: list[weakref.ref[Tensor]] = []
    (model.blocks if on_tokens(name) else model.layer2)[0].register_forward_pre_hook(
        lambda _, args: held.append(weakref.ref(args[0]))
    )
    out = model(inputs(name))
    memory = next(m.memory for m in model.modules() if isinstance(m, Placed))
    assert (memory.keys, memory.values) == ([], [])
    assert memory.entry is memory.state is memory.shortcut is None
    del out
    gc.collect()
    assert held[0]() is None


@every_rule
def test_compiles_without_graph_breaks(name: str) -> None:
    model = wrapped(name).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for _ in range(2):
        x = inputs(name)
        torch.testing.assert_close(compiled(x), model(x))


@every_rule
def test_trains_compiled(name: str) -> None:
    model, x = wrapped(name), inputs(name)
    torch._dynamo.reset()
    found = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)  # the same paths are dropped
        model.zero_grad()
        out = run(x)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*found)


@every_rule
def test_copies_do_not_share(name: str) -> None:
    model = wrapped(name).eval()
    twin, file = copy.deepcopy(model), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    ours = {id(m.memory) for m in model.modules() if isinstance(m, Placed)}
    theirs = {id(m.memory) for m in twin.modules() if isinstance(m, Placed)}
    assert len(ours) == len(theirs) == 1 and ours != theirs
    x = inputs(name)
    assert torch.equal(model(x), twin(x)) and torch.equal(model(x), loaded(x))
    loaded.load_state_dict(fitting(name).state_dict())


@every_rule
def test_channels_last_and_bfloat16(name: str) -> None:
    model = wrapped(name).eval()
    x = inputs(name)
    expected = model(x)
    if not on_tokens(name):
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x)
    assert (low.float() - expected).abs().max() < 0.1 * expected.abs().max() + 0.05


@every_rule
def test_recomputed_blocks_of_a_batch_do_not_mix(name: str) -> None:
    """A sample's output does not depend on the others of its batch."""
    model = wrapped(name).eval()
    x = inputs(name, 3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@every_rule
def test_weights_are_shown_while_recorded(name: str) -> None:
    model = wrapped(name).eval()
    x = inputs(name)
    expected = model(x)
    with recorded(model) as weights:
        assert torch.equal(model(x), expected)
    shown = {key: value.clone() for key, value in weights.items()}
    model(x)
    silent = RULES[name].score in ("constant", "matrix") or name.startswith(("hyper", "eca", "squeeze", "mrla-light"))
    assert bool(shown) != silent
    assert all(torch.equal(weights[key], value) for key, value in shown.items()) and weights.keys() == shown.keys()
    sources = {m.name: m.sources for m in model.modules() if isinstance(m, Placed)}
    assert all(value.shape[-1] == len(sources[key]) for key, value in shown.items())
    if name == "attention-residual-blocks":
        return  # the weight of a sum is shown for each of its branches
    if RULES[name].normalisation == "softmax":
        for value in shown.values():
            torch.testing.assert_close(value.sum(-1), torch.ones(value.shape[:-1]))


def test_every_public_rule_is_here() -> None:
    from graphattn import depth

    public = {getattr(depth, name) for name in depth.__all__}
    rules = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Rule) and kind is not Rule}
    assert rules == {type(rule) for rule in RULES.values()}


def test_gradients_do_not_depend_on_a_wrapper_that_does_nothing() -> None:
    """Plain without ReLU is the network itself."""
    from graphattn.depth import Plain

    bare = SmallNet()
    model = wrap(copy.deepcopy(bare), BLOCKS, Plain(relu=False), images())
    x = images()
    grads: list[list[Tensor]] = []
    for net in (bare, model):
        net.zero_grad()
        net(x).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
