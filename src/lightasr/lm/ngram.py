"""Builds the word n-gram of the beam search with KenLM's `lmplz` and `build_binary`."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightasr.errors import LightasrError
from lightasr.progress import track
from lightasr.text.normalize import Normalizer
from lightasr.text.transcripts import training_transcripts

if TYPE_CHECKING:
    from lightasr import schema

GZIP = b"\x1f\x8b"  # first bytes of a gzipped file
NOT_WORDS = {"<unk>", "<s>", "</s>"}
# Most frequent words the model knows: the size of LibriSpeech's own vocabulary. Its text has about
# a million different words, whose lexicon would fill gigabytes of every decoding process.
VOCABULARY = 200_000
LINES_PER_UPDATE = 20_000
ERROR_LINES = 12
# lmplz sorts on disk what does not fit, and by default asks for most of a machine's memory.
SORT_BYTES_MIN = 1 << 28
SORT_BYTES_MAX = 1 << 32
SORT_BYTES_PER_TEXT_BYTE = 40


@dataclass(frozen=True)
class Corpus:
    """Normalised text, one sentence a line, and how often each word occurs in it."""

    path: Path
    words: Counter[str]
    sentences: int


def run(config: schema.LanguageModelSlice, inputs: dict[str, Path], out: Path, work: Path) -> None:
    """The stage `lm`: `lm.bin`, `words.txt` and `lm.json`."""
    started = time.monotonic()
    if not ("text" in inputs or config.transcripts):
        raise LightasrError(
            "a language model needs text: name a part of the corpus in corpus.text, or set "
            "lm.transcripts: true"
        )
    lmplz, build_binary = find_program("lmplz"), find_program("build_binary")
    scratch = work / "lm"
    scratch.mkdir(exist_ok=True)  # a killed attempt leaves it; its files are written over
    corpus = _write_corpus(config, inputs, scratch / "corpus.txt")
    arpa = scratch / "lm.arpa"
    fallback = _estimate(lmplz, config, corpus, arpa)
    counts, words = _read_arpa_head(arpa)
    with track("lm: binary"):
        temporary = str(scratch / "trie")
        _call([build_binary, "-T", temporary, "trie", str(arpa), str(out / "lm.bin")])
    (out / "words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    summary = {
        "order": config.order,
        "prune": list(config.prune),
        "transcripts": config.transcripts,
        "sentences": corpus.sentences,
        "running_words": corpus.words.total(),
        "words": len(words),
        "words_left_out": len(corpus.words) - len(words),
        "counts": counts,
        "discount_fallback": fallback,
        "bytes": (out / "lm.bin").stat().st_size,
        "seconds": round(time.monotonic() - started, 3),
    }
    (out / "lm.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(scratch)


def find_program(name: str) -> str:
    """A program of KenLM: beside this Python, where `make setup` puts it, or on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise LightasrError(
            f"{name} (KenLM) is neither beside {sys.executable} nor on the PATH: "
            "`make setup` builds it"
        )
    return found


def _write_corpus(config: schema.LanguageModelSlice, inputs: dict[str, Path], path: Path) -> Corpus:
    """All text in one plain file: lmplz may have to read it twice, with its vocabulary known."""
    normalize = Normalizer(config.text)
    words: Counter[str] = Counter()
    sentences = 0
    with path.open("w", encoding="utf-8", newline="\n") as corpus:
        for line in _lines(config, inputs):
            if sentence := normalize(line):
                corpus.write(f"{sentence}\n")
                words.update(sentence.split(" "))
                sentences += 1
    if not sentences:
        text = [str(_text_file(inputs["text"]))] if "text" in inputs else []
        transcripts = ["the training transcripts"] if config.transcripts else []
        raise LightasrError(
            f"{' and '.join(text + transcripts)}: no sentence to build a model from"
        )
    return Corpus(path, words, sentences)


