"""Tasks on texts: their batches, their losses by hand, their scores, and models close to the known optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn import experiment
from graphattn.data import PairSet, TextSet, load, made_text, manifest
from graphattn.data.text import pairs_of
from graphattn.data.vocabulary import BEGIN, END, PADDING
from graphattn.experiment import Decoding, Experiment
from graphattn.models import MODELS
from graphattn.recipe import Train
from graphattn.training import Job, run_seed, task
from graphattn.training.bleu import bleu
from graphattn.training.building import built
from graphattn.training.captured import _no_waiting
from graphattn.training.language_modelling import LanguageModelling
from graphattn.training.optimizers import optimizer_of
from graphattn.training.rouge import rouge
from graphattn.training.text_pairs import TextPairs
from graphattn.training.token_batches import TokenBatches

EXTRACTS = made_text.extracts(train=40, val=12, test=9)
CHAIN = made_text.chain(train=500, val=90, test=70)
SMALL: dict[str, Any] = {"channels": 16, "hidden": 32, "heads": 2}


def sentences() -> TextSet:
    """As a set of sentences, of which the last of each part is the longest."""
    rows = [[BEGIN, *range(4, 4 + k), END] for k in range(1, 8)]
    padded = torch.tensor([row + [PADDING] * (9 - len(row)) for row in rows])
    return TextSet("sentences", padded, padded[:3], padded[2:], 12, str, "word")


@pytest.mark.parametrize("tokens", [9, 30, 1000])
def test_batches_have_each_text_once_and_no_more_tokens_than_asked_for(tokens: int) -> None:
    lengths = torch.randint(1, 10, (50, 2))
    batches = TokenBatches(lengths, tokens)
    assert sorted(torch.cat(batches.in_order()).tolist()) == list(range(50))
    for ids in batches.in_order():
        assert len(ids) * int(lengths[ids].max()) <= tokens
    assert len(batches) == len(batches.in_order()) >= lengths.amax(1).sum() / tokens
    ends = [int(lengths[ids, 1].max()) for ids in batches.in_order()]
    assert ends == sorted(ends)
    orders = [[ids.tolist() for ids in batches.shuffled()] for _ in range(3)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(ids.tolist() for ids in batches.in_order())
    assert len(batches) < 3 or len({str(order) for order in orders}) > 1


def test_batches_refuse_a_text_that_is_longer() -> None:
    with pytest.raises(ValueError, match=r"a text has 9 tokens, train.batch takes 8"):
        TokenBatches(torch.tensor([3, 9, 4]), 8)


class Uniform(nn.Module):
    """All tokens are alike to it, but for a bias."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(-1, 1, tokens))

    def forward(self, source: Tensor, target: Tensor | None = None) -> Tensor:
        assert target is not None
        return self.bias.expand(*target.shape, -1)


def test_the_loss_of_pairs_is_the_mean_over_the_targets_tokens() -> None:
    asked = TextPairs(EXTRACTS, 200, Decoding(), label_smoothing=0.2)
    model = Uniform(EXTRACTS.num_tokens)
    log = model.bias.log_softmax(0)
    seen = 0
    for batch in asked.batches():
        seen += len(batch)
        targets = batch.target[:, 1:][batch.target[:, 1:] != PADDING]
        expected = (-0.8 * log[targets] - 0.2 * log.mean()).mean()
        torch.testing.assert_close(asked.loss(model, batch), expected)
    assert seen == 40
    targets = EXTRACTS.val.target[:, 1:][EXTRACTS.val.target[:, 1:] != PADDING]
    assert asked.measures(model) == {"val_loss": pytest.approx(-float(log[targets].mean().detach()), rel=1e-6)}


