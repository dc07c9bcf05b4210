"""Training throughput: our loop and SpeechBrain's, the same model, utterances and batches.

The model is a 4 x 320 bidirectional LSTM under CTC behind our convolutional front end, without
normalisation between its layers, since SpeechBrain's LSTM has none. Both loops are measured in
turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.cost.timing import Measured
from lightasr.data.batches import Batch
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.models.registry import component
from lightasr.plan import Plan
from lightasr.train.loop import Trainer
from lightasr.train.recognition import Recognition

TITLE = "Training throughput of a 4 x 320 bidirectional LSTM CTC model"
LAYERS, STATES = 4, 320
WARM_UP_STEPS = 2


def rows(plan: Plan, steps: int = 6, rounds: int = 5) -> list[Measured]:
    """Audio seconds per second of each loop: the median over the rounds."""
    with tempfile.TemporaryDirectory() as work:
        trainer = make_trainer(plan, Path(work))
        loops = {"lightasr": our_loop(trainer), "speechbrain": speechbrain_loop(trainer)}
        planned = trainer.corpus.plan(0, trainer.team)
        for loop in loops.values():
            loop(planned[:WARM_UP_STEPS])
        speeds: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(rounds):
            chosen = [planned[(number * steps + i) % len(planned)] for i in range(steps)]
            indices = [i for step in chosen for part in step.parts for i in part]
            audio = sum(trainer.corpus.size(i) for i in indices)
            for name, loop in loops.items():
                started = time.perf_counter()
                loop(chosen)
                speeds[name].append(audio / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    wait = trainer.at.data_seconds / trainer.at.seconds
    return [
        {
            "impl": name,
            "device": str(trainer.device),
            "threads": torch.get_num_threads(),
            "steps": steps * rounds,
            "ratio_to_speechbrain": median / medians["speechbrain"],
            "data_wait_percent": 100 * wait if name == "lightasr" else None,
        }
        for name, median in medians.items()
    ]


def make_trainer(plan: Plan, work: Path) -> Trainer:
    """A trainer of the bench's model on the training parts of the plan's first experiment."""
    job = next(iter(plan.experiments)).runs[0].train
    tree: dict[str, Any] = {**job.config}
    encoder = {"name": "ds2", "unit": "lstm", "dim": STATES, "layers": LAYERS}
    tree["model"] = {
        **tree["model"],
        "encoder": {**encoder, "combine": "concat", "norm": "none", "dropout": 0.0},
        "head": {"name": "linear", "dropout": 0.0},
    }
    config = schema.TrainSlice.model_validate_json(json.dumps(tree))
    return Trainer(config, finished_inputs(plan, job, "train"), work)


def finished_inputs(plan: Plan, job: Job, bench: str) -> dict[str, Path]:
    """Directories that a training reads."""
    for upstream in job.inputs.values():
        if not upstream.done(plan.project):
            raise LightasrError(
                f"bench {bench} needs {upstream.receipt}: run "
                f"`snakemake --profile profiles/local -- features tokenizer`"
            )
    return {name: plan.project / upstream.dir for name, upstream in job.inputs.items()}


def our_loop(trainer: Trainer) -> Callable[[list[Any]], None]:
    """Steps as `Trainer.fit` takes them."""

    def loop(steps: list[Any]) -> None:
        parts = [part for step in steps for part in step.parts]
        batches = trainer.corpus.stream(parts)
        clock = time.monotonic()
        for step in steps:
            ready = list(islice(batches, len(step.parts)))
            trainer.at.data_seconds += time.monotonic() - clock
            trainer.train_step(ready, step)
            trainer.at.seconds += time.monotonic() - clock
            clock = time.monotonic()

    return loop


def speechbrain_loop(trainer: Trainer) -> Callable[[list[Any]], None]:
    """`Brain.fit` over a DataLoader of the same batches, with SpeechBrain's own LSTM and loss."""
    try:
        from speechbrain.core import Brain
        from speechbrain.nnet.losses import ctc_loss
        from speechbrain.nnet.RNN import LSTM
    except ImportError:
        raise LightasrError(
            "bench train compares with SpeechBrain: pip install -e .[bench]"
        ) from None

    task = cast(Recognition, trainer.task)
    corpus, frontend = task.corpus, make_frontend(task)

    class SpeechBrainModel(Brain):  # type: ignore[misc]
        def compute_forward(self, batch: Batch, stage: Any) -> tuple[Tensor, Tensor]:
            x_btf = task.model.normalizer(batch.features_btf, batch.lengths_b)
            x_btf = task.augment(x_btf, batch.lengths_b)
            x_btd, lengths_b = self.modules.frontend(x_btf, batch.lengths_b)
            share_b = lengths_b / x_btd.shape[1]
            y_btd, _ = self.modules.lstm(x_btd, lengths=share_b)
            return self.modules.output(self.modules.norm(y_btd)).log_softmax(-1), share_b

        def compute_objectives(self, scores: Any, batch: Batch, stage: Any) -> Tensor:
            logp_btv, share_b = scores
            target_share_b = batch.target_lengths_b / batch.targets_bu.shape[1]
            return ctc_loss(logp_btv, batch.targets_bu, share_b, target_share_b, blank_index=0)

    symbols = len(corpus.tokenizer.symbols)
    brain = SpeechBrainModel(
        modules={
            "frontend": frontend,
            "lstm": LSTM(STATES, input_size=frontend.dim, num_layers=LAYERS, bidirectional=True),
            "norm": nn.LayerNorm(2 * STATES),
            "output": nn.Linear(2 * STATES, symbols),
        },
        opt_class=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        run_opts={"device": str(trainer.device), "noprogressbar": True},
    )

    def loop(steps: list[Any]) -> None:
        batches = [[corpus.utterances[i] for i in part] for s in steps for part in s.parts]
        loader = torch.utils.data.DataLoader(
            Utterances(batches), batch_size=None, collate_fn=corpus.store.collate
        )
        brain.fit(range(1), loader, progressbar=False)

    return loop


def make_frontend(task: Recognition) -> Any:
    """A front end of its own for the other loop, with the same settings."""
    config = task.config.model.frontend
    return component("frontend", config)(config, task.config.features.dim)


class Utterances(torch.utils.data.Dataset[list[Any]]):
    """Batches of utterances, as a data set whose items are batches."""

    def __init__(self, batches: list[list[Any]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[Any]:
        return self.batches[index]
