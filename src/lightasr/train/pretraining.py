"""Stage `pretrain`: front end and encoder learn without labels, in the loop of all trainings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.data.batches import Batch, plan_batches, read_utterances
from lightasr.errors import LightasrError
from lightasr.models.asr import save_model
from lightasr.models.init import init_xavier
from lightasr.models.layers import valid_mask
from lightasr.models.pretrained import Learnt, PretrainingModel
from lightasr.objectives.objective import Tally, perplexity
from lightasr.train import loop
from lightasr.train.clusters import FrameLabels
from lightasr.train.corpus import SpeechCorpus, thinned
from lightasr.train.task import Task

HALF = 0.5  # of a training, from which on it must tell better than who does not look
DEV_SEED = 1  # what is hidden from the model on the dev part is the same after each epoch


def run(
    config: schema.PretrainSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """The model and `curves.csv`; the receipt says how well it tells what was hidden."""
    return loop.run(config, inputs, out, work, Pretraining)


@dataclass(frozen=True)
class DevMasked:
    """How well hidden frames of the dev part are told, and signs of collapse."""

    dev_loss: float
    """Nats of a hidden frame."""
    dev_accuracy: float
    """Share of hidden frames told right."""
    dev_codes: float
    """Perplexity of the codes that are to be told, the mean over codebooks."""
    dev_guesses: float
    """Perplexity of those that are told."""
    dev_rank: float
    """Effective rank of the encoder's outputs where nothing is hidden."""
    dev_gain: float
    """Nats by which a hidden frame is told better than by who does not look."""

    @property
    def rank(self) -> float:
        return self.dev_loss

    @property
    def shown(self) -> dict[str, str]:
        return {"right": f"{self.dev_accuracy:.1%}", "codes": f"{self.dev_codes:.0f}"}


class Collapsed(DevMasked):
    """Never selected: where all codes are one, telling them is easy."""

    @property
    def rank(self) -> float:
        return math.inf


class PretrainingCorpus(SpeechCorpus):
    """Utterances without their transcripts."""

    def __init__(self, config: schema.PretrainSlice, inputs: dict[str, Path], title: str) -> None:
        super().__init__(config.train, config.normalize == "speaker")
        dev_name = f"features/{config.dev}"
        training = [
            path
            for name, path in inputs.items()
            if name.startswith("features/") and name != dev_name
        ]
        found = read_utterances(training, schema.Text())
        self.utterances = [each for each in found if each.seconds <= self.max_seconds]
        if len(self.utterances) < len(found):
            reason = "longer than pretrain.train.max_seconds"
            self.set_aside[reason] = len(found) - len(self.utterances)
        self.dev = thinned(
            read_utterances([inputs[dev_name]], schema.Text()), config.train.validate_utterances
        )
        for part, utterances in (("to learn from", self.utterances), ("of the dev part", self.dev)):
            if not utterances:
                raise LightasrError(f"{title}: there is no utterance {part}")
        self.hidden: list[float] = []
        """Frames of each utterance that are to be expected to be hidden."""

    def count_hidden(self, model: PretrainingModel, share: float) -> None:
        frames = torch.tensor([utterance.frames for utterance in self.utterances])
        self.hidden = (share * model.output_lengths(frames)).tolist()

    def symbols(self, example: int) -> float:
        return self.hidden[example]