class Copies:
    """A decoder that gives back its source's tokens, one after the other, and then the end."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def eval(self) -> None: ...

    def start(self, source: Tensor) -> Any:
        class State:
            def __init__(self) -> None:
                self.source, self.step = source, 0

            def reorder(self, sequences: Tensor) -> None:
                self.source = self.source[sequences]

        return State()

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        due = state.source[:, state.step] if state.step < state.source.shape[1] else torch.full_like(tokens, END)
        state.step += 1
        return 20.0 * F.one_hot(due, self.tokens).float()


@pytest.mark.parametrize("score", ["bleu", "rouge_l"])
def test_texts_come_back_in_their_order_and_are_scored_against_the_references(score: Any) -> None:
    texts = [[5, 6, 7, 8, 9], [4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 4], [6, 6, 6, 6]]
    pairs = pairs_of(texts, texts)
    references = [" ".join(map(str, text)) for text in texts]
    data = PairSet("copies", pairs, pairs, pairs, {"val": references, "test": references[::-1]}, 10, _joined, score)
    asked = TextPairs(data, 100, Decoding(beams=2))
    assert asked.texts(Copies(10), pairs) == references  # type: ignore[arg-type]
    found = asked.judged(Copies(10))  # type: ignore[arg-type]
    assert found[f"val_{score}"] == 100
    assert found[f"test_{score}"] < 60
    assert found["texts_a_second"] > 0
    assert ("bleu_signature" in found) == (score == "bleu")
    assert next(name for name in found if name.startswith("test_")) == f"test_{score}"


class Wavers:
    """To it a short text is a little likelier than a long one, of which a greedy search never hears."""

    def start(self, source: Tensor) -> Any:
        return SimpleNamespace(reorder=lambda sequences: None, steps=0)

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        state.steps += 1
        chances = torch.full((len(tokens), 6), 1e-9)
        chances[tokens == BEGIN, 4:] = torch.tensor([0.6, 0.4])
        chances[tokens == 4, END] = 1.0
        chances[tokens == 5, END if state.steps > 3 else 5] = 1.0
        return chances.log()


@pytest.mark.parametrize(("beams", "penalty", "found"), [(2, 0.0, "4"), (2, 1.0, "5 5 5"), (1, 1.0, "4")])
def test_texts_are_decoded_with_the_beams_and_the_penalty_of_the_definition(
    beams: int, penalty: float, found: str
) -> None:
    pairs = pairs_of([[4]], [[4]])
    data = PairSet("wavers", pairs, pairs, pairs, {"val": ["4"], "test": ["4"]}, 6, _joined, "rouge_l")
    asked = TextPairs(data, 100, Decoding(beams=beams, length_penalty=penalty))
    assert asked.texts(cast(nn.Module, Wavers()), pairs) == [found]


def _joined(tokens: Any) -> str:
    return " ".join(map(str, tokens))


def test_bleu_is_sacrebleus_and_says_how() -> None:
    from sacrebleu import corpus_bleu

    texts = ["the cat sat on the mat .", "a dog ran home"]
    references = ["the cat is on the mat .", "the dog ran home again"]
    score, signature = bleu(texts, references)
    assert score == pytest.approx(corpus_bleu(texts, [references]).score, abs=1e-3)
    assert "tok:13a" in signature and "version:" in signature
    with pytest.raises(ValueError, match="2 texts and 1 references"):
        bleu(texts, references[:1])


def test_rouge_by_hand() -> None:
    found = rouge(["a b c d"], ["a c b d e"])
    assert found["rouge_1"] == pytest.approx(100 * 2 * 4 / 9, abs=1e-3)
    assert found["rouge_2"] == 0
    assert found["rouge_l"] == pytest.approx(100 * 2 * 3 / 9, abs=1e-3)
    found = rouge(["a a a b", ""], ["a a c a b", ""])
    assert found["rouge_1"] == pytest.approx(100 * 2 * 4 / 9 / 2, abs=1e-3)
    assert found["rouge_2"] == pytest.approx(100 * 2 * 2 / 7 / 2, abs=1e-3)
    assert rouge(["a"], ["b"]) == {"rouge_1": 0, "rouge_2": 0, "rouge_l": 0}
    for texts, references in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="needed as many, and one at least"):
            rouge(texts, references)


class Bigrams(nn.Module):
    """Log probabilities of a random table; counts how often it was asked for each place."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(tokens, tokens))

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.table.log_softmax(1)[tokens, targets]


