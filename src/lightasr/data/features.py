"""Stage `features`: packs the features of a part, from its archive or from a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightasr import schema
from lightasr.data.cuts import SPEAKERS
from lightasr.data.librispeech import Rejected, read_archive
from lightasr.data.manifests import read_manifest
from lightasr.data.shards import Spoken, Tally, make_shards, pack
from lightasr.errors import LightasrError
from lightasr.files import write_atomically
from lightasr.progress import Bar, say, track
from lightasr.threads import usable_cores

REJECTED = "rejected.tsv"
TOLD = 3


def run(
    config: schema.FeaturesSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`cuts.jsonl.gz`, `feats.lca`, `speakers.json` and `rejected.tsv` of one part."""
    rejected: Rejected = []
    source = _source(config, inputs)
    with track(f"features {config.part}") as bar:
        spoken = _spoken(config, source, rejected, bar)
        made, hours = [], 0.0
        for shard in make_shards(spoken, config, work / "shards", usable_cores()):
            made.append(shard)
            hours += shard.seconds / 3600
            bar.update(0, hours=hours)
    tally = pack(made, out)
    reasons = _write_rejected(rejected + tally.rejected, out)
    _check(config, tally, reasons, source)
    voices = {name: voice.moments() for name, voice in sorted(tally.voices.items())}
    write_atomically(out / SPEAKERS, json.dumps(voices))
    for line in _summary(config, tally, len(reasons)):
        say(f"features {config.part}  {line}")
    return {
        "utterances": tally.utterances,
        "audio_seconds": tally.seconds,
        "rejected": len(reasons),
        "sample_rates": dict(tally.sample_rates),
        "channels": dict(tally.channels),
    }


def _source(config: schema.FeaturesSlice, inputs: dict[str, Path]) -> Path:
    """The manifest of one's own recordings, or the archive of a part."""
    if config.content is not None:
        return inputs["manifest"]
    folder = inputs["archive"]
    found = sorted(folder.glob("*.tar*"))
    if len(found) != 1:
        raise LightasrError(f"{folder}: holds {len(found)} archives (*.tar*), expected one")
    return found[0]


def _spoken(
    config: schema.FeaturesSlice, source: Path, rejected: Rejected, bar: Bar
) -> Iterator[Spoken]:
    """Utterances in their order; `bar` counts bytes of an archive, lines of a manifest."""
    if config.content is None:
        bar.total = source.stat().st_size
        yield from read_archive(source, rejected, bar)
        return
    entries = read_manifest(source, rejected, config.split, config.transcribed)
    bar.total = len(entries)
    for entry in entries:
        yield entry
        bar.update(1)


def _write_rejected(rejected: Rejected, out: Path) -> dict[str, str]:
    """Every id once, with the first thing that was wrong with it."""
    reasons = dict(reversed(rejected))
    lines = ["id\treason", *(f"{name}\t{_line(reasons[name])}" for name in sorted(reasons))]
    write_atomically(out / REJECTED, "\n".join(lines) + "\n")
    return reasons


def _line(reason: str) -> str:
    return " ".join(reason.split())


def _check(
    config: schema.FeaturesSlice, tally: Tally, reasons: dict[str, str], source: Path
) -> None:
    """A part with many bad utterances is not what its user thinks it is."""
    whole = tally.utterances + len(reasons)
    if tally.utterances and len(reasons) <= config.max_rejected * whole:
        return
    told = "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons)[:TOLD])
    raise LightasrError(
        f"{source}: {len(reasons)} of {whole} utterances are bad "
        f"(features.max_rejected allows {config.max_rejected:.0%}): {told or 'it is empty'}"
    )


def _summary(config: schema.FeaturesSlice, tally: Tally, rejected: int) -> list[str]:
    """What a user should know of a part: its size, and what was changed or left out."""
    lines = [f"{tally.utterances} utterances, {tally.seconds / 3600:.2f} h, {rejected} rejected"]
    other = {f"{rate} Hz": n for rate, n in tally.sample_rates.items()}
    other.pop(f"{config.sample_rate} Hz", None)
    if other:
        told = ", ".join(f"{count} from {rate}" for rate, count in sorted(other.items()))
        lines.append(f"resampled to {config.sample_rate} Hz: {told}")
    mixed = {channels: n for channels, n in tally.channels.items() if channels != "1"}
    if mixed:
        told = ", ".join(f"{count} of {channels}" for channels, count in sorted(mixed.items()))
        lines.append(f"channels averaged into one: {told}")
    return lines
