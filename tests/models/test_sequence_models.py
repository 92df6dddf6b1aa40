"""Seq2seq and language models of each mixer: causal, blind to padding, and alike step by step."""

import pytest
import torch
from cases import close
from torch import nn

from graphattn.models.language_model import LanguageModel
from graphattn.models.seq2seq import PADDING, Seq2Seq
from graphattn.sequence import MIXERS
from graphattn.sequence.decoding import beam_search

TINY = {"channels": 8, "hidden": 16, "heads": 2}
KERNELS = {"encoder_kernels": (3, 5), "decoder_kernels": (3, 5)}
SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 4, 2, PADDING, PADDING]])
TARGET = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 4]])


def translator(mixer, **options):
    return Seq2Seq(11, 11, mixer=mixer, **TINY, **KERNELS, **options).double().eval()


def language_model(mixer, **options):
    return LanguageModel(11, mixer=mixer, **{**TINY, "kernels": (3, 5), **options}).double().eval()


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_of_the_source_changes_nothing(mixer, pre_norm):
    model = translator(mixer, pre_norm=pre_norm)
    close(model(SOURCE, TARGET)[1:], model(SOURCE[1:, :3], TARGET[1:]))


@pytest.mark.parametrize("mixer", MIXERS)
def test_no_step_sees_a_later_token(mixer):
    later = TARGET.clone()
    later[:, 2:] = 3
    translate, speak = translator(mixer), language_model(mixer)
    for before, after in ((translate(SOURCE, TARGET), translate(SOURCE, later)), (speak(TARGET), speak(later))):
        close(after[:, :2], before[:, :2])
        assert not torch.equal(after[:, 2:], before[:, 2:])


@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_steps_give_what_the_full_pass_gives_also_after_reordering(mixer):
    translate, speak, order = translator(mixer), language_model(mixer), torch.tensor([1, 0, 0])
    for state, step, whole in (
        (translate.start(SOURCE), translate.step, translate(SOURCE, TARGET)),
        (speak.start(2), speak.step, speak(TARGET)),
    ):
        close(torch.stack([step(TARGET[:, t], state) for t in range(2)], 1), whole[:, :2])
        state.reorder(order)
        close(torch.stack([step(TARGET[order, t], state) for t in range(2, 4)], 1), whole[order, 2:])


class Forgetful:
    """Decodes every prefix anew: what decoding step by step must equal."""

    def __init__(self, model, source):
        self.model, self.source, self.prefixes = model, source, torch.empty(len(source), 0, dtype=torch.int64)

    def reorder(self, sequences):
        self.source, self.prefixes = self.source[sequences], self.prefixes[sequences]

    def step(self, tokens, state):
        self.prefixes = torch.cat([self.prefixes, tokens.unsqueeze(1)], 1)
        return self.model(self.source, self.prefixes)[:, -1]


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_beam_search_step_by_step_finds_what_decoding_every_prefix_anew_finds(mixer, beams):
    model, options = translator(mixer), {"start": 1, "end": 2, "max_length": 12, "beams": beams}
    anew = Forgetful(model, SOURCE)
    expected = beam_search(anew.step, anew, 2, **options)
    found = beam_search(model.step, model.start(SOURCE), 2, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs])
    assert max(len(h.tokens) for hypotheses in found for h in hypotheses) > 5  # longer than a kernel


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_parameter_gets_a_gradient(mixer):
    for model, out in (
        ((m := translator(mixer, pre_norm=True).train()), m(SOURCE, TARGET)),
        ((m := language_model(mixer).train()), m(TARGET, TARGET.roll(-1, 1))),
    ):
        out.mul(torch.randn_like(out)).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_one_vocabulary_has_one_table_and_two_have_two():
    model = translator("light")
    assert model.source is model.target
    apart = Seq2Seq(11, 7, **TINY, **KERNELS, share_embeddings=False)
    assert apart(SOURCE, TARGET.clamp(max=6)).shape == (2, 4, 7)
    tables = [p for p in apart.parameters() if p.shape in ((11, 8), (7, 8))]
    assert len(tables) == 2


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_published_base_has_seven_blocks_of_512_channels_in_the_encoder_and_six_in_the_decoder(mixer):
    with torch.device("meta"):
        model = Seq2Seq(100, 100, mixer=mixer)
    assert (len(model.encoder), len(model.decoder)) == (7, 6)
    if mixer != "self-attention":
        kernels = [[b.mixer.convolution.kernel_size for b in blocks] for blocks in (model.encoder, model.decoder)]
        assert kernels == [[3, 7, 15, 31, 31, 31, 31], [3, 7, 15, 31, 31, 31]]
        assert {b.mixer.convolution.heads for b in model.encoder} == {8}
    assert model.encoder[0].feed_forward[0].weight.shape == (2048, 512)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_options_reach_every_block(pre_norm):
    options = {"norm": "edges", "glu": False, "pre_norm": pre_norm}
    drops = {"dropout": 0.3, "weight_dropout": 0.2, "input_dropout": 0.4}
    translate, speak = (build("light", **options, **drops) for build in (translator, language_model))
    norms = (translate.encoder_norm, translate.decoder_norm, speak.last_norm)
    assert {isinstance(norm, nn.LayerNorm) for norm in norms} == {pre_norm}
    assert translate.source.dropout.p == translate.target.dropout.p == speak.embedding.dropout.p == 0.3
    for block in (*translate.encoder, *translate.decoder, *speak.blocks):
        assert (block.pre_norm, block.dropout.p) == (pre_norm, 0.3)
        assert isinstance(block.mixer.inward, nn.Linear) and block.mixer.dropout.p == 0.4
        assert (block.mixer.convolution.norm, block.mixer.convolution.weight_dropout) == ("edges", 0.2)
    assert {block.cross.weight_dropout for block in translate.decoder} == {0.2}
    attends = (translator("self-attention", **drops).decoder[0], language_model("self-attention", **drops).blocks[0])
    assert {block.mixer.weight_dropout for block in attends} == {0.2}


