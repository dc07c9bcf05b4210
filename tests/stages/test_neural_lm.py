"""Stage `neural_lm`: a recurrent language model, trained by the loop that trains recognizers."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from lightasr import schema
from lightasr.errors import LightasrError, RetryError
from lightasr.invalid import Layer, check
from lightasr.lm.neural import training
from lightasr.lm.neural.corpus import TextCorpus, collate
from lightasr.lm.neural.scoring import load_language_model, score_sentences
from lightasr.lm.neural.training import LanguageModelling
from lightasr.lm.neural.vocabulary import OTHER, Collector, Vocabulary
from lightasr.lm.report import report, report_text
from lightasr.models.language import LanguageModel
from lightasr.plan import Plan, load_plan
from lightasr.resources import LEAST_MINUTES, MOST_MINUTES, foresee
from lightasr.score.results import study_table
from lightasr.score.study import column_cells
from lightasr.score.tables import layout
from lightasr.text.tokenizers import CharTokenizer, SentencePieceTokenizer
from lightasr.train.loop import Trainer
from planning import finish, write_study

UNITS = get_args(schema.Recurrent.model_fields["unit"].annotation)
FEW = ["THE DOG BARKS", "A CAT SLEEPS ALL DAY", "WHERE IS THE TRAIN", "THE TRAIN IS LATE"]
CPU = torch.device("cpu")


def slices(unit: str = "char", recurrent: dict[str, Any] | None = None, **train: Any) -> Any:
    """A tiny model with dropout on."""
    tree = {
        "unit": unit,
        "min_count": 1,
        "recurrent": {"dim": 24, "layers": 1, "unit": "ligru", **(recurrent or {})},
        "train": {"epochs": 4, "batch_units": 60, "lr": 0.01, **train},
        "dev": "dev-clean",
    }
    return check(schema.NeuralLMSlice, tree, [Layer("test", None, tree)])


def transcripts(folder: Path, texts: list[str]) -> Path:
    """What is read of a folder of features."""
    folder.mkdir()
    cuts = [{"id": str(i), "supervisions": [{"text": text}]} for i, text in enumerate(texts)]
    lines = "".join(json.dumps(cut) + "\n" for cut in cuts)
    (folder / "cuts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def sources(folder: Path, unit: str = "char", texts: list[str] = FEW) -> dict[str, Path]:
    """Some text, transcripts of a training part and of two held-out ones, a tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text("".join(f"{text.lower()}\n" for text in texts))
    inputs = {
        "text": folder / "text.txt",
        "features/train-clean-100": transcripts(folder / "train", texts[:1]),
        "held_out/dev-clean": transcripts(folder / "dev", texts[:3]),
        "held_out/test-clean": transcripts(folder / "test", ["THE CAT IS LATE"]),
    }
    if unit != "word":
        inputs["tokenizer"] = folder / "tokenizer"
        inputs["tokenizer"].mkdir()
        pieces = unit == "piece"
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        tokenizer = SentencePieceTokenizer.train(texts * 5, "bpe", 40, alphabet) if pieces else None
        (tokenizer or CharTokenizer()).save(inputs["tokenizer"])
    return inputs


def work_folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def make_trainer(config: Any, inputs: dict[str, Path], work: Path) -> Trainer:
    return Trainer(config, inputs, work, task=LanguageModelling)


def made(tmp_path: Path, config: Any, inputs: dict[str, Path]) -> tuple[Path, dict[str, Any]]:
    """The finished directory, and what its receipt says."""
    out = work_folder(tmp_path, "out")
    (out / "config.json").write_text(config.model_dump_json())
    return out, training.run(config, inputs, out, work_folder(tmp_path, "work"))


