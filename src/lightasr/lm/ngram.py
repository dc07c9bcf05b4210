"""Makes the n-gram of the beam search: counted by KenLM's `lmplz`, ready-made, or a mix of two."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightasr.errors import LightasrError
from lightasr.lm.arpa import Arpa, read_arpa
from lightasr.lm.arpa_writer import write_arpa
from lightasr.lm.interpolate import fit_weight, interpolate
from lightasr.lm.kenlm_binary import is_binary, read_binary
from lightasr.lm.programs import Corpus, count_ngrams, find_program, write_binary
from lightasr.lm.sources import TEXTS, one_file, pack, read_text, unpack
from lightasr.lm.tables import NOT_WORDS, build
from lightasr.lm.units import Units
from lightasr.progress import say, track
from lightasr.text.tokenizers import load_tokenizer
from lightasr.text.transcripts import read_transcripts, training_transcripts

if TYPE_CHECKING:
    from lightasr import schema

BINARY, ARPA, WORDS, SUMMARY = "lm.bin", "lm.arpa.gz", "words.txt", "lm.json"
MODELS = (".arpa", ".gz", ".bin")
TOLD = 3


@dataclass(frozen=True)
class Lines:
    """Text as it is found, and what it is called."""

    name: str
    lines: Iterator[str]


@dataclass(frozen=True)
class Source:
    """A model, counted or ready-made."""

    model: Arpa
    file: Path
    """In ARPA format."""
    corpus: Corpus | None
    fallback: bool | None
    """Whether the text was too small to estimate the discounts from; None where not counted."""


def run(config: schema.LanguageModelSlice, inputs: dict[str, Path], out: Path, work: Path) -> None:
    """The stage `lm`: `lm.arpa.gz`, `lm.bin`, `words.txt` and `lm.json`."""
    started = time.monotonic()
    if not (inputs.keys() & {"text", "arpa"} or config.transcripts):
        raise LightasrError(
            "a language model needs text: name a part of the corpus in corpus.text, or set "
            "lm.transcripts: true"
        )
    maker = _Maker(config, inputs, work / "lm")
    maker.scratch.mkdir(exist_ok=True)  # a killed attempt leaves it; its files are written over
    sources = maker.sources()
    model, file, weight = sources[0].model, sources[0].file, None
    if config.interpolate:
        model, weight = maker.mix(*(source.model for source in sources))
        file = maker.scratch / "mixed.arpa"
        write_arpa(file, model)
    words = sorted(set(model.words) - NOT_WORDS)
    plain = unpack(file, maker.scratch)
    write_binary(maker.build_binary, config, plain, out / BINARY, maker.scratch)
    pack(file, out / ARPA)
    (out / WORDS).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    summary = {
        "unit": config.unit,
        "order": len(model.orders),
        "prune": list(config.prune),
        "transcripts": any(name.startswith("features/") for name in inputs),
        "ready": "arpa" in inputs,
        "weight": weight,
        **_of_text(sources, words),
        "words": len(words),
        "counts": {str(n): len(ngrams.logp) for n, ngrams in enumerate(model.orders, start=1)},
        "format": config.format,
        "bits": config.bits,
        "bytes": (out / BINARY).stat().st_size,
        "arpa_bytes": (out / ARPA).stat().st_size,
        "seconds": round(time.monotonic() - started, 3),
    }
    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(maker.scratch)


def _of_text(sources: Iterable[Source], words: Iterable[str]) -> dict[str, Any]:
    """What was counted; null where a model came ready-made."""
    corpora = [source.corpus for source in sources if source.corpus is not None]
    if not corpora:
        names = ("sentences", "sentences_left_out", "running_words", "words_left_out")
        return dict.fromkeys((*names, "discount_fallback"))
    units = set[str]().union(*(corpus.units for corpus in corpora))
    return {
        "sentences": sum(corpus.sentences for corpus in corpora),
        "sentences_left_out": sum(corpus.left_out for corpus in corpora),
        "running_words": sum(corpus.units.total() for corpus in corpora),
        "words_left_out": len(units.difference(words)),
        "discount_fallback": any(source.fallback for source in sources),
    }


class _Maker:
    """Makes the models of one configuration in a scratch folder."""

    def __init__(
        self, config: schema.LanguageModelSlice, inputs: dict[str, Path], scratch: Path
    ) -> None:
        self.config, self.inputs, self.scratch = config, inputs, scratch
        self.build_binary = find_program("build_binary")
        counts = "arpa" not in inputs or config.interpolate
        self._lmplz = find_program("lmplz") if counts else ""
        tokenizer = load_tokenizer(inputs["tokenizer"]) if "tokenizer" in inputs else None
        self._units = Units(config.text, tokenizer)

    def sources(self) -> list[Source]:
        """The model, or the two that are mixed."""
        text: list[Lines] = []
        if "text" in self.inputs:
            path = one_file(self.inputs["text"], TEXTS, "of text")
            text = [Lines(str(path), read_text(path))]
        transcripts = [Lines("the training transcripts", self._transcripts())]
        if not (self.config.interpolate or "arpa" in self.inputs):
            return [self._count("text", text + (transcripts if self.config.transcripts else []))]
        first = self._ready() if "arpa" in self.inputs else self._count("text", text)
        if not self.config.interpolate:
            return [first]
        return [first, self._count("transcripts", transcripts)]

    def mix(self, first: Arpa, second: Arpa) -> tuple[Arpa, float]:
        """The two models as one, and the weight of the first."""
        dev = self.inputs["dev"]
        sentences = [
            self._units.split_with_unknown(self._units.written(text))
            for _, text in read_transcripts(dev)
        ]
        if not any(sentences):
            raise LightasrError(f"{dev}: no transcript to fit the weight of interpolation on")
        weight = fit_weight(first, second, sentences)
        say(f"lm: weight {weight:.3f}, {1 - weight:.3f} for the transcripts")
        with track("lm: interpolate"):
            return interpolate(first, second, weight), weight

    def _transcripts(self) -> Iterator[str]:
        for _, text in training_transcripts(self.inputs):
            yield text

    def _ready(self) -> Source:
        """A model of somebody else's, after a look at it."""
        given = one_file(self.inputs["arpa"], MODELS, "that is a language model")
        if is_binary(given):
            model, file = read_binary(given), self.scratch / "ready.arpa"
            write_arpa(file, model)
        else:
            model, file = read_arpa(given), given
        with track("lm: check"):
            build(model, given)
        self._check_spelling(model, given)
        return Source(model, file, None, None)

    def _check_spelling(self, model: Arpa, given: Path) -> None:
        """Words that no transcript is written in are words that no decoder finds."""
        if self.config.unit != "word":
            return
        words = [word for word in model.words if word not in NOT_WORDS]
        other = [word for word in words if self._units.written(word) != word]
        if 2 * len(other) > len(words):
            shown = ", ".join(
                f"{word} would be {self._units.written(word) or 'nothing'}" for word in other[:TOLD]
            )
            raise LightasrError(
                f"{given}: {len(other)} of its {len(words)} words are not written as `text` asks "
                f"({shown}): set `text` to what the model was made from, or give another model"
            )

    def _count(self, name: str, lines: list[Lines]) -> Source:
        """A model of some text."""
        corpus = self._write_corpus(lines, self.scratch / f"{name}.txt")
        file = self.scratch / f"{name}.arpa"
        fallback = count_ngrams(self._lmplz, self.config, corpus, file)
        return Source(read_arpa(file), file, corpus, fallback)

    def _write_corpus(self, sources: list[Lines], path: Path) -> Corpus:
        """All text in one plain file: lmplz may have to read it twice, its vocabulary known."""
        counts: Counter[str] = Counter()
        sentences = left_out = 0
        with path.open("w", encoding="utf-8", newline="\n") as corpus:
            for line in (line for source in sources for line in source.lines):
                sentence = self._units.written(line)
                units = self._units.split(sentence)
                if units is None:
                    left_out += 1
                elif units:
                    corpus.write(f"{' '.join(units)}\n")
                    counts.update(units)
                    sentences += 1
        names = " and ".join(source.name for source in sources)
        if not sentences:
            why = f": the tokenizer can write none of {left_out}" if left_out else ""
            raise LightasrError(f"{names}: no sentence to build a model from{why}")
        if left_out:
            say(f"lm: {left_out} sentences of {names} left out: the tokenizer cannot write them")
        return Corpus(path, counts, sentences, left_out)
