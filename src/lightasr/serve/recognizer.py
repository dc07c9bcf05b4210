"""A trained model with a decoder: from samples to text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.audio import Samples, read_blocks
from lightasr.data.batches import plan_batches
from lightasr.data.moments import Moments
from lightasr.data.spectra import compute_features
from lightasr.decode.decoders import load_search
from lightasr.decode.greedy import greedy
from lightasr.decode.hypotheses import LogProbs, Search
from lightasr.decode.tuning import Tuned
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.jobs import Run
from lightasr.models.trained import Trained, load_trained
from lightasr.plan import Plan
from lightasr.threads import usable_cores

LONGEST_SECONDS = 20.0  # a longer recording is cut at its quietest moment after half of this
BATCH_SECONDS = 120.0
QUIET_SECONDS = 0.2


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that the model can take: features (T, F)."""

    x_tf: Tensor
    seconds: float


@dataclass(frozen=True)
class Beam:
    """A beam search as the run's own decoding tuned it."""

    search: Search
    tuned: Tuned

    def decode(self, logp_tv: LogProbs) -> str:
        return self.search.decode(logp_tv, self.tuned.weights)[0].text


@dataclass(frozen=True)
class Recognizer:
    """Writes down recordings of any length.

    To a model whose features are normalised by speaker, each recording that is read counts as one.
    """

    trained: Trained
    beam: Beam | None

    @property
    def sample_rate(self) -> int:
        return self.trained.config.features.sample_rate

    def read(
        self,
        path: Path,
        start: float = 0.0,
        seconds: float | None = None,
        channel: int | None = None,
    ) -> Iterator[Piece]:
        """A file's recording, or a segment of it, in pieces for the model, in bounded memory."""
        stretch = partial(self._pieces, path, start, seconds, channel)
        if not self.trained.by_speaker:
            return stretch()
        # Mean and variance are known at the end only, so it is read twice.
        voice = Moments.of(piece.x_tf for piece in stretch())
        return (Piece(voice.normalize(piece.x_tf), piece.seconds) for piece in stretch())

    def _pieces(
        self, path: Path, start: float, seconds: float | None, channel: int | None
    ) -> Iterator[Piece]:
        blocks = read_blocks(path, self.sample_rate, LONGEST_SECONDS, start, seconds, channel)
        for samples in pieces(blocks, self.sample_rate):
            try:
                x_tf = compute_features(samples, self.trained.config.features)
            except LightasrError as error:
                raise LightasrError(f"{path}: {error}") from None
            yield Piece(x_tf, len(samples) / self.sample_rate)

    def write_down(self, pieces: Sequence[Piece]) -> list[str]:
        """The text of each piece; pieces of like length go through the model together."""
        texts = [""] * len(pieces)
        for batch in plan_batches([piece.seconds for piece in pieces], BATCH_SECONDS):
            found = self._write_down_batch([pieces[i].x_tf for i in batch])
            for i, text in zip(batch, found, strict=True):
                texts[i] = text
        return texts

    def _write_down_batch(self, features: list[Tensor]) -> list[str]:
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        lengths = torch.tensor([len(x) for x in features])
        logp_btv, lengths_b = self.trained.log_probs(padded, lengths)
        if self.beam is None:
            return greedy(logp_btv, lengths_b, self.trained.tokenizer)
        utterances = zip(logp_btv.numpy(), lengths_b.tolist(), strict=True)
        return [self.beam.decode(logp_tv[:length]) for logp_tv, length in utterances]


def pieces(blocks: Iterator[Samples], sample_rate: int) -> Iterator[Samples]:
    """A long recording cut where it is quietest, so that hardly a word is cut in two."""
    longest = round(LONGEST_SECONDS * sample_rate)
    pending = np.zeros(0, dtype=np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > longest:
            cut = quietest(pending[longest // 2 : longest], sample_rate) + longest // 2
            yield pending[:cut]
            pending = pending[cut:]
    if len(pending):
        yield pending


def quietest(samples: Samples, sample_rate: int) -> int:
    """The middle of the stretch of least energy."""
    window = round(QUIET_SECONDS * sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    return int(np.argmin(energy[window:] - energy[:-window])) + window // 2


def load_recognizer(plan: Plan, name: str, decoder: str) -> Recognizer:
    """`name` is an experiment, `study/experiment`, an id, or the directory of a training run."""
    torch.set_num_threads(usable_cores())
    directory = Path(name)
    if (directory / "model.safetensors").exists():
        known = [job for job in plan.of_stage("train") if job.id == directory.resolve().name]
        run = plan.run(known[0].id) if known else None
    else:
        run = plan.run(name)
        directory = plan.project / run.train.dir
        if not run.train.done(plan.project):
            raise LightasrError(
                f"'{name}' is not trained yet ({directory} is not there): run "
                f"`snakemake --profile profiles/local -- {run.train.receipt}`"
            )
    trained = load_trained(directory)
    return Recognizer(trained, None if decoder == "greedy" else _beam(plan, run, decoder, name))


def _beam(plan: Plan, run: Run | None, decoder: str, name: str) -> Beam:
    if run is None or "lm" not in run.decode.inputs:
        raise LightasrError(
            f"'{name}': no experiment of config/ decodes it with a language model; "
            "use --decoder greedy"
        )
    lm = plan.project / run.decode.inputs["lm"].dir
    path = plan.project / run.decode.dir / "decode.json"
    if not path.exists() or not lm.exists():
        raise LightasrError(
            f"'{name}': the weights of its beam search are not tuned yet: run "
            f"`snakemake --profile profiles/local -- {run.decode.receipt}`, or use --decoder greedy"
        )
    whole = run.decode.config
    config = check(schema.DecodeSlice, whole, [Layer(run.decode.dir, None, whole)])
    tuned = json.loads(path.read_text())["tuned"].get(decoder)
    if tuned is None:
        raise LightasrError(
            f"'{name}': its `decode: {{decoders: ...}}` does not name {decoder}: "
            "use --decoder greedy, or add it"
        )
    best = Tuned.read(tuned)
    search = load_search(decoder, config, plan.project / run.train.dir, lm)
    return Beam(search.of(beam=best.beam, nbest=1), best)