@pytest.mark.parametrize("unit", ["word", "char", "piece"])
def test_it_learns_a_few_sentences_by_heart(unit: str, tmp_path: Path) -> None:
    inputs = sources(tmp_path / "in", unit)
    few = slices(unit, {"dim": 48, "unit": "lstm", "dropout": 0.0}, epochs=120, average=0)
    out, receipt = made(tmp_path, few, inputs)
    with (out / "curves.csv").open() as stream:
        losses = [float(row["train_loss"]) for row in csv.DictReader(stream)]
    # Four sentences, one of them twice: which one it is remains to be guessed, and nothing else.
    least = -sum(share * math.log(share) for share in (0.4, 0.2, 0.2, 0.2))
    corpus = TextCorpus(few, inputs, "test")
    symbols = sum(corpus.symbols(i) for i in range(len(corpus)))
    assert losses[0] > 1
    assert losses[-1] == pytest.approx(5 * least / symbols, abs=0.05)
    dev, test = (receipt["parts"][part] for part in ("dev-clean", "test-clean"))
    assert dev["perplexity"] < 2.5 < test["perplexity"]
    assert (dev["sentences"], dev["words"]) == (3, 12)


def test_perplexity_is_the_sum_of_what_each_unit_costs(tmp_path: Path) -> None:
    """Against a model that is run unit by unit, from its state after the one before."""
    out, receipt = made(tmp_path, slices(), sources(tmp_path / "in"))
    model, letters = load_language_model(out).model, CharTokenizer()
    vocabulary = Vocabulary.load(out)
    nats = 0.0
    for text in FEW[:3]:
        numbers = vocabulary.encode(letters.symbols[i] for i in letters.encode(text))
        state = None
        for before, after in zip([0, *numbers], [*numbers, 0], strict=True):
            x_btd = model.embed(torch.tensor([[before]]))
            y_btd, state = model.recurrent.stream(x_btd, state)
            nats -= model.project(y_btd).log_softmax(-1)[0, 0, after].item()
    dev = receipt["parts"]["dev-clean"]
    words, characters = 12 + 3, sum(len(text) + 1 for text in FEW[:3])
    assert dev["perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-4)
    assert dev["unit_perplexity"] == pytest.approx(math.exp(nats / characters), rel=1e-4)
    assert dev["bits_per_character"] == pytest.approx(nats / math.log(2) / characters, rel=1e-4)
    assert dev["unknown"] == 0


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_takes_a_step_and_mates_and_padding_change_nothing(unit: str) -> None:
    torch.manual_seed(1)
    config = slices(recurrent={"unit": unit, "layers": 2}).recurrent
    model = LanguageModel(config, 9).eval()
    sentences = [[2, 3, 4], [5], [], [8, 7, 6, 5, 4, 3, 2]]
    together = score_sentences(model, sentences, 1000, CPU)
    alone = [score_sentences(model, [sentence], 1000, CPU)[0] for sentence in sentences]
    assert together == pytest.approx(alone, abs=1e-4)

    task = LanguageModelling.__new__(LanguageModelling)
    task.device = CPU
    loss = task.loss(task.forward(model.train(), collate(sentences)), collate(sentences))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    nothing = collate(sentences)
    nothing.lengths_b.zero_()
    assert task.loss(task.forward(model, nothing), nothing) == 0


def test_a_run_in_pieces_leaves_the_same_files(tmp_path: Path) -> None:
    inputs, config = sources(tmp_path / "in"), slices()
    whole, _ = made(tmp_path, config, inputs)
    pieces, out = work_folder(tmp_path, "pieces"), work_folder(tmp_path, "b")
    for stop in (1, 5, 6):
        with pytest.raises(RetryError):
            make_trainer(config, inputs, pieces).fit(stop_at=stop)
    training.run(config, inputs, out, pieces)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, out))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_rare_words_are_one_unknown_word(tmp_path: Path) -> None:
    texts = ["A B A B", "A C", "B A D"]
    config = slices("word").model_copy(update={"min_count": 2, "vocabulary": 5})
    corpus = TextCorpus(config, sources(tmp_path, "word", texts), "test")
    assert corpus.vocabulary.units == ["<s>", "<unk>", "A", "B"]
    assert corpus.sentences[0].tolist() == [2, 3, 2, 3]
    assert corpus.sentences[1].tolist() == [2, OTHER]
    assert corpus.held_out["dev-clean"].unknown == 2
    assert corpus.held_out["test-clean"].sentences == [[OTHER] * 4]


def test_the_most_frequent_words_are_known() -> None:
    collected = Collector()
    for sentence in ("B A", "C A", "A B"):
        collected.add(sentence.split())
    assert collected.frequent(2, 1) == ["A", "B"]
    assert collected.frequent(9, 3) == ["A"]


