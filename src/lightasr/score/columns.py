"""The names a study's table columns may have; standard library only, as every plan checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product

from lightasr.errors import LightasrError

LM_DECODER = "beam"
RESCORED = "rescored"
"""What the beam search finds, scored anew by a neural language model."""
DECODER_TITLES = {
    "greedy": "greedy search",
    LM_DECODER: "the language model",
    RESCORED: "rescoring by a neural language model",
    "flashlight": "flashlight's search",
}
DECODERS = tuple(DECODER_TITLES)
EVERY = "*"
LIBRISPEECH_PARTS = ("dev-clean", "dev-other", "test-clean", "test-other")

RUN_HEADERS = {
    "params": "params (M)",
    "minutes": "training (min)",
    "epoch_minutes": "epoch (min)",
    "gpu_hours": "GPU hours",
    "peak_memory_mb": "peak memory (MB)",
    "audio_seconds_per_second": "training speed (audio s/s)",
    "energy_joules": "energy (J)",
    "lm_params": "LM params (M)",
}
PRETRAIN = "pretrain_"
PRETRAIN_HEADERS = {
    f"{PRETRAIN}{name}": f"pretraining: {RUN_HEADERS[name]}"
    for name in (
        "minutes",
        "gpu_hours",
        "peak_memory_mb",
        "audio_seconds_per_second",
        "energy_joules",
    )
}
MEASURED_HEADERS = {
    "gmacs_per_s": "GMACs per s of audio",
    "file_mb": "model file (MB)",
    "inference_speed": "inference (audio s/s)",
    "train_step": "training step (ratio)",
    "saved_mb": "activations (MB)",
    "forward_exp": "inference exponent",
    "train_exp": "training exponent",
    "saved_exp": "memory exponent",
    f"{PRETRAIN}step": "pretraining step (ratio)",
    f"{PRETRAIN}saved_mb": "pretraining: activations (MB)",
}
"""Measured without training, all models of the study side by side in one job."""
PART_HEADERS = {"wer": "WER (%)", "cer": "CER (%)", "rtfx": "RTFx"}
TEXT_HEADERS = {"ppl": "perplexity", "bpc": "bits/character"}
"""Of the neural language model, on the transcripts of a part."""
PROBE_HEADERS = {"theme": "theme (%)", "letters": "letters (%)"}
"""Of the best layer, told by a linear probe, on a part."""
BARE_HEADERS = TEXT_HEADERS | PROBE_HEADERS
"""Of a part, whatever the decoder."""
SPEAKER_HEADERS = {"speaker": "speaker (%)"}
"""Likewise; its speakers are those of the training parts."""
WHOLE_HEADERS = RUN_HEADERS | PRETRAIN_HEADERS | MEASURED_HEADERS | SPEAKER_HEADERS
"""Of a model, whatever the part."""
SOURCES = {
    **{"wer": "score", "cer": "score", "rtfx": "decode"},
    **dict.fromkeys(("lm_params", *TEXT_HEADERS), "neural_lm"),
    **dict.fromkeys(PRETRAIN_HEADERS, "pretrain"),
    **dict.fromkeys(MEASURED_HEADERS, "measure"),
    **dict.fromkeys((*PROBE_HEADERS, *SPEAKER_HEADERS), "probe"),
}


@dataclass(frozen=True)
class Column:
    """A parsed column name: a quantity of the training, or of one part, perhaps by one decoder."""

    name: str
    quantity: str
    part: str = ""
    decoder: str = ""

    @property
    def header(self) -> str:
        """What a reader sees above the column."""
        if not self.part:
            return WHOLE_HEADERS[self.quantity]
        if not self.decoder:
            return f"{BARE_HEADERS[self.quantity]} {self.part}"
        suffix = "" if self.decoder == LM_DECODER else f" {self.decoder}"
        return f"{PART_HEADERS[self.quantity]} {self.part}{suffix}"

    @property
    def is_error_rate(self) -> bool:
        return self.quantity in ("wer", "cer")

    @property
    def is_count(self) -> bool:
        """Whether it counts parameters, which do not vary with the seed."""
        return self.quantity in ("params", "lm_params")

    @property
    def source(self) -> str:
        """The stage whose directory holds the number."""
        return SOURCES.get(self.quantity, "train")


def is_measured(name: str) -> bool:
    """Whether the stage `measure` must run for this column."""
    return name in MEASURED_HEADERS


def parse_column(name: str) -> Column:
    """Split `quantity`, or `quantity/part` with or without a decoder; any part will do."""
    quantity, *rest = name.split("/")
    if not rest and quantity in WHOLE_HEADERS:
        return Column(name, quantity)
    if quantity in BARE_HEADERS and len(rest) == 1 and rest[0]:
        return Column(name, quantity, rest[0])
    if quantity in PART_HEADERS and len(rest) in (1, 2) and rest[0]:
        decoder = rest[1] if len(rest) == 2 else LM_DECODER
        if decoder in DECODERS:
            return Column(name, quantity, rest[0], decoder)
    raise _unknown(name, valid_columns())


def expand_columns(
    names: Sequence[str], parts: Sequence[str], decoders: Sequence[str]
) -> tuple[str, ...]:
    """The columns that a study asks for: `wer/*` is one of every part, `wer/*/*` of every decoder.

    Parts are in their order, and within a part the decoders; a column is shown once.
    """
    found: dict[Column, str] = {}
    for name in names:
        choices = zip(name.split("/"), ((), parts, decoders), strict=False)
        for fields in product(*(known if field == EVERY else (field,) for field, known in choices)):
            column = parse_column("/".join(fields))
            found.setdefault(replace(column, name=""), column.name)
    return tuple(found.values())


def check_column(
    name: str, parts: Sequence[str] = LIBRISPEECH_PARTS, *, every: bool = False
) -> None:
    """Raise, with the nearest valid name, unless `name` is a column over one of `parts`.

    With `every`, a `*` may stand for all of them, and for all decoders.
    """
    valid = valid_columns(parts)
    if every:
        valid = valid_columns([*parts, EVERY], [*DECODERS, EVERY])
    if name not in valid:
        raise _unknown(name, valid)


def valid_columns(
    parts: Sequence[str] = LIBRISPEECH_PARTS, decoders: Sequence[str] = DECODERS
) -> list[str]:
    """Every column name there is for a corpus with these parts."""
    names = list(WHOLE_HEADERS)
    for quantity in PART_HEADERS:
        for part in parts:
            names.append(f"{quantity}/{part}")
            names.extend(f"{quantity}/{part}/{decoder}" for decoder in decoders)
    return names + [f"{quantity}/{part}" for quantity in BARE_HEADERS for part in parts]


def _unknown(name: str, valid: Sequence[str]) -> LightasrError:
    nearest = get_close_matches(name, valid, n=1, cutoff=0.0)[0]
    whole, part, bare = (", ".join(WHOLE_HEADERS), "|".join(PART_HEADERS), "|".join(BARE_HEADERS))
    return LightasrError(
        f"unknown column {name!r}: did you mean {nearest!r}? Columns are {whole}, "
        f"{part}/<part>[/{'|'.join(DECODERS)}], or {bare}/<part>, in a study's columns with "
        f"{EVERY} for every test part or decoder"
    )
