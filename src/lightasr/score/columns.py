"""The names a study's table columns may have; standard library only, as every plan checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from lightasr.errors import LightasrError

LM_DECODER = "beam"
DECODERS = ("greedy", LM_DECODER)
LIBRISPEECH_PARTS = ("dev-clean", "dev-other", "test-clean", "test-other")

RUN_HEADERS = {
    "params": "params (M)",
    "minutes": "training (min)",
    "epoch_minutes": "epoch (min)",
    "gpu_hours": "GPU hours",
    "peak_memory_mb": "peak memory (MB)",
    "audio_seconds_per_second": "training speed (audio s/s)",
    "energy_joules": "energy (J)",
}
PART_HEADERS = {"wer": "WER (%)", "cer": "CER (%)", "rtfx": "RTFx"}
SOURCES = {"wer": "score", "cer": "score", "rtfx": "decode"}


@dataclass(frozen=True)
class Column:
    """A parsed column name: a quantity of the training, or of one part under one decoder."""

    name: str
    quantity: str
    part: str = ""
    decoder: str = ""

    @property
    def header(self) -> str:
        """What a reader sees above the column."""
        if not self.part:
            return RUN_HEADERS[self.quantity]
        suffix = "" if self.decoder == LM_DECODER else f" {self.decoder}"
        return f"{PART_HEADERS[self.quantity]} {self.part}{suffix}"

    @property
    def is_error_rate(self) -> bool:
        return self.quantity in ("wer", "cer")

    @property
    def source(self) -> str:
        """The stage whose directory holds the number: train, decode or score."""
        return SOURCES.get(self.quantity, "train")


def parse_column(name: str) -> Column:
    """Split `quantity` or `quantity/part[/decoder]`; the part itself is not checked."""
    quantity, *rest = name.split("/")
    if not rest and quantity in RUN_HEADERS:
        return Column(name, quantity)
    if quantity in PART_HEADERS and len(rest) in (1, 2) and rest[0]:
        decoder = rest[1] if len(rest) == 2 else LM_DECODER
        if decoder in DECODERS:
            return Column(name, quantity, rest[0], decoder)
    raise _unknown(name, LIBRISPEECH_PARTS)


def check_column(name: str, parts: Sequence[str] = LIBRISPEECH_PARTS) -> None:
    """Raise, with the nearest valid name, unless `name` is a column over one of `parts`."""
    if name not in valid_columns(parts):
        raise _unknown(name, parts)


def valid_columns(parts: Sequence[str] = LIBRISPEECH_PARTS) -> list[str]:
    """Every column name there is for a corpus with these parts."""
    names = list(RUN_HEADERS)
    for quantity in PART_HEADERS:
        for part in parts:
            names.append(f"{quantity}/{part}")
            names.extend(f"{quantity}/{part}/{decoder}" for decoder in DECODERS)
    return names


def _unknown(name: str, parts: Sequence[str]) -> LightasrError:
    nearest = get_close_matches(name, valid_columns(parts), n=1, cutoff=0.0)[0]
    return LightasrError(
        f"unknown column {name!r}: did you mean {nearest!r}? Columns are {', '.join(RUN_HEADERS)}, "
        f"or {'|'.join(PART_HEADERS)}/<part>[/{'|'.join(DECODERS)}]"
    )
