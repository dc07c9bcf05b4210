"""Inputs for stage tests: tiny features and a tokenizer, made once for a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightasr import schema
from lightasr.data import features
from lightasr.text import tokenizers
from tones import chapter, sentences, write_archive


@pytest.fixture(scope="session")
def tone_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What stage `train` reads: 40 utterances of 4 speakers, 8 for dev, a char tokenizer."""
    root = tmp_path_factory.mktemp("tones")
    inputs: dict[str, Path] = {}
    for part, speakers, count in [("train-clean-100", (1, 2, 3, 4), 10), ("dev-clean", (5,), 8)]:
        files: dict[str, bytes] = {}
        for speaker in speakers:
            files |= chapter(part, speaker, sentences(count, seed=speaker))
        archive = write_archive(root / "archive" / part / f"{part}.tar.gz", files)
        out = root / f"{part}-features"
        out.mkdir()
        config = schema.FeaturesSlice(part=part, mels=16)
        features.run(config, {"archive": archive.parent}, out, root)
        inputs[f"features/{part}"] = out
    inputs["tokenizer"] = root / "tokenizer"
    inputs["tokenizer"].mkdir()
    training = {"features/train-clean-100": inputs["features/train-clean-100"]}
    tokenizers.run(schema.TokenizerSlice(), training, inputs["tokenizer"], root)
    return inputs