def _lines(config: schema.LanguageModelSlice, inputs: dict[str, Path]) -> Iterator[str]:
    """The text, then the training transcripts."""
    if "text" in inputs:
        yield from _read_text(_text_file(inputs["text"]))
    if config.transcripts:
        for _, text in training_transcripts(inputs):
            yield text


def _text_file(given: Path) -> Path:
    """A file of the user's own, or the one in the directory of a published text."""
    if not given.is_dir():
        return given
    found = sorted(path for path in given.iterdir() if path.suffix in {".gz", ".txt"})
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise LightasrError(f"{given}: expected one file .txt or .gz of text, found {names}")
    return found[0]


def _read_text(path: Path) -> Iterator[str]:
    """Lines of plain or gzipped text, whatever its name says."""
    number = 0
    try:
        with (
            path.open("rb") as file,
            _unpacked(file) as lines,
            track("lm: text", total=path.stat().st_size) as bar,
        ):
            for number, line in enumerate(lines, start=1):
                yield line.decode().rstrip("\r\n")
                if number % LINES_PER_UPDATE == 0:
                    bar.update(file.tell() - bar.done, lines=number)
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise LightasrError(
            f"{path}:{number}: not UTF-8 text ({error.reason} at byte {error.start + 1} of the "
            "line): convert the file, for example with `iconv`"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise LightasrError(f"{path}: not readable: {error}") from error


def _unpacked(file: io.BufferedReader) -> io.BufferedReader:
    return io.BufferedReader(gzip.open(file)) if file.peek(2)[:2] == GZIP else file


def _estimate(lmplz: str, config: schema.LanguageModelSlice, corpus: Corpus, arpa: Path) -> bool:
    """Write the ARPA file; True if the text was too small to estimate the discounts from."""
    size = corpus.path.stat().st_size * SORT_BYTES_PER_TEXT_BYTE
    memory = min(max(size, SORT_BYTES_MIN), SORT_BYTES_MAX)
    command = [lmplz, "--order", str(config.order), "--text", str(corpus.path)]
    command += ["--arpa", str(arpa), "--memory", f"{memory}b", "--temp_prefix", f"{arpa}-sort"]
    command += ["--skip_symbols"]  # a text with its punctuation may hold `<s>`
    if config.prune:
        command += ["--prune", *(str(count) for count in config.prune[: config.order])]
    if len(corpus.words) > VOCABULARY:
        command += ["--limit_vocab_file", str(_write_vocabulary(corpus))]
    with track("lm: counts"):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode and "rerun with --discount_fallback" in result.stderr:
            _call([*command, "--discount_fallback"])
            return True
    _check(result)
    return False


def _write_vocabulary(corpus: Corpus) -> Path:
    path = corpus.path.with_name("vocabulary.txt")
    ranked = sorted(corpus.words.items(), key=lambda item: (-item[1], item[0]))
    path.write_text("".join(f"{word}\n" for word, _ in ranked[:VOCABULARY]), encoding="utf-8")
    return path


def _call(command: list[str]) -> None:
    _check(subprocess.run(command, capture_output=True, text=True, check=False))


def _check(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode:
        tail = "\n".join(result.stderr.strip().splitlines()[-ERROR_LINES:])
        raise LightasrError(
            f"{Path(result.args[0]).name} failed with exit status {result.returncode}:\n{tail}"
        )


def _read_arpa_head(arpa: Path) -> tuple[dict[str, int], list[str]]:
    """The number of n-grams of each order, and the sorted words, from the head of an ARPA file."""
    counts: dict[str, int] = {}
    words: list[str] = []
    with arpa.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("\\2-grams"):
                break
            if line.startswith("ngram "):
                order, _, count = line.removeprefix("ngram ").partition("=")
                counts[order] = int(count)
            elif line.count("\t"):
                words.append(line.split("\t")[1].rstrip("\n"))
    return counts, sorted(set(words) - NOT_WORDS)
