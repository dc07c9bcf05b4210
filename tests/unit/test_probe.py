"""Probes: what they are asked, that they are the optimum, how they are scored, what is written."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightasr import schema
from lightasr.data import features
from lightasr.data.batches import Utterance
from lightasr.data.sample.config import SampleConfig
from lightasr.data.sample.plan import TEST_CLEAN, TRAIN, plan_part
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.asr import AcousticModel, save_model
from lightasr.models.pretrained import PretrainingModel
from lightasr.probe import layers, linear
from lightasr.probe.figure import Row, figure
from lightasr.probe.layers import best_layer, load_frozen, mean_and_max
from lightasr.probe.scores import accuracy, average_precision, mean_average_precision
from lightasr.probe.tasks import ask, evenly, varies
from lightasr.probe.themes import theme_of
from lightasr.schema import ProbeSlice
from lightasr.score import early
from lightasr.score.early import rank_correlation
from lightasr.text.tokenizers import NO_TOKENS
from tones import chapter, sentences, write_archive

LAYERS = 3
TOLD = {"dev_loss": 3.5, "dev_accuracy": 0.25, "dev_codes": 12.0, "dev_guesses": 9.0}
PARTS = {
    "features": {"mels": 16},
    "frontend": {"name": "conv2d", "channels": [4, 4]},
    "encoder": {"name": "transformer", "dim": 16, "layers": LAYERS, "feedforward": 32},
}


def spoken(name: str, speaker: str, text: str) -> Utterance:
    return Utterance(name, speaker, 1.0, 100, text, NO_TOKENS, Path(), "", 1.0)


def corpus(part: str, seed: int) -> list[Utterance]:
    """What is said in a part of the built-in corpus."""
    return [
        spoken(name, str(speaker.number), text)
        for speaker in plan_part(part, SampleConfig(seed=seed))
        for name, text in speaker.utterances()
    ]


@pytest.fixture
def seed() -> int:
    return int(np.random.default_rng().integers(1 << 30))


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


# --- what is asked ------------------------------------------------------------------------------


def test_a_sentence_tells_its_theme_or_none(seed: int) -> None:
    told = 0
    dialogues = [
        call.dialogue
        for speaker in plan_part(TRAIN, SampleConfig(seed=seed))
        for call in speaker.calls
    ]
    for dialogue in dialogues:
        found = [theme_of(sentence) for sentence in dialogue.sentences]
        assert set(found) <= {None, dialogue.theme}
        told += sum(theme is not None for theme in found[1:-1])
    assert told >= 0.99 * sum(len(dialogue.sentences) - 2 for dialogue in dialogues)


@pytest.mark.parametrize(
    "text", ["", "HELLO THIS IS MISTER BAKER", "HOW DO I GET FROM HERE", "THE CAT SAT"]
)
def test_other_sentences_tell_no_theme(text: str) -> None:
    assert theme_of(text) is None


def test_speakers_are_told_by_other_utterances_of_theirs(seed: int) -> None:
    learnt = corpus(TRAIN, seed)
    question = ask("speaker", learnt, {})
    fit, tune, test = question.fit, question.tune, question.tests["training"]
    assert sorted([*fit.at, *tune.at, *test.at]) == list(range(len(learnt)))
    for rows in (fit, tune, test):
        assert set(rows.labels) == set(range(len(question.names)))
        for at, label in zip(rows.at, rows.labels, strict=True):
            assert learnt[at].speaker == question.names[label]


def test_who_learns_from_whom_does_not_depend_on_the_order(
    seed: int, rng: np.random.Generator
) -> None:
    learnt = corpus(TRAIN, seed)
    mixed = [learnt[i] for i in rng.permutation(len(learnt))]
    for task in ("speaker", "characters", "theme"):
        a, b = ask(task, learnt, {"t": learnt}), ask(task, mixed, {"t": learnt})
        assert {learnt[at].id for at in a.fit.at} == {mixed[at].id for at in b.fit.at}
        assert {learnt[at].id for at in a.tune.at} == {mixed[at].id for at in b.tune.at}


@pytest.mark.parametrize("task", ["theme", "characters"])
def test_the_penalty_and_the_score_are_of_other_speakers(task: str, seed: int) -> None:
    learnt, asked = corpus(TRAIN, seed), corpus(TEST_CLEAN, seed)
    question = ask(task, learnt, {TEST_CLEAN: asked})  # type: ignore[arg-type]
    everyone = [*learnt, *asked]
    of = [
        {everyone[at].speaker for at in rows.at}
        for rows in (question.fit, question.tune, question.tests[TEST_CLEAN])
    ]
    assert all(of)
    assert not of[0] & of[1]
    assert not (of[0] | of[1]) & of[2]
    assert of[2] <= {utterance.speaker for utterance in asked}


def test_themes_and_letters_are_those_of_the_transcripts(seed: int) -> None:
    learnt, asked = corpus(TRAIN, seed), corpus(TEST_CLEAN, seed)
    everyone = [*learnt, *asked]
    theme = ask("theme", learnt, {TEST_CLEAN: asked})
    letters = ask("characters", learnt, {TEST_CLEAN: asked})
    for rows in (theme.learnt, theme.tests[TEST_CLEAN]):
        for at, label in zip(rows.at, rows.labels, strict=True):
            assert theme_of(everyone[at].text) == theme.names[label]
    for rows in (letters.learnt, letters.tests[TEST_CLEAN]):
        for at, said in zip(rows.at, rows.labels, strict=True):
            assert [name in everyone[at].text for name in letters.names] == said.tolist()
    assert " " not in letters.names
    assert "'" not in letters.names


def test_what_cannot_be_asked_is_told() -> None:
    alone = [spoken(f"a-{i}", "a", "THE CAT SAT") for i in range(8)]
    two = [*alone, spoken("b-0", "b", "THE CAT SAT")]
    with pytest.raises(LightasrError, match=r"tasks: speaker: 1 speakers"):
        ask("speaker", two, {})
    with pytest.raises(LightasrError, match=r"tasks: theme: none of 9"):
        ask("theme", two, {})
    with pytest.raises(LightasrError, match=r"tasks: characters: no letter"):
        ask("characters", two, {})
    with pytest.raises(LightasrError, match=r"two are needed"):
        ask("characters", alone, {})


def test_a_few_utterances_are_even_over_speakers_and_among_more(rng: np.random.Generator) -> None:
    many = [spoken(f"{s}-{i}", str(s), "A") for s in range(5) for i in range(rng.integers(9, 12))]
    few = evenly(many, 15)
    assert evenly(many, 25)[:15] == few
    assert np.bincount([int(each.speaker) for each in few]).tolist() == [3] * 5
    assert sorted(each.id for each in evenly(many, 1000)) == sorted(each.id for each in many)


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rng")
def test_padding_reaches_neither_the_mean_nor_the_maximum() -> None:
    x_btd = torch.randn(3, 9, 4) - 5
    lengths = [9, 4, 1]
    found = mean_and_max(x_btd, torch.tensor(lengths))
    for x_td, length, row in zip(x_btd, lengths, found, strict=True):
        real = x_td[:length]
        torch.testing.assert_close(row, torch.cat([real.mean(0), real.amax(0)]))


# --- probes -------------------------------------------------------------------------------------


def examples(rows: int = 60, dim: int = 7, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Vectors that tell their classes, but not surely."""
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, dim, dtype=torch.float64)
    return centres[labels] + torch.randn(rows, dim, dtype=torch.float64), labels