@pytest.mark.parametrize(
    "softmax", [{}, {"softmax": "adaptive", "cutoffs": (3, 7), "channels": 16}], ids=["tied", "adaptive"]
)
def test_log_probabilities_sum_to_one_and_those_of_the_targets_are_among_them(softmax):
    model, targets = language_model("light", **softmax), TARGET.roll(-1, 1)
    everything = model(TARGET)
    close(everything.exp().sum(-1), torch.ones(2, 4, dtype=torch.float64))
    close(model(TARGET, targets), everything.gather(2, targets.unsqueeze(2)).squeeze(2))


def test_a_tied_softmax_scores_with_the_table_of_the_tokens():
    model = language_model("light")
    before = model(TARGET)
    with torch.no_grad():
        model.embedding.weight[10] = 0.0  # a token that is not in the input
    after = model(TARGET)
    ratio = (after - before)[..., :10]
    close(ratio, ratio[..., :1].expand_as(ratio))
    assert not torch.equal(before[..., 10], after[..., 10])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Seq2Seq(11, 7, **TINY), "11 source and 7 target tokens cannot share"),
        (lambda: Seq2Seq(11, 11, **TINY, encoder_kernels=()), "at least one kernel"),
        (lambda: LanguageModel(11, **TINY, kernels=()), "kernels is empty"),
        (lambda: LanguageModel(11, **TINY, softmax="full"), "softmax is 'full'"),
        (lambda: LanguageModel(11, **TINY, softmax="adaptive"), "'adaptive' with cutoffs"),
        (lambda: LanguageModel(11, **TINY, cutoffs=(3,)), "'tied' with cutoffs"),
        (lambda: LanguageModel(11, **TINY, softmax="adaptive", cutoffs=(7,), kernels=(3, 3, 0)), "for 0 taps"),
        (lambda: LanguageModel(11, **TINY, softmax="adaptive", cutoffs=(7, 3)), "8 channels with 2 cutoffs"),
        (lambda: LanguageModel(11, hidden=16, channels=16, softmax="adaptive", cutoffs=(7, 3)), "cutoffs"),
    ],
)
def test_models_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_training_learns_to_copy():
    """Each mixer by itself could not: the decoder has to find the source's tokens through the memory."""
    torch.manual_seed(0)
    model = Seq2Seq(
        9, 9, mixer="dynamic", channels=32, hidden=64, heads=4, encoder_kernels=(3,), decoder_kernels=(3,), dropout=0.0
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        source = torch.randint(3, 9, (32, 5))
        target = torch.cat([torch.ones(32, 1, dtype=torch.int64), source], 1)
        loss = nn.functional.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), source.flatten())
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert loss < 0.3