@pytest.mark.parametrize("window", [2, 7, 16, 400])
def test_the_perplexity_of_a_text_that_runs_on_has_each_token_once(window: int) -> None:
    asked, model = LanguageModelling(CHAIN, 500, min(window, 200)), Bigrams(CHAIN.num_tokens)
    asked.window = window
    losses = {
        part: -float(model(t[:-1], t[1:]).mean().detach()) for part, t in (("val", CHAIN.val), ("test", CHAIN.test))
    }
    found = asked.measures(model)
    assert found["val_loss"] == pytest.approx(losses["val"], rel=1e-5)
    for part, loss in losses.items():
        assert found[f"{part}_perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)


def test_each_token_of_a_text_that_runs_on_is_judged_after_half_a_window_or_more() -> None:
    asked = LanguageModelling(CHAIN, 500, 16)
    seen = torch.zeros(len(CHAIN.val) - 1, dtype=torch.int64)
    for (tokens, targets), judged in asked._windows(CHAIN.val):
        assert torch.equal(tokens[:, 1:], targets[:, :-1])
        for row, fresh in zip(tokens, judged, strict=True):
            (start,) = [k for k in range(len(seen) - 15) if torch.equal(CHAIN.val[k : k + 16], row)]
            seen[start : start + 16] += fresh
            assert start == 0 or not fresh[:8].any()
    assert (seen == 1).all()


def test_steps_on_a_text_that_runs_on_are_neighbouring_tokens_cut_anew_each_epoch() -> None:
    asked = LanguageModelling(CHAIN, 64, 16)
    epochs = [list(asked.batches()) for _ in range(2)]
    for batches in epochs:
        assert len(batches) == asked.steps == 8
        assert sum(len(tokens) for tokens, _ in batches) == 499 // 16 - 1
        for tokens, targets in batches:
            assert torch.equal(tokens[:, 1:], targets[:, :-1])
            assert tokens.numel() <= 64
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


def test_the_perplexity_of_sentences_is_of_each_word_and_each_end() -> None:
    data = sentences()
    asked, model = LanguageModelling(data, 20, 128), Bigrams(12)
    total, count = 0.0, 0
    for row in data.test:
        row = row[row != PADDING]
        total -= float(model(row[:-1], row[1:]).sum().detach())
        count += len(row) - 1
    assert asked.measures(model)["test_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    for batch in asked.batches():
        kept = batch[1] != PADDING
        torch.testing.assert_close(asked.loss(model, batch), -model(*batch)[kept].mean())


def definition(data: str, model: dict[str, Any], train: dict[str, Any], **sections: Any) -> Experiment:
    table = {"title": "t", "data": {"name": data}, "model": model, "train": train, "run": {"seeds": 1}}
    return experiment.from_table("test", {**table, **sections}, "a test")


RUNS: dict[str, Callable[[], Experiment]] = {
    "chain": lambda: definition(
        "chain",
        {"name": "language-model", "mixer": "light", "kernels": [3], **SMALL},
        {"batch": 4096, "window": 32, "epochs": 2, "stop": "last", "average": 2, "weight_decay": 0.0},
    ),
    "chain, adaptive softmax": lambda: definition(
        "chain",
        {"name": "language-model", "mixer": "self-attention", "kernels": [3], "softmax": "adaptive", **SMALL}
        | {"cutoffs": [6], "pre_norm": True},
        {"batch": 4096, "window": 32, "epochs": 2, "stop": "last", "weight_decay": 0.0},
    ),
    "extracts": lambda: definition(
        "extracts",
        {"name": "seq2seq", "mixer": "dynamic", "encoder_kernels": [3], "decoder_kernels": [3], **SMALL},
        {"batch": 8192, "epochs": 1, "stop": "last", "weight_decay": 0.0, "label_smoothing": 0.1},
        decoding={"beams": 1},
    ),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", RUNS)
def test_a_definition_runs_to_its_result(tmp_path: Path, device: torch.device, name: str, precision: Any) -> None:
    made = RUNS[name]()
    made = replace(made, train=replace(made.train, precision=precision))
    result = run_seed(Job(made, 0, tmp_path, device=device.type))
    score, tokens, epochs = {"extracts": ("rouge_l", 46, 1)}.get(name, ("perplexity", 16, 2))
    assert result["val_loss"] < 1.02 * math.log(tokens), "no better than a guess would be, and no worse"
    assert 0 <= result[f"test_{score}"] < 100
    assert result["epochs"] == epochs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["chain", "extracts"])
def test_a_step_does_not_wait_for_the_gpu(name: str) -> None:
    made = RUNS[name]()
    loaded = load(made.data.name).to("cuda")
    model = built(made, loaded).to("cuda")
    asked = task(loaded, made.train, model, None, None, made.decoding)
    optimizer = optimizer_of(model, made.train)
    assert optimizer is not None
    batches = asked.batches()

    def step() -> None:
        optimizer.zero_grad()
        asked.loss(model, next(batches)).backward()
        optimizer.step()

    step()  # compiles the kernels
    with _no_waiting():
        step()


def test_the_chain_is_learnt_almost_as_well_as_it_can_be(tmp_path: Path) -> None:
    """A kernel of three taps sees the two symbols that matter; the best there is is known."""
    made = definition(
        "chain",
        {
            "name": "language-model",
            "mixer": "light",
            "kernels": [3],
            "channels": 32,
            "hidden": 256,
            "heads": 4,
            "dropout": 0.0,
            "weight_dropout": 0.0,
            "input_dropout": 0.0,
        },
        {
            "batch": 512,
            "window": 64,
            "epochs": 4,
            "lr": 0.01,
            "schedule": "one-cycle",
            "stop": "last",
            "weight_decay": 0.0,
        },
    )
    found = run_seed(Job(made, 0, tmp_path, device="cpu"))
    assert made_text.least_perplexity() * 0.97 < found["test_perplexity"] < made_text.least_perplexity() * 1.1


@pytest.mark.parametrize(
    ("data", "preset"),
    [
        *((data, None) for data in ("multi30k", "multi30k-english", "tiny-shakespeare", "chain", "extracts")),
        *((data, "small") for data in ("multi30k", "multi30k-english", "tiny-shakespeare")),
    ],
)
def test_siblings_differ_in_the_mixer_and_have_as_many_parameters(data: str, preset: str | None) -> None:
    counts, recipes = [], []
    for name in ("light-conv", "dynamic-conv", "self-attention"):
        made = experiment.load(f"{data}/{name}", preset=preset)
        tokens = manifest.read(data).sizes.classes
        with torch.device("meta"):
            model = MODELS[made.model.name](*[tokens] * (1 + (made.model.name == "seq2seq")), **made.model.options)
        counts.append(sum(p.numel() for p in model.parameters()))
        rest = {key: value for key, value in made.model.options.items() if key not in ("mixer", "hidden")}
        recipes.append((made.train, made.decoding, rest))
    assert max(counts) < 1.01 * min(counts)
    assert recipes[0] == recipes[1] == recipes[2]


_TRAIN = {"batch": 4096, "weight_decay": 0.0}
_SEQ2SEQ = {"name": "seq2seq", "encoder_kernels": [3], "decoder_kernels": [3], **SMALL}


@pytest.mark.parametrize(
    ("data", "train", "sections", "message"),
    [
        ("extracts", {}, {}, "needed train.batch, how many of their tokens"),
        ("extracts", {**_TRAIN, "window": 64}, {}, "train.window is for a text that runs on"),
        ("extracts", {**_TRAIN, "augment": "crop-flip"}, {}, "train.augment is for graphs or images"),
        ("extracts", {**_TRAIN, "neighbors": [3]}, {}, "train.neighbors is for graphs or images"),
        ("chain", {**_TRAIN, "stop": "best-score"}, {}, "stop is 'best-score', which wants a score that rises"),
        ("chain", {**_TRAIN, "label_smoothing": 0.1}, {}, "would change what perplexity measures"),
        ("chain", _TRAIN, {"decoding": {"beams": 2}}, r"\[decoding\] is for pairs of texts"),
        ("digits", {"window": 64}, {}, "train.window is for texts, digits has none"),
        ("digits", {"average": 2, "stop": "last"}, {}, "train.average is for texts"),
    ],
)
def test_what_a_set_of_texts_cannot_take_is_refused(data: str, train: Any, sections: Any, message: str) -> None:
    model = {"digits": {"name": "mlp"}, "chain": {"name": "language-model"}, "extracts": _SEQ2SEQ}[data]
    made = definition(data, model, train, **sections)
    with pytest.raises(ValueError, match=message):
        task(load(data), made.train, MODELS["mlp"](64, 10), None, None, made.decoding)


def test_sentences_have_no_window() -> None:
    made = definition("chain", {"name": "language-model"}, {**_TRAIN, "window": 64})
    chain: Any = load("chain")
    sentences = replace(chain, train=chain.train[None])
    assert not sentences.runs_on
    with pytest.raises(ValueError, match=r"train\.window is for a text that runs on"):
        task(sentences, made.train, MODELS["mlp"](64, 10))


def test_a_window_that_does_not_fit_is_refused() -> None:
    for tokens, window in ((500, 300), (10, 16)):
        with pytest.raises(ValueError, match=f"train.window is {window} of 500 tokens, train.batch {tokens}"):
            LanguageModelling(CHAIN, tokens, window)


def test_models_of_another_kind_are_refused(tmp_path: Path) -> None:
    for data, name, message in (
        ("chain", "seq2seq", "chain needs a model of texts, seq2seq is none: there are language-model"),
        ("extracts", "language-model", "extracts needs a model of pairs of texts"),
        ("extracts", "mlp", "extracts needs a model of pairs of texts"),
    ):
        with pytest.raises(ValueError, match=message):
            run_seed(Job(definition(data, {"name": name}, _TRAIN), 0, tmp_path, device="cpu"))
    with pytest.raises(ValueError, match=r"\[readout\] is for graphs"):
        run_seed(Job(definition("extracts", _SEQ2SEQ, _TRAIN, readout={}), 0, tmp_path, device="cpu"))


def test_options_of_texts_are_checked() -> None:
    with pytest.raises(ValueError, match="warmup is 0 with schedule = 'inverse-sqrt'"):
        Train(schedule="inverse-sqrt")
    with pytest.raises(ValueError, match=r"beta2 is 1.0, needed a number below 1"):
        Train(beta2=1.0)
    with pytest.raises(ValueError, match="average is 3, which stop = 'none' does not look at"):
        Train(average=3)
    with pytest.raises(ValueError, match="average is 4 of 3 epochs, needed no more than there are"):
        Train(average=4, epochs=3, stop="last")
    with pytest.raises(ValueError, match="beams is 0, needed at least 1"):
        Decoding(beams=0)
    for penalty in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"length_penalty is {penalty}, needed a finite number"):
            Decoding(length_penalty=penalty)