@pytest.mark.usefixtures("rng")
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("l2", [1e-3, 1.0])
def test_a_probe_is_the_optimum(several: bool, l2: float) -> None:
    x_nd, labels = examples()
    if several:
        labels = torch.stack([labels == 0, labels == 1], dim=1)
    probe = linear.fit(x_nd, labels, l2)
    weight_dc, bias_c = probe.weight_dc.requires_grad_(), probe.bias_c.requires_grad_()
    loss = linear.nats(probe.scores(x_nd), labels) + l2 / 2 * (weight_dc**2).sum()
    for gradient in torch.autograd.grad(loss, [weight_dc, bias_c]):
        assert gradient.abs().max() < 1e-6


@pytest.mark.usefixtures("rng")
def test_a_probe_does_not_depend_on_where_its_search_starts() -> None:
    x_nd, labels = examples()
    cold = linear.fit(x_nd, labels, 1e-2)
    warm = linear.fit(x_nd, labels, 1e-2, start=linear.fit(x_nd, labels, 10.0))
    torch.testing.assert_close(warm.scores(x_nd), cold.scores(x_nd), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("rng")
def test_a_search_ends_where_rounding_is_all_that_is_left_to_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gradient may stay above the bound that is asked for, since float64 has no better."""
    x_nd, labels = examples()
    found = linear.fit(x_nd, labels, 1e-2)
    monkeypatch.setattr(linear, "SMALL_GRADIENT", 0.0)
    stalled = linear.fit(x_nd, labels, 1e-2)
    torch.testing.assert_close(stalled.scores(x_nd), found.scores(x_nd), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("rng")
def test_a_search_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_STEPS", 3)
    with pytest.raises(LightasrError, match=r"probe\.l2: 0\.001: no optimum after 3 steps"):
        linear.fit(*examples(), 1e-3)


@pytest.mark.usefixtures("rng")
def test_scale_shift_and_constants_tell_a_probe_nothing() -> None:
    x_nd, labels = examples()
    scaled_nd = torch.cat([x_nd * torch.rand(7).double() * 100 - 3, torch.full((60, 1), 0.3)], 1)
    scaled_nd[:, -1] *= 1 + 1e-7 * torch.randn(60)
    torch.testing.assert_close(
        linear.fit(scaled_nd, labels, 0.1).scores(scaled_nd),
        linear.fit(x_nd, labels, 0.1).scores(x_nd),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.usefixtures("rng")
def test_each_of_several_labels_is_probed_as_if_alone() -> None:
    x_nd, labels = examples()
    said_nc = torch.stack([labels == 0, torch.rand(60) < 0.5, labels == 2], dim=1)
    together = linear.fit(x_nd, said_nc, 0.1).scores(x_nd)
    alone = [linear.fit(x_nd, said_nc[:, [c]], 0.1).scores(x_nd) for c in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("rng")
def test_what_does_not_hold_for_others_is_penalised_most() -> None:
    tried = (1e-4, 1e-2, 1.0, 100.0)
    x_nd, labels = examples(40, dim=30)
    assert linear.strength(x_nd, labels, x_nd, (labels + 1) % 3, tried).l2 == 100.0
    clear_nd = 20 * torch.eye(3, dtype=torch.float64)[labels] + 0.1 * x_nd[:, :3]
    assert linear.strength(clear_nd[:20], labels[:20], clear_nd[20:], labels[20:], tried).l2 == 1e-4


# --- scores -------------------------------------------------------------------------------------


def test_average_precision_is_the_mean_precision_at_each_hit(rng: np.random.Generator) -> None:
    scores, said = rng.standard_normal(30), rng.random(30) < 0.4
    order = np.argsort(-scores)
    expected = np.mean([said[order[: i + 1]].mean() for i in range(30) if said[order[i]]])
    found = average_precision(scores, said, np.ones((1, 30), np.int64))
    assert found == pytest.approx([expected])


def test_equal_scores_say_nothing(rng: np.random.Generator) -> None:
    said = rng.random(40) < 0.3
    found = average_precision(np.zeros(40), said, np.ones((1, 40), np.int64))
    assert found == pytest.approx([said.mean()])


def test_a_weight_is_so_many_copies_of_an_utterance(rng: np.random.Generator) -> None:
    scores, said = rng.integers(0, 12, 20).astype(float), rng.random(20) < 0.5
    weights = rng.integers(0, 3, (5, 20))
    for row, found in zip(weights, average_precision(scores, said, weights), strict=True):
        copies = np.repeat(np.arange(20), row)
        ones = np.ones((1, len(copies)), np.int64)
        expected = average_precision(scores[copies], said[copies], ones)
        assert found == pytest.approx(expected[0], nan_ok=True)


def test_intervals_are_over_speakers(rng: np.random.Generator) -> None:
    """All of a speaker's utterances at once: as many utterances say less than if each had one."""
    right = np.repeat(rng.permutation(10) < 6, 20)
    few = accuracy(right, np.repeat(list("abcdefghij"), 20).tolist(), 500, 1)
    many = accuracy(right, [str(i) for i in range(200)], 500, 1)
    assert few.value == many.value == 0.6
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert 0 <= few.low < many.low < 0.6 < few.high <= 1


def test_one_speaker_has_no_interval(rng: np.random.Generator) -> None:
    right = np.array([True, False, True, True])
    assert accuracy(right, ["a"] * 4, 500, 1) == (0.75, None, None)
    said = np.array([[True], [False], [True], [True]])
    found = mean_average_precision(said.astype(float), said, ["a"] * 4, 500, 1)
    assert found == (1.0, None, None)


def test_the_mean_is_over_letters_and_its_interval_holds_it(rng: np.random.Generator) -> None:
    said = rng.random((60, 4)) < [0.2, 0.5, 0.8, 0.5]
    scores = said + rng.standard_normal((60, 4))
    found = mean_average_precision(scores, said, list("abcdef") * 10, 500, 1)
    ones = np.ones((1, 60), np.int64)
    each = [average_precision(scores[:, c], said[:, c], ones)[0] for c in range(4)]
    assert found.value == pytest.approx(np.mean(each))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert varies(said).all()


# --- statistics ---------------------------------------------------------------------------------


def test_a_statistic_that_orders_as_error_rates_do_correlates_fully(
    rng: np.random.Generator,
) -> None:
    wers = rng.random(5).tolist()
    found = {
        "same": [wer**3 for wer in wers],
        "reverse": [-wer for wer in wers],
        "constant": [2.0] * 5,
    }
    by_name = {each.statistic: each for each in rank_correlation(found, wers)}
    assert by_name["same"].rho == pytest.approx(1)
    assert by_name["reverse"].rho == pytest.approx(-1)
    assert by_name["same"].p == by_name["reverse"].p == pytest.approx(2 / 120)
    assert by_name["same"].p_holm == pytest.approx(6 / 120)
    assert by_name["constant"][1:] == (None, 1.0, 1.0)


def test_correlation_is_spearmans_with_the_share_of_orders(rng: np.random.Generator) -> None:
    wers, values = rng.random(6), rng.random(6)

    def rho(a: np.ndarray, b: np.ndarray) -> float:
        return 1 - 6 * ((a.argsort().argsort() - b.argsort().argsort()) ** 2).sum() / (6 * 35)

    others = [rho(values, np.array(order)) for order in permutations(wers)]
    share = np.mean(np.abs(others) >= abs(rho(values, wers)) - 1e-9)
    (found,) = rank_correlation({"it": values.tolist()}, wers.tolist())
    assert (found.rho, found.p) == (pytest.approx(rho(values, wers)), pytest.approx(share))


def test_orders_at_random_say_what_all_of_them_say(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    wers, values = rng.random(7).tolist(), {"it": rng.integers(0, 4, 7).tolist()}
    (exact,) = rank_correlation(values, wers)
    monkeypatch.setattr(early, "EXACT", 0)
    (drawn,) = rank_correlation(values, wers)
    assert drawn.rho == exact.rho
    assert drawn.p == pytest.approx(exact.p, abs=0.02)


def test_equal_values_share_a_rank() -> None:
    (found,) = rank_correlation({"it": [1, 1, 2, 2]}, [5, 6, 7, 8])
    assert found.rho == pytest.approx(0.8**0.5)


def test_too_little_to_correlate_is_told() -> None:
    with pytest.raises(LightasrError, match="2 pretrainings"):
        rank_correlation({"it": [1, 2]}, [1, 2])
    with pytest.raises(LightasrError, match="2 values of 'it', but 3 WERs"):
        rank_correlation({"it": [1, 2]}, [1, 2, 3])
    with pytest.raises(LightasrError, match="numbers"):
        rank_correlation({"it": [1, 2, float("nan")]}, [1, 2, 3])


# --- the picture --------------------------------------------------------------------------------


def test_each_task_has_its_panel_and_each_part_its_curve() -> None:
    rows = [
        Row(task, part, layer, "accuracy", 0.5, 0.4, 0.6, 0.3, 0.1, 1.0, 2.0)
        for task in ("speaker", "theme")
        for part in ("clean", "other")
        for layer in range(4)
    ]
    svg = figure([*rows, rows[0]._replace(task="alone", low=None, high=None)])
    for text in ("speaker: accuracy", "theme: accuracy", "alone: accuracy", "clean", "other"):
        assert f">{text}</text>" in svg


def test_the_best_layer_is_chosen_without_a_look_at_the_test_parts() -> None:
    def row(layer: int, accuracy: float, nats: float) -> Row:
        return Row("theme", "clean", layer, "accuracy", accuracy, None, None, 0.3, 0.1, 1.0, nats)

    rows = [row(0, 0.9, 2.5), row(1, 0.5, 1.5), row(2, 0.7, 1.5)]
    assert best_layer("theme", [*rows, rows[0]._replace(task="speaker", nats=0.5)]) == 1


# --- the stage ----------------------------------------------------------------------------------


def typed(section: type[schema.AnySection], tree: dict[str, Any]) -> schema.AnySection:
    tree = schema.spelt_out(tree)
    return check(section, tree, [Layer("test", None, tree)])


def pretrained(folder: Path, normalize: str = "global") -> PretrainingModel:
    """A model that has learnt nothing yet, where a pretraining would leave it."""
    slices = typed(
        schema.PretrainSlice,
        {
            **PARTS,
            "normalize": normalize,
            "objective": {"name": "bestrq", "codes": 16},
            "train": {},
            "collapse": {},
            "dev": "dev-clean",
        },
    )
    model = PretrainingModel(slices).eval()
    folder.mkdir()
    save_model(model, folder / "model.safetensors")
    (folder / "config.json").write_text(slices.model_dump_json())
    (folder / "run.json").write_text(json.dumps(TOLD))
    return model


def trained(folder: Path) -> AcousticModel:
    """The same of a training."""
    parts = dict(PARTS)
    read = parts.pop("features")
    slices = typed(
        schema.TrainSlice,
        {"features": read, "tokenizer": {}, "model": parts, "train": {}, "dev": "dev-clean"},
    )
    model = AcousticModel(slices.model, slices.features.dim, 7).eval()
    folder.mkdir()
    save_model(model, folder / "model.safetensors")
    (folder / "config.json").write_text(slices.model_dump_json())
    return model


def slices(**keys: Any) -> ProbeSlice:
    tree = {
        "tasks": ["speaker", "characters"],
        "train": ["train-clean-100"],
        "test": ["dev-clean"],
        "l2": [0.01, 1.0],
        "samples": 100,
        **keys,
    }
    return typed(ProbeSlice, tree)


def probed(config: ProbeSlice, inputs: dict[str, Path], folder: Path) -> dict[str, Any]:
    (out := folder / "out").mkdir()
    (work := folder / "work").mkdir()
    return layers.run(config, inputs, out, work)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the stage reads: 24 utterances of 3 speakers, 12 of two others, a pretrained model."""
    root = tmp_path_factory.mktemp("probe")
    found = {"pretrain": root / "pretrained"}
    for part, speakers, count in (("train-clean-100", (1, 2, 3), 8), ("dev-clean", (4, 5), 6)):
        files: dict[str, bytes] = {}
        for speaker in speakers:
            files |= chapter(part, speaker, sentences(count, seed=speaker))
        archive = write_archive(root / "archive" / part / f"{part}.tar.gz", files)
        found[f"features/{part}"] = out = root / part
        out.mkdir()
        config = schema.FeaturesSlice(part=part, mels=16)
        features.run(config, {"archive": archive.parent}, out, root)
    torch.manual_seed(1)
    pretrained(found["pretrain"])
    return found


@pytest.fixture(scope="module")
def results(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    receipt = probed(slices(), inputs, folder)
    assert receipt["layers"] == LAYERS + 1
    return folder / "out"


def test_each_task_is_asked_of_each_layer(results: Path) -> None:
    rows = json.loads((results / "probes.json").read_text())["probes"]
    asked = [(row["task"], row["part"], row["layer"]) for row in rows]
    parts = {"speaker": "training", "characters": "dev-clean"}
    assert asked == [(task, parts[task], n) for task in parts for n in range(LAYERS + 1)]
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert row["low"] is None or row["low"] <= row["accuracy"] <= row["high"]
    assert "characters: mean average precision" in (results / "probes.svg").read_text()


def test_letters_that_are_pitches_are_heard(results: Path) -> None:
    """In raw features, and in what the front end makes of them; by chance they are not."""
    rows = json.loads((results / "probes.json").read_text())["probes"]
    first = next(row for row in rows if row["task"] == "characters")
    assert first["baseline"] > 0.9
    assert first["accuracy"] > first["shuffled"] + 0.05


def test_statistics_are_of_each_layer_and_of_the_receipt(results: Path) -> None:
    found = json.loads((results / "early.json").read_text())
    ranks = [found.pop(f"rank_{layer}") for layer in range(LAYERS + 1)]
    assert all(rank >= 1 for rank in ranks)
    assert max(ranks[1:]) <= 16
    assert found == {"masked_loss": 3.5, "masked_accuracy": 0.25, "codes": 12.0, "guesses": 9.0}


def test_a_second_time_gives_the_same(
    results: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    probed(slices(), inputs, tmp_path)
    for name in ("probes.json", "probes.svg", "early.json"):
        assert (tmp_path / "out" / name).read_bytes() == (results / name).read_bytes()


def test_states_are_those_of_the_model(tmp_path: Path) -> None:
    x_btf, lengths_b = torch.randn(2, 40, 16), torch.tensor([40, 23])
    models = {"train": trained(tmp_path / "t"), "pretrain": pretrained(tmp_path / "p", "utterance")}
    for name, model in models.items():
        frozen, directory = load_frozen({name: tmp_path / name[0]})
        first, *states = frozen.states(x_btf, lengths_b)[0]
        with torch.no_grad():
            front, frames_b = model.frontend(model.normalizer(x_btf, lengths_b), lengths_b)
            last, _ = model.encoder(front, frames_b)
        assert len(states) == LAYERS
        assert directory == {"pretrain": tmp_path / "p"}.get(name)
        torch.testing.assert_close(first.cpu(), front)
        torch.testing.assert_close(states[-1].cpu(), last)


def test_what_is_missing_is_told(inputs: dict[str, Path], tmp_path: Path) -> None:
    for number, (config, given, message) in enumerate(
        [
            (slices(test=["test-other"]), inputs, "no 'features/test-other'"),
            (slices(tasks=["theme"]), inputs, "only that corpus has themes"),
            (slices(), {**inputs, "train": inputs["pretrain"]}, "pretrain and train"),
            (slices(), {**inputs, "pretrain": tmp_path}, "config.json: not readable"),
        ]
    ):
        (folder := tmp_path / str(number)).mkdir()
        with pytest.raises(LightasrError, match=message):
            probed(config, given, folder)


def test_a_receipt_of_something_else_is_told(inputs: dict[str, Path], tmp_path: Path) -> None:
    pretrained(tmp_path / "p")
    (tmp_path / "p" / "run.json").write_text("{}")
    with pytest.raises(LightasrError, match=r"run\.json: not the receipt of a pretraining"):
        probed(slices(tasks=["speaker"]), {**inputs, "pretrain": tmp_path / "p"}, tmp_path)
