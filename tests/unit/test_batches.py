"""Utterances as they are read, and batch plans: all once, none too large, fair to every process."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lhotse.features.io import LilcomChunkyWriter

from lightasr import schema
from lightasr.bench.data import cut_record
from lightasr.data.batches import (
    FeatureStore,
    Utterance,
    deal,
    plan_batches,
    plan_epoch,
    read_held_out,
    read_utterances,
)
from lightasr.errors import LightasrError
from lightasr.text.tokenizers import CharTokenizer, SentencePieceTokenizer

SECONDS = st.lists(st.floats(0.5, 20), min_size=1, max_size=60)
MELS = 4


# --- plans --------------------------------------------------------------------------------------


@given(SECONDS, st.floats(5, 60), st.integers(0, 9))
def test_every_utterance_is_in_one_batch_and_padding_counts(
    seconds: list[float], batch_seconds: float, epoch: int
) -> None:
    for batches in (
        plan_batches(seconds, batch_seconds),
        plan_epoch(seconds, batch_seconds, seed=1, epoch=epoch),
    ):
        assert sorted(i for batch in batches for i in batch) == list(range(len(seconds)))
        for batch in batches:
            cost = len(batch) * max(seconds[i] for i in batch)
            assert cost <= batch_seconds or len(batch) == 1


def test_an_epoch_is_the_same_for_its_seed_and_another_for_the_next() -> None:
    seconds = [1 + i % 17 / 3 for i in range(100)]
    assert plan_epoch(seconds, 30, 1, 4) == plan_epoch(seconds, 30, 1, 4)
    assert plan_epoch(seconds, 30, 1, 4) != plan_epoch(seconds, 30, 1, 5)
    assert plan_epoch(seconds, 30, 1, 4) != plan_epoch(seconds, 30, 2, 4)


def test_batches_group_utterances_of_like_length() -> None:
    seconds = [float(1 + i % 20) for i in range(400)]
    batches = plan_epoch(seconds, 60, seed=1, epoch=0)
    padded = sum(len(batch) * max(seconds[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(seconds)


@given(SECONDS, st.integers(1, 9))
def test_a_batch_is_dealt_in_parts_of_about_equal_size(seconds: list[float], parts: int) -> None:
    dealt = deal(range(len(seconds)), seconds, parts)
    assert sorted(i for part in dealt for i in part) == list(range(len(seconds)))
    sizes = [len(part) for part in dealt]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


def test_the_parts_with_longer_utterances_have_fewer() -> None:
    """What a process computes is its longest utterance times their number: 14 x 14, or 13 x 15.

    Dealt out in turns, one process would have 14 x 15: 9 % more than the mean.
    """
    seconds = np.linspace(13, 15, 110).tolist()
    costs = [len(part) * max(seconds[i] for i in part) for part in deal(range(110), seconds, 8)]
    assert max(costs) < 1.06 * sum(seconds) / 8


# --- reading ------------------------------------------------------------------------------------


def write_part(folder: Path, utterances: list[tuple[str, str, str, int]]) -> Path:
    """A features directory: id, speaker, text and frames of each utterance; `-x0.9` is slower."""
    folder.mkdir()
    random = np.random.default_rng(7)
    with (
        LilcomChunkyWriter(str(folder / "feats")) as storage,
        gzip.open(folder / "cuts.jsonl.gz", "wt") as manifest,
    ):
        for name, speaker, text, frames in utterances:
            features = random.normal(int(speaker), 2, (frames, MELS)).astype(np.float32)
            key = storage.write(name, features)
            cut = cut_record(name, speaker, frames / 100, text, frames, key)
            if name.endswith("-x0.9"):
                cut["custom"]["speed"] = 0.9
            manifest.write(json.dumps(cut) + "\n")
    return folder


def read(*folders: Path) -> list[Utterance]:
    return read_utterances(folders, schema.Text(), CharTokenizer())


def test_utterances_come_in_the_order_of_ids_with_their_text_normalised(tmp_path: Path) -> None:
    one = write_part(tmp_path / "one", [("b", "7", "So, what?", 20), ("a", "8", "YES", 30)])
    two = write_part(tmp_path / "two", [("aa-x0.9", "7", "NO", 25)])
    found = read(one, two)
    assert [(u.id, u.speaker, u.text, u.seconds, u.frames, u.speed) for u in found] == [
        ("a", "8", "YES", 0.3, 30, 1.0),
        ("aa-x0.9", "7", "NO", 0.25, 25, 0.9),
        ("b", "7", "SO WHAT", 0.2, 20, 1.0),
    ]
    assert CharTokenizer().decode(found[2].tokens) == "SO WHAT"


def test_many_texts_are_encoded_as_each_of_them() -> None:
    texts = ["IT'S A TEXT", "", "A", "ANOTHER ONE THAT IS LONGER"]
    pieces = SentencePieceTokenizer.train(texts * 20, "bpe", 40, "'EIT")
    for tokenizer in (CharTokenizer(), CharTokenizer("]\\^-'AEHINORSTXGL"), pieces):
        encoded = [ids.tolist() for ids in tokenizer.encode_all(texts)]
        assert encoded == [tokenizer.encode(text) for text in texts]
        assert [len(ids) for ids in tokenizer.encode_all(["É", "AÉ"])] == [0, 0]


def test_text_without_a_loss_is_known_by_its_reason(tmp_path: Path) -> None:
    texts = ["ÉTÉ", "?!", "ALL", "TOO LONG"]
    part = write_part(tmp_path / "part", [(str(i), "1", text, 20) for i, text in enumerate(texts)])
    assert [utterance.unfit(outputs=4) for utterance in read(part)] == [
        "characters outside the alphabet",
        "nothing left of their transcript",
        None,
        "too short for their transcript",
    ]
    assert read(part)[2].unfit(outputs=3) == "too short for their transcript", "a blank in LL"


def test_what_is_decoded_needs_no_tokenizer(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part", [("a", "1", "Été 7", 20)])
    found = read_held_out(part, schema.Text())
    assert [utterance.text for utterance in found] == ["ÉTÉ 7"]
    assert FeatureStore().collate(found).target_lengths_b.tolist() == [0]


def test_an_utterance_without_words_is_not_scored_but_named(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part", [(f"{i}", "1", "...", 20) for i in range(7)])
    with pytest.raises(LightasrError, match=r"part: .* 7 transcripts: 0, 1, 2, 3, 4, \.\.\.;"):
        read_held_out(part, schema.Text())


def test_a_cut_that_lacks_something_is_named(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part", [("a", "1", "YES", 20)])
    line = json.loads(gzip.decompress((part / "cuts.jsonl.gz").read_bytes()))
    del line["supervisions"][0]["speaker"]
    (part / "cuts.jsonl.gz").write_bytes(gzip.compress(json.dumps(line).encode()))
    with pytest.raises(LightasrError, match=r"cuts\.jsonl\.gz:1: expected a cut .*'speaker'"):
        read(part)


def test_equal_ids_of_two_parts_are_two_utterances(tmp_path: Path) -> None:
    parts = [write_part(tmp_path / name, [("a", name, "YES", 20)]) for name in ("3", "50")]
    store = FeatureStore()
    means = [store.load(utterance).mean().item() for utterance in read(*parts) * 2]
    assert means == pytest.approx([3, 50, 3, 50], abs=1)


def test_features_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part", [("a", "1", "YES", 20), ("b", "1", "NO", 30)])
    line = gzip.decompress((part / "cuts.jsonl.gz").read_bytes())
    changed = line.replace(b'"num_frames": 20', b'"num_frames": 21')
    (part / "cuts.jsonl.gz").write_bytes(gzip.compress(changed))
    with pytest.raises(LightasrError, match=r"feats\.lca: 'a' has 20 frames, .* 21"):
        FeatureStore().load(read(part)[0])
    (part / "feats.lca").write_bytes((part / "feats.lca").read_bytes()[:-50])
    with pytest.raises(LightasrError, match=r"feats\.lca: cannot read 'b'"):
        FeatureStore().load(read(part)[1])


# --- normalisation by speaker -------------------------------------------------------------------


def write_speakers(part: Path, utterances: list[Utterance]) -> None:
    """`speakers.json` as stage `features` writes it."""
    store, frames = FeatureStore(), {}
    for utterance in utterances:
        name = utterance.speaker + ("" if utterance.speed == 1 else f"-x{utterance.speed:g}")
        frames.setdefault(name, []).append(store.load(utterance))
    tree = {}
    for name, features in frames.items():
        whole = torch.cat(features)
        tree[name] = {"mean": whole.mean(0).tolist(), "std": whole.std(0, correction=0).tolist()}
    (part / "speakers.json").write_text(json.dumps(tree))


def test_all_that_a_speaker_says_at_one_speed_has_mean_0_and_variance_1(tmp_path: Path) -> None:
    spoken = [(f"{speaker}-{i}", speaker, "A", 20 + i) for speaker in ("5", "9") for i in range(3)]
    spoken.append(("5-0-x0.9", "5", "A", 33))
    part = write_part(tmp_path / "part", spoken)
    utterances = read(part)
    write_speakers(part, utterances)
    store = FeatureStore(by_speaker=True)
    for speaker, speed in (("5", 1.0), ("9", 1.0), ("5", 0.9)):
        whole = torch.cat(
            [store.load(u) for u in utterances if (u.speaker, u.speed) == (speaker, speed)]
        )
        torch.testing.assert_close(whole.mean(0), torch.zeros(MELS), atol=1e-4, rtol=0)
        torch.testing.assert_close(whole.std(0, correction=0), torch.ones(MELS))


def test_without_statistics_of_a_speaker_nothing_is_guessed(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part", [("a", "5", "YES", 20)])
    (utterance,) = read(part)
    with pytest.raises(LightasrError, match=r"speakers\.json: no such file, .* delete .*part"):
        FeatureStore(by_speaker=True).load(utterance)
    (part / "speakers.json").write_text('{"6": {"mean": [0], "std": [1]}}')
    with pytest.raises(LightasrError, match=r"speakers\.json: no speaker '5', but 'a' is theirs"):
        FeatureStore(by_speaker=True).load(utterance)
    (part / "speakers.json").write_text('{"5": [1, 2]}')
    with pytest.raises(LightasrError, match=r"speakers\.json: not the mean and standard deviation"):
        FeatureStore(by_speaker=True).load(utterance)
