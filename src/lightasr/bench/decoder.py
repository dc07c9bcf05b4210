"""Our beam search beside flashlight's: one model's log-probabilities, one n-gram, one lexicon.

Both use the weights that the run's own decoding tuned for ours. flashlight is measured with the
run's score threshold, and with a wider one, by which it loses little.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import torch

from lightasr import schema
from lightasr.cost.timing import Measured
from lightasr.data.batches import read_held_out
from lightasr.decode.decoders import load_search
from lightasr.decode.hypotheses import LogProbs, Search, Weights
from lightasr.decode.logits import load_scored, made_from, score_part
from lightasr.decode.parallel import Decoder
from lightasr.decode.run import kept_logits
from lightasr.decode.tuning import Tuned
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.jobs import Run
from lightasr.models.trained import Trained, load_trained
from lightasr.plan import Plan
from lightasr.progress import track
from lightasr.serve.evaluate import read_entries
from lightasr.serve.recognizer import Recognizer
from lightasr.text.normalize import Normalizer
from lightasr.threads import usable_cores

TITLE = "Beam search: ours beside flashlight's, with the same n-gram, words and weights"
BEAMS = (16, 64, 256)
WIDE = 25.0
ROUNDS = 3


@dataclass(frozen=True)
class Part:
    """Utterances as a model hears them."""

    name: str
    logp: Sequence[LogProbs]
    references: Sequence[str]


@dataclass
class Subject:
    """A search with a number of cores, and the seconds it took."""

    name: str
    part: Part
    search: Search
    cores: int
    seconds: list[float] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def measure(self, weights: Weights) -> None:
        with Decoder(self.search, self.cores) as decoder:
            list(decoder.decode(self.part.logp[:2], weights))  # starts the workers, compiles
            started = time.perf_counter()
            best = [hypotheses[0].text for hypotheses in decoder.decode(self.part.logp, weights)]
            self.seconds.append(time.perf_counter() - started)
        self.found = best

    def row(self) -> Measured:
        rate = len(self.part.logp) / statistics.median(self.seconds)
        return {
            "part": self.part.name,
            "impl": self.name,
            "beam": self.search.beam,
            "cores": self.cores,
            "utt_per_s": round(rate, 1),
            "wer": round(100 * jiwer.wer(list(self.part.references), self.found), 2),
        }


def rows(plan: Plan, name: str | None, manifest: Path | None) -> list[Measured]:
    """A row for each part, search, beam and number of cores, measured in turns."""
    run = find_run(plan, name)
    train, lm = plan.project / run.train.dir, plan.project / run.decode.inputs["lm"].dir
    whole = run.decode.config
    config = check(schema.DecodeSlice, whole, [Layer(run.decode.dir, None, whole)])
    told = json.loads((plan.project / run.decode.dir / "decode.json").read_text())
    weights = Tuned.read(told["tuned"]["beam"]).weights
    wide = config.model_copy(update={"beam_threshold": WIDE})
    searches = {
        "beam": load_search("beam", config, train, lm).of(nbest=1),
        "flashlight": load_search("flashlight", config, train, lm).of(nbest=1),
        f"flashlight, threshold {WIDE:g}": load_search("flashlight", wide, train, lm).of(nbest=1),
    }
    trained = load_trained(train)
    parts = list(held_out(plan, run, config, trained))
    if manifest is not None:
        parts.append(recorded(manifest, trained))
    subjects = [
        Subject(impl, part, search.of(beam=beam), cores)
        for part in parts
        for beam in BEAMS
        for cores in sorted({1, 2, usable_cores()} & set(range(1, usable_cores() + 1)))
        for impl, search in searches.items()
    ]
    with track("bench decoder", total=ROUNDS * len(subjects)) as bar:
        for _ in range(ROUNDS):
            for subject in subjects:
                subject.measure(weights)
                bar.update(1)
    return [subject.row() for subject in subjects]


def find_run(plan: Plan, name: str | None) -> Run:
    """The run of this name, or the first that is decoded with our search."""
    runs = [run for study in plan.studies for one in study.experiments for run in one.runs]
    for run in runs if name is None else [plan.run(name)]:
        if "beam" in run.decode.config["decoders"] and run.decode.done(plan.project):
            return run
    raise LightasrError(
        f"bench decoder: {name or 'no run of the plan'} is decoded by beam search yet: "
        "run `snakemake --profile profiles/local`"
    )


def held_out(plan: Plan, run: Run, config: schema.DecodeSlice, trained: Trained) -> Iterator[Part]:
    """The test parts of a run, from what its decoding kept where it is still there."""
    work = plan.project / "checkpoints" / "decode" / run.decode.id
    for name, job in run.decode.inputs.items():
        part = name.removeprefix("features/")
        if part in {name, config.dev}:
            continue
        features = plan.project / job.dir
        utterances = read_held_out(features, config.text)
        path = kept_logits(work, run.train.id, job.id)
        source = made_from(plan.project / run.train.dir, features)
        scored = load_scored(path, source, utterances)
        if scored is None:
            scored = score_part(path, source, trained, utterances, path.parent)
        yield Part(part, scored.logp, [utterance.text for utterance in scored.utterances])


def recorded(manifest: Path, trained: Trained) -> Part:
    """The recordings of a manifest; those that are cut into pieces are left out."""
    reader, normalize = Recognizer(trained, None), Normalizer(trained.config.text)
    logp, references = [], []
    for entry in read_entries(manifest):
        pieces = list(reader.read(entry.audio, entry.start, entry.seconds, entry.channel))
        if len(pieces) == 1:
            x_tf = pieces[0].x_tf
            logp_btv, lengths_b = trained.log_probs(x_tf[None], torch.tensor([len(x_tf)]))
            logp.append(logp_btv[0, : int(lengths_b[0])].numpy())
            references.append(normalize(entry.text))
    return Part(manifest.stem, logp, references)
