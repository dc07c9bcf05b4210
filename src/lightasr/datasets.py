"""The corpora of `config/datasets.yaml` and of a scale: where their parts come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightasr import schema
from lightasr.configfile import read_yaml
from lightasr.errors import LightasrError, Mistakes
from lightasr.invalid import Layer, check, nearest, place

FILE = "config/datasets.yaml"
# What a directory of manifests is read from; the audio beside them may be anything.
MANIFESTS = ("wav.scp", "segments", "text", "utt2spk", "*.jsonl", "*.jsonl.gz")


@dataclass
class Datasets:
    """Every corpus that `corpus.name` may name."""

    project: Path
    entries: dict[str, schema.Dataset]
    places: dict[str, str]
    """File and key of each entry, for messages."""
    mirrors: tuple[str, ...]
    """What is asked for an archive before its publisher."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of files that were read before, by path."""

    @classmethod
    def load(
        cls,
        project: Path,
        scale_file: str,
        of_scale: dict[str, schema.Dataset],
        mirrors: tuple[str, ...],
    ) -> Datasets:
        """The common corpora and those of a scale."""
        entries = {
            name: check(schema.Dataset, entry or {}, [Layer(FILE, name, entry or {})])
            for name, entry in read_yaml(project / FILE).items()
        }
        places = {name: f"{FILE}: {name}" for name in entries}
        for name, dataset in of_scale.items():
            where = f"{scale_file}: datasets: {name}"
            if name in entries:
                raise LightasrError(f"{where}: there is one of this name in {FILE}")
            entries[name], places[name] = dataset, where
        return cls(project, entries, places, mirrors)

    def __getitem__(self, name: str) -> schema.Dataset:
        return self.entries[name]

    def part(self, name: str, part: str) -> schema.Part:
        return self.entries[name].parts[part]

    @property
    def parts(self) -> set[str]:
        """Names of all parts of all corpora."""
        return {part for dataset in self.entries.values() for part in dataset.parts}

    def source(self, name: str, part: str) -> schema.Source:
        """What tells the content of a published archive."""
        known = self.part(name, part)
        return schema.Source(
            file=known.file or f"{part}.tar.gz", md5=known.md5, sha256=known.sha256
        )

    def urls(self, name: str, part: str) -> list[str]:
        """Where an archive may be had, best first."""
        file, known = self.source(name, part).file, self.part(name, part)
        nearby = [_below(mirror, file) for mirror in self.mirrors]
        published = [_below(mirror, known.folder, file) for mirror in self[name].mirrors]
        found = dict.fromkeys([*nearby, *known.urls, *published])
        return [
            url if "://" in url else str(self.project / Path(url).expanduser()) for url in found
        ]

    def path(self, name: str, part: str) -> str:
        """What a part of one's own is read from: its manifest or its text."""
        own = self.part(name, part)
        path = own.text if own.manifest is None else own.manifest
        assert path is not None  # who asks knows that it is not an archive
        return str(Path(path).expanduser())

    def content(self, name: str, part: str) -> str:
        """Digest of what a part of one's own is read from."""
        path = self.path(name, part)
        if path not in self.digests:
            try:
                self.digests[path] = content_digest(self.project / path)
            except LightasrError as error:
                key = "text" if self.part(name, part).manifest is None else "manifest"
                where = f"{self.places[name]}: parts.{part}.{key}"
                raise LightasrError(f"{where}: {error} (see docs/own-corpus.md)") from None
        return self.digests[path]

    def check(self, corpus: schema.Corpus, layers: Sequence[Layer]) -> None:
        """The corpus exists, so do its named parts, and each holds what it is named for."""
        dataset = self.entries.get(corpus.name)
        if dataset is None:
            raise LightasrError(
                f"{place(['corpus', 'name'], list(layers))}: no dataset '{corpus.name}' in "
                f"config/datasets.yaml{nearest(corpus.name, list(self.entries))}"
            )
        mistakes = Mistakes()
        named = [("train", corpus.train), ("dev", (corpus.dev,)), ("test", corpus.test)]
        for key, parts in [*named, ("text", (corpus.text,) if corpus.text else ())]:
            for part in parts:
                if (wrong := _wrong(dataset, corpus.name, key, part)) is not None:
                    mistakes.add(f"{place(['corpus', key], list(layers))}: {wrong}")
                elif dataset.parts[part].manifest or dataset.parts[part].text:
                    with mistakes.noted():
                        self.content(corpus.name, part)
        mistakes.tell()


def _wrong(dataset: schema.Dataset, corpus: str, key: str, name: str) -> str | None:
    """Why a part is none for this key of `corpus`."""
    part = dataset.parts.get(name)
    if part is None:
        return f"dataset '{corpus}' has no part '{name}'{nearest(name, list(dataset.parts))}"
    if key == "text" and part.manifest is not None:
        return f"'{name}' holds recordings, not text"
    if key != "text" and part.text is not None:
        return f"'{name}' holds text, not recordings"
    if not part.transcribed:
        return f"'{name}' is not transcribed: only `pretrain.parts` may name it"
    return None


def _below(*parts: str) -> str:
    return "/".join(part.rstrip("/") for part in parts if part)


def content_digest(path: Path) -> str:
    """Ten hex digits for the content of a file, or of the manifests in a directory."""
    if path.is_dir():
        files = sorted(file for pattern in MANIFESTS for file in path.glob(pattern))
        if not files:
            raise LightasrError(
                f"{path}: holds neither wav.scp (Kaldi) nor *.jsonl.gz (lhotse's manifests)"
            )
    elif path.is_file():
        files = [path]
    else:
        raise LightasrError(f"{path}: no such file or directory; write where yours is")
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
        if path.is_dir():
            whole.update(file.name.encode())
    return whole.hexdigest()[:10]
