"""Stage `archive`: the built-in corpus is made, any other archive comes from its publisher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightasr.data import download
from lightasr.data.sample.build import build_lm_text, build_part
from lightasr.errors import LightasrError, RetryError
from lightasr.plan import Plan
from lightasr.progress import say
from lightasr.schema import ArchiveSlice
from lightasr.stage import execute
from lightasr.threads import usable_cores


def fetch_all(plan: Plan) -> None:
    """Every archive of a plan; one that cannot be had does not keep the others from coming."""
    jobs = plan.of_stage("archive")
    missing = [job for job in jobs if not job.done(plan.project)]
    sizes = [job.places["bytes"] for job in missing if job.places]
    known = bool(sizes) and None not in sizes
    to_load = f", {download.amount(sum(sizes))} to download" if known else ""
    say(f"{len(missing)} of {len(jobs)} archives are missing{to_load}")
    failed: list[LightasrError] = []
    for job in missing:
        try:
            execute(plan, job)
        except LightasrError as error:
            failed.append(error)
    if failed:
        retry = all(isinstance(error, RetryError) for error in failed)
        raise (RetryError if retry else LightasrError)("\n".join(map(str, failed)))


def run(
    config: ArchiveSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any] | None:
    """The archive under its own name: `out/<part>.tar.gz`, or what its publisher calls it."""
    if config.sample is None:
        assert config.source is not None  # what is not made is published
        wanted = download.Archive(
            name=config.part, urls=config.urls, bytes=config.bytes, **config.source.model_dump()
        )
        return download.fetch(wanted, out, work)
    if config.part == "lm-text":
        build_lm_text(config.sample, out)
    else:
        build_part(config.part, config.sample, out, processes=usable_cores())
    return None