def test_sentences_that_cannot_be_trained_on_are_counted(tmp_path: Path) -> None:
    texts = [*FEW, "CAFÉ", "A SENTENCE THAT IS LONGER THAN ALL OTHERS"]
    corpus = TextCorpus(slices(max_units=30), sources(tmp_path, texts=texts), "test")
    assert corpus.set_aside == {
        "characters outside the alphabet": 1,
        "longer than neural_lm.train.max_units": 1,
    }
    assert len(corpus) == 5


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        LightasrError, match=r"^test: nothing to learn from: .*2 characters outside"
    ):
        TextCorpus(slices(), sources(tmp_path, texts=["É"]), "test")


def test_a_directory_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="no finished language model"):
        load_language_model(tmp_path)
    out, _ = made(tmp_path, slices(epochs=1), sources(tmp_path / "in"))
    (out / "units.txt").write_text("A\nB\n")
    with pytest.raises(LightasrError, match=r"units\.txt: not the units of a language model"):
        load_language_model(out)


def test_a_model_that_reads_backward_is_refused() -> None:
    with pytest.raises(LightasrError, match=r"recurrent\.bidirectional"):
        slices(recurrent={"bidirectional": True})


def test_a_word_is_scored_as_it_is_written(tmp_path: Path) -> None:
    """A likely sentence is likelier than its words in another order; what is known sums to one."""
    out, _ = made(tmp_path, slices("word", epochs=60), sources(tmp_path / "in", "word"))
    language_model = load_language_model(out)
    right, wrong = language_model.log_probabilities(["THE TRAIN IS LATE", "LATE IS TRAIN THE"])
    assert right > wrong
    logp_btv = language_model.model(torch.tensor([[0]]), torch.tensor([1]))
    assert logp_btv.exp().sum().item() == pytest.approx(1, abs=1e-5)


# --- in the plan ----------------------------------------------------------------------------------

COLUMNS = ["ppl/test-clean", "bpc/*", "wer/test-clean/rescored", "lm_params"]


def planned(project: Path, **keys: Any) -> Plan:
    write_study(project, **keys)
    return load_plan(project, "smoke", ["mine"])


def test_without_one_there_is_no_job_and_no_key_changes(project: Path) -> None:
    plan = planned(project, experiments={"none": {"neural_lm": None}, "plain": {}})
    assert plan.of_stage("neural_lm") == []
    none, plain = (experiment.runs[0] for experiment in plan.experiments)
    assert none.jobs == plain.jobs
    assert "neural" not in json.dumps([job.config for job in plan.jobs.values()])
    assert "neural_lm" not in plain.decode.inputs


def test_rows_that_agree_on_it_share_a_job_for_each_seed(project: Path) -> None:
    (project / "config" / "scales" / "smoke.yaml").write_text("train: {epochs: 2}\n")
    plan = planned(
        project,
        seeds=[1, 2],
        base={"neural_lm": {"recurrent": {"unit": "gru"}}},
        experiments={
            "a": {},
            "b": {"model": {"encoder": {"unit": "gru"}}},
            "c": {"neural_lm": {"recurrent": {"dim": 24}}},
            "d": {"neural_lm": None},
        },
    )
    a, b, c, d = plan.experiments
    assert [run.neural_lm for run in a.runs] == [run.neural_lm for run in b.runs]
    assert len(plan.of_stage("neural_lm")) == 4
    assert {job.label for job in plan.of_stage("neural_lm")} == {"char-gru"}
    assert a.runs[0].train == c.runs[0].train == d.runs[0].train
    assert len({run.decode.key for run in (a.runs[0], c.runs[0], d.runs[0])}) == 3
    inputs = a.runs[0].neural_lm.inputs  # type: ignore[union-attr]
    parts = ("dev-clean", "test-clean", "test-other")
    assert set(inputs) == {
        *("text", "tokenizer", "features/train-clean-100"),
        *(f"held_out/{part}" for part in parts),
    }


