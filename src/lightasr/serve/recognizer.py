"""A trained model with a decoder: from samples to text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lightasr.data.audio import Samples, read_blocks
from lightasr.data.batches import plan_batches
from lightasr.data.features import fbank
from lightasr.decode.beam import BeamDecoder, Weights
from lightasr.decode.greedy import greedy
from lightasr.errors import LightasrError
from lightasr.models.trained import Trained, load_trained
from lightasr.plan import Plan, Run
from lightasr.threads import usable_cores

LONGEST_SECONDS = 20.0  # a longer recording is cut at its quietest moment after half of this
BATCH_SECONDS = 120.0
QUIET_SECONDS = 0.2


@dataclass(frozen=True)
class Recognizer:
    """Writes down recordings of any length."""

    trained: Trained
    beam: BeamDecoder | None

    @property
    def sample_rate(self) -> int:
        return self.trained.config.features.sample_rate

    def read(self, path: Path) -> Iterator[Samples]:
        """A file's recording in pieces that the model can take, in bounded memory."""
        return pieces(read_blocks(path, self.sample_rate, LONGEST_SECONDS), self.sample_rate)

    def write_down(self, recordings: Sequence[Samples]) -> list[str]:
        """The text of each piece; pieces of like length go through the model together."""
        seconds = [len(samples) / self.sample_rate for samples in recordings]
        texts = [""] * len(recordings)
        for batch in plan_batches(seconds, BATCH_SECONDS):
            found = self._write_down_batch([recordings[i] for i in batch])
            for i, text in zip(batch, found, strict=True):
                texts[i] = text
        return texts

    def _write_down_batch(self, recordings: list[Samples]) -> list[str]:
        features = [fbank(samples, self.trained.config.features) for samples in recordings]
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        lengths = torch.tensor([len(x) for x in features])
        logp_btv, lengths_b = self.trained.log_probs(padded, lengths)
        if self.beam is None:
            return greedy(logp_btv, lengths_b, self.trained.tokenizer)
        return [hypotheses[0].text for hypotheses in self.beam.decode(logp_btv, lengths_b)]


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
    return Recognizer(trained, _beam(plan, run, trained, name) if decoder == "beam" else None)


def _beam(plan: Plan, run: Run | None, trained: Trained, name: str) -> BeamDecoder:
    """The beam search as the run's own decoding tuned it."""
    if run is None or "lm" not in run.decode.inputs:
        raise LightasrError(
            f"'{name}': no experiment of config/ decodes it with a language model; "
            "use --decoder greedy"
        )
    lm = plan.project / run.decode.inputs["lm"].dir
    tuned = plan.project / run.decode.dir / "decode.json"
    if not tuned.exists() or not lm.exists():
        raise LightasrError(
            f"'{name}': the weights of its beam search are not tuned yet: run "
            f"`snakemake --profile profiles/local -- {run.decode.receipt}`, or use --decoder greedy"
        )
    decode = run.decode.config
    return BeamDecoder(
        trained.tokenizer,
        lm,
        beam_size=decode["beam_size"],
        beam_threshold=decode["beam_threshold"],
        weights=Weights(**json.loads(tuned.read_text())["tuned"]),
    )
