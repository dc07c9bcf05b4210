"""What a training is of: data in batches, a model, its loss, and how well it does on the dev part.

The loop knows nothing else of it, so recognition and language models are trained by the same one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.data.batches import deal, plan_epoch


@dataclass(frozen=True)
class Step:
    """One update of the weights: this process's parts of its batch, and the size of the whole."""

    parts: list[list[int]]
    symbols: float
    done: float
    """Share of the training that is done after it."""


class Pace(NamedTuple):
    """How fast a parameter learns."""

    share: float = 1.0
    """Of the learning rate."""
    first_step: int = 0
    """The step that first changes it."""


class Member(Protocol):
    """One of the processes that train together."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...


class AnyBatch(Protocol):
    """Some examples side by side."""

    @property
    def ids(self) -> list[str]:
        """Names of its examples."""

    @property
    def seconds(self) -> float:
        """Seconds of audio in it."""

    def tensors(self) -> dict[str, object]:
        """What a look at a bad batch needs."""


class AnyResult(Protocol):
    """How a model does on the dev part: a dataclass whose fields are columns of the curves."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def rank(self) -> float:
        """What selects the weights: the lowest is the best."""

    @property
    def shown(self) -> dict[str, str]:
        """What the progress of a training shows."""


Batch = TypeVar("Batch", bound=AnyBatch)


class Corpus(ABC, Generic[Batch]):
    """What is trained on, and the plan of an epoch's steps."""

    examples: ClassVar[str]
    """What it consists of, in messages."""
    costs: ClassVar[str]
    """What the size of an example is counted in, in messages."""

    def __init__(self, config: schema.Optimization, batch_cost: float) -> None:
        self.config, self.batch_cost = config, batch_cost
        self.set_aside: Counter[str] = Counter()
        """How many examples are not trained on, by reason."""

    @abstractmethod
    def __len__(self) -> int:
        """Examples that are trained on."""

    @abstractmethod
    def size(self, example: int) -> float:
        """What an example costs; so much padding costs the same."""

    @abstractmethod
    def symbols(self, example: int) -> float:
        """Symbols of an example that the loss is of, or how many are to be expected."""

    @abstractmethod
    def read(self, part: Sequence[int]) -> Batch:
        """The batch of these examples, which may be none."""

    @abstractmethod
    def stream(self, parts: list[list[int]]) -> Iterator[Batch]:
        """Batches in order."""

    def plan(self, epoch: int, member: Member) -> list[Step]:
        """An epoch's steps: every process plans the same ones, and takes its own parts of each."""
        config = self.config
        sizes = [self.size(i) for i in range(len(self))]
        batches = plan_epoch(sizes, self.batch_cost, config.seed, epoch, config.order)
        parts = member.size * config.accumulate
        return [
            Step(
                parts=deal(batch, sizes, parts)[member.rank :: member.size],
                symbols=sum(self.symbols(i) for i in batch),
                done=(epoch + (number + 1) / len(batches)) / config.epochs,
            )
            for number, batch in enumerate(batches)
        ]

    def cost(self, part: list[int]) -> float:
        """The size of a part of a batch, padding counted."""
        return len(part) * max((self.size(i) for i in part), default=0.0)


class Task(ABC, Generic[Batch]):
    """A corpus, a model on its device, and what the one is to the other."""

    stage: ClassVar[str]
    """What a training of it is called, in messages."""
    section: ClassVar[str]
    """Where that is configured, in messages."""
    corpus: Corpus[Batch]
    model: nn.Module
    done: float = 0.0
    """Share of the training that is done when the dev part is looked at."""

    @abstractmethod
    def __init__(
        self, config: Any, inputs: dict[str, Path], title: str, device: torch.device
    ) -> None:
        """The random generators are seeded: the weights drawn here are the first ones."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """What the loss is of, in mixed precision; `model` may be a parallel one."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Nats of a batch's symbols, summed; 0 for a batch of nothing."""

    @abstractmethod
    def validate(self) -> AnyResult:
        """How the model does on the dev part as it stands."""

    @abstractmethod
    def too_large(self, batch: Batch) -> str:
        """What of a batch takes memory, and which settings make it less."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """The model, and what reading it takes."""

    def begin_step(self, step: int, done: float) -> None:
        """Told before each step how many are done, and the share of the training after it."""

    def pace(self, parameter: str) -> Pace:
        """How fast a parameter of this name learns."""
        return Pace()

    def findings(self) -> dict[str, Any]:
        """What `run.json` says of the trained model besides; measured once, by one process."""
        return {}
