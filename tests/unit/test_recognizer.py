"""Recordings of one's own: cut into pieces, and normalised as the model was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.models.asr import AcousticModel
from lightasr.models.trained import Trained
from lightasr.serve.recognizer import LONGEST_SECONDS, Recognizer
from lightasr.text.tokenizers import CharTokenizer

MELS = 16


def recognizer(normalize: str) -> Recognizer:
    tokenizer = CharTokenizer()
    config = schema.TrainSlice(
        features=schema.Features(mels=MELS),
        tokenizer=schema.Tokenizer(),
        model=schema.Model(normalize=normalize),
        train=schema.Train(),
        dev="dev-clean",
    )
    model = AcousticModel(config.model, MELS, len(tokenizer.symbols)).eval()
    return Recognizer(Trained(config, model, tokenizer, torch.device("cpu")), beam=None)


def recording(path: Path, seconds: float) -> Path:
    """Noise that grows louder, so that its pieces differ."""
    count = round(16_000 * seconds)
    noise = np.random.default_rng(0).normal(0, 0.1, count) * np.linspace(0.01, 1, count)
    soundfile.write(path, noise, 16_000)
    return path


def test_the_pieces_of_a_recording_are_normalised_as_one_speaker(tmp_path: Path) -> None:
    path = recording(tmp_path / "long.wav", 2.5 * LONGEST_SECONDS)
    pieces = list(recognizer("speaker").read(path))
    assert len(pieces) > 2
    assert all(piece.seconds <= LONGEST_SECONDS for piece in pieces)
    assert sum(piece.seconds for piece in pieces) == pytest.approx(2.5 * LONGEST_SECONDS)
    whole = torch.cat([piece.x_tf for piece in pieces])
    torch.testing.assert_close(whole.mean(0), torch.zeros(MELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.std(0), torch.ones(MELS), atol=1e-3, rtol=0)
    assert pieces[0].x_tf.mean() < -0.3 < 0.3 < pieces[-1].x_tf.mean()


def test_other_models_get_features_as_they_are(tmp_path: Path) -> None:
    path = recording(tmp_path / "short.wav", 1.0)
    (plain,), (by_speaker,) = (list(recognizer(kind).read(path)) for kind in ("global", "speaker"))
    assert plain.x_tf.shape == by_speaker.x_tf.shape
    normalised = (plain.x_tf - plain.x_tf.mean(0)) / plain.x_tf.std(0, correction=0)
    torch.testing.assert_close(by_speaker.x_tf, normalised, atol=1e-3, rtol=1e-3)


def test_each_piece_is_written_down_in_its_place(tmp_path: Path) -> None:
    reader = recognizer("speaker")
    lengths = (3.0, 0.5, 7.0)
    pieces = [
        p for i, s in enumerate(lengths) for p in reader.read(recording(tmp_path / f"{i}.wav", s))
    ]
    together = reader.write_down(pieces)
    assert together == [reader.write_down([piece])[0] for piece in pieces]


def test_a_recording_shorter_than_a_frame_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"click\.wav: 0\.010 s of audio is less than a frame"):
        list(recognizer("none").read(recording(tmp_path / "click.wav", 0.01)))
