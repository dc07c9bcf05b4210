"""Trains on given inputs as a process of its own, one of several, or one that is killed.

    python training_process.py SETTINGS.json

Settings: `config` (with `pretrain` that of a pretraining), `inputs`, `work`, `out` (where the
weights go, by rank), `stop_at`, `timeout` (of collectives), `hang` ([rank, step] that stops there),
`kills` (how often a fresh attempt is killed, after random milliseconds up to `kill_within`, before
the one that is let finish).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from lightasr import schema
from lightasr.errors import RetryError
from lightasr.train import distributed, loop
from lightasr.train.pretraining import Pretraining
from lightasr.train.recognition import Recognition


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    section = schema.PretrainSlice if settings.get("pretrain") else schema.TrainSlice
    config = section.model_validate_json(json.dumps(settings["config"]))
    inputs = {name: Path(path) for name, path in settings["inputs"].items()}
    work = Path(settings["work"])
    if "kills" in settings:
        with_kills(settings, config, inputs, work)
    else:
        once(settings, config, inputs, work)


def once(settings: dict, config: loop.Config, inputs: dict[str, Path], work: Path) -> None:
    """One process of a team: fit to `stop_at`, then write weights and losses."""
    team = distributed.Team(settings.get("timeout", 60))
    task = Pretraining if settings.get("pretrain") else Recognition
    trainer = loop.Trainer(config, inputs, work, team, task)
    losses: list[float] = []
    train_step = trainer.train_step

    def noting(batches: list, step: loop.Step) -> float:
        if settings.get("hang") == [team.rank, trainer.at.step + 1]:
            time.sleep(60)
        losses.append(train_step(batches, step))
        return losses[-1]

    trainer.train_step = noting  # type: ignore[method-assign]
    try:
        trainer.fit(settings["stop_at"])
    except RetryError as error:
        if trainer.at.step != settings["stop_at"]:
            sys.stderr.write(f"{error}\n")
            sys.exit(error.exit_code)
    out = Path(f"{settings['out']}-{team.rank}.pt")
    torch.save({"losses": losses, "model": trainer.model.state_dict()}, out)
    team.close()


def with_kills(
    settings: dict, config: schema.TrainSlice, inputs: dict[str, Path], work: Path
) -> None:
    """Fork an attempt and kill it, again and again; the last attempt is let finish."""
    draw = random.Random(settings["seed"])
    finished_early = 0
    for kill in [True] * settings["kills"] + [False]:
        child = os.fork()
        if child == 0:
            out = Path(settings["out"])
            out.mkdir(exist_ok=True)
            loop.run(config, inputs, out, work)
            os._exit(0)
        if kill:
            time.sleep(draw.uniform(0.05, settings["kill_within"]))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        finished_early += kill and os.WIFEXITED(status)
        if not kill and status:
            sys.exit(1)
    sys.stdout.write(json.dumps({"finished_early": finished_early}) + "\n")


if __name__ == "__main__":
    main()