class Pretraining(Task[Batch]):
    """A model that tells what is hidden from it, selected by how well it does on the dev part."""

    stage, section = "pretrain", "pretrain.train"
    corpus: PretrainingCorpus
    model: PretrainingModel

    def __init__(
        self,
        config: schema.PretrainSlice,
        inputs: dict[str, Path],
        title: str,
        device: torch.device,
    ) -> None:
        self.config, self.title, self.device = config, title, device
        self.corpus = PretrainingCorpus(config, inputs, title)
        self.model = PretrainingModel(config).to(device)
        if config.train.init == "xavier":
            for part in (self.model.frontend, self.model.encoder):
                init_xavier(part)
        self.labels = FrameLabels(inputs["clusters"]) if self.model.objective.labels else None
        self.corpus.count_hidden(self.model, config.objective.hidden)
        if config.normalize == "global":
            self.model.normalizer.measure(self.corpus.sample())

    def begin_step(self, step: int, done: float) -> None:
        self.model.objective.anneal(done)

    def forward(self, model: nn.Module, batch: Batch) -> Learnt:
        learnt: Learnt = model(
            batch.features_btf.to(self.device), batch.lengths_b.to(self.device), self.told(batch)
        )
        return learnt

    def told(self, batch: Batch) -> Tensor | None:
        """(B, T') clusters of the frames after the front end, for objectives that ask for them."""
        if self.labels is None:
            return None
        frames_b = self.model.output_lengths(batch.lengths_b)
        frames = int(self.model.output_lengths(torch.tensor([batch.features_btf.shape[1]])))
        return self.labels.batch(batch.ids, frames_b, frames).to(self.device)

    def loss(self, outputs: Learnt, batch: Batch) -> Tensor:
        return outputs.nats

    @torch.no_grad()
    def validate(self) -> DevMasked:
        """What is hidden is drawn from a seed of its own, and nothing else is drawn differently."""
        self.model.eval()
        batches = plan_batches(
            [utterance.seconds for utterance in self.corpus.dev], self.config.train.batch_seconds
        )
        tally: Tally | None = None
        spread = Spread(cast(int, self.model.encoder.dim), self.device)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(DEV_SEED)
            for batch in self.corpus.store.stream(self.corpus.dev, batches):
                learnt = self.forward(self.model, batch)
                tally = learnt.tally if tally is None else tally + learnt.tally
                features = batch.features_btf.to(self.device), batch.lengths_b.to(self.device)
                spread.add(*self.model.encode(*features))
        assert tally is not None
        blind = self.model.objective.blind(tally)
        return self.watched(dev_masked(tally, spread.rank(), blind))

    def watched(self, result: DevMasked) -> DevMasked:
        """The same, unless all that is learnt has become one: early that is not selected."""
        least = self.config.collapse
        for key, found, what, after in (
            ("codes", result.dev_codes, "perplexity of the codes to be told", least.after),
            ("guesses", result.dev_guesses, "perplexity of what the model tells", least.after),
            ("rank", result.dev_rank, "effective rank of the encoder's outputs", least.after),
            ("gain", result.dev_gain, "gain over who does not look, in nats,", HALF),
        ):
            bound = getattr(least, key)
            if found >= bound:  # which no number is that is none
                continue
            if self.done < after:
                return Collapsed(**asdict(result))
            raise LightasrError(
                f"{self.title}: collapsed: the {what} is {found:.3g} on the dev part, below "
                f"pretrain.collapse.{key} ({bound:g}); lower pretrain.train.lr, raise its "
                "warmup, or look at the objective's settings"
            )
        return result

    def too_large(self, batch: Batch) -> str:
        return self.corpus.too_large(batch, self.section)

    def write(self, out: Path) -> None:
        save_model(self.model, out / "model.safetensors")

    def findings(self) -> dict[str, Any]:
        return {"hidden_share": self.config.objective.hidden}


class Spread:
    """In how many directions the encoder's outputs vary."""

    def __init__(self, dim: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.sum_d = torch.zeros(dim, dtype=torch.float64, device=device)
        self.square_dd = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, y_btd: Tensor, lengths_b: Tensor) -> None:
        y_nd = y_btd[valid_mask(lengths_b, y_btd.shape[1])].double()
        self.count += len(y_nd)
        self.sum_d += y_nd.sum(0)
        self.square_dd += y_nd.T @ y_nd

    def rank(self) -> float:
        """exp of the entropy of the shares of variance along principal axes: 1 to `dim`."""
        mean_d = self.sum_d / self.count
        covariance_dd = self.square_dd / self.count - mean_d[:, None] * mean_d
        if not covariance_dd.isfinite().all():
            return math.nan
        return perplexity(torch.linalg.eigvalsh(covariance_dd).clamp(min=0)).item()


def dev_masked(tally: Tally, rank: float, blind: float) -> DevMasked:
    """`blind`: nats of a hidden frame that is told by who does not look."""
    frames = max(1.0, tally.frames.item())
    return DevMasked(
        dev_loss=(loss := tally.nats.item() / frames),
        dev_gain=blind - loss,
        dev_accuracy=tally.right.item() / frames,
        dev_codes=perplexity(tally.codes_gv.double()).mean().item(),
        dev_guesses=perplexity(tally.guesses_gv.double()).mean().item(),
        dev_rank=rank,
    )