def test_a_greedy_experiment_has_one_that_its_decoding_does_not_read(project: Path) -> None:
    entry = {"neural_lm": {"unit": "word"}, "decode": {"decoders": ["greedy"]}}
    plan = planned(project, experiments={"plain": {**entry, "neural_lm": None}, "row": entry})
    plain, row = (experiment.runs[0] for experiment in plan.experiments)
    assert plain.decode is row.decode
    (job,) = plan.of_stage("neural_lm")
    assert row.neural_lm is job
    assert job.receipt in plan.studies[0].receipts
    before = plan.studies[0].key
    other = {**entry, "neural_lm": {"unit": "word", "min_count": 1}}
    assert planned(project, experiments={"plain": {}, "row": other}).studies[0].key != before


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"neural_lm": {"unit": "piece"}}, "mine: neural_lm.unit: 'piece', but the symbols"),
        ({"neural_lm": {"train": {"seed": 2}}}, "neural_lm.train.seed: set `seeds`"),
        (
            {"neural_lm": {"transcripts": False}, "corpus": {"text": None}},
            "corpus.text: null, and neural_lm.transcripts is off",
        ),
        (
            {"neural_lm": {"recurrent": {"unit": "grü"}}},
            "neural_lm.recurrent.unit: unknown unit 'grü'; did you mean 'gru'?",
        ),
        ({"neural_lm": {"layer": 2}}, "neural_lm.layer: unknown key"),
    ],
)
def test_a_mistake_names_its_key(project: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(LightasrError, match=re.escape(message.removeprefix("mine: "))):
        planned(project, experiments={"mine": entry})


def test_more_text_needs_more_memory_and_no_more_time_than_sites_allow(project: Path) -> None:
    write_study(project, base={"neural_lm": {}})
    needs = []
    for scale in ("smoke", "sample", "librispeech-960"):
        (job, *_) = load_plan(project, scale, ["mine"]).of_stage("neural_lm")
        needs.append(foresee(job, project))
    assert needs == sorted(needs)
    assert 2000 <= needs[0].mem_mb < needs[1].mem_mb < needs[2].mem_mb <= 64_000
    assert LEAST_MINUTES <= needs[0].minutes < needs[2].minutes == MOST_MINUTES


def test_its_numbers_are_columns_blank_where_there_is_none(project: Path) -> None:
    plan = planned(project, columns=COLUMNS, experiments={"row": {"neural_lm": {}}, "none": {}})
    job = plan.of_stage("neural_lm")[0]
    finish(plan, [job])
    parts = {"test-clean": {"perplexity": 12.3456, "bits_per_character": 1.5}}
    receipt = {"source_digest": "1", "params": 2_000_000, "parts": parts}
    (project / job.receipt).write_text(json.dumps(receipt))
    table = study_table(plan, plan.studies[0])
    assert table.columns == (COLUMNS[0], "bpc/test-clean", "bpc/test-other", *COLUMNS[2:])
    means = [[cell.mean for cell in column_cells(table, name)] for name in table.columns]
    assert means == [[12.3456, None], [1.5, None], [None, None], [None, None], [2e6, None]]
    text = layout(table)
    assert text.header[1:] == [
        "perplexity test-clean",
        "bits/character test-clean",
        "bits/character test-other",
        "WER (%) test-clean rescored",
        "LM params (M)",
    ]
    assert [str(cell) for cell in text.body[0][1:]] == ["12.3", "1.50", "", "", "2.00"]


def test_the_report_of_language_models_lists_it(project: Path) -> None:
    plan = planned(project, base={"neural_lm": {}}, experiments={"row": {}})
    (job,), (ngram,) = plan.of_stage("neural_lm"), plan.of_stage("lm")
    assert report(plan).missing == [ngram.id, job.id]
    finish(plan, [job])
    score = {"sentences": 10, "words": 90, "units": 500, "unknown": 5, "perplexity": 20.25}
    score |= {"unit_perplexity": 2.5, "bits_per_character": 1.25}
    receipt = {"units": 29, "params": 2_345_678, "seconds": 61.2, "parts": {"dev-clean": score}}
    (project / job.receipt).write_text(json.dumps(receipt))
    assert f"""
{job.id}
  used by mine/row
  3 x 192 lstm over 29 letters, 2.35 M parameters, made in 61.2 s
  part       sentences  letters  unknown   ppl  ppl word  bits/char
  dev-clean         10      500    1.00%  2.50     20.25      1.250
""" in report_text(report(plan))
