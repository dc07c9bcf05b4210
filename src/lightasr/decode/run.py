"""Stage `decode`: hypotheses of a trained model for the held-out parts, by every decoder asked."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lightasr import schema
from lightasr.data.batches import read_held_out
from lightasr.decode.decoders import load_search
from lightasr.decode.greedy import greedy
from lightasr.decode.hypotheses import Found, Hypothesis, Search, Weights, Word
from lightasr.decode.logits import Scored, load_scored, made_from, score_part
from lightasr.decode.parallel import Decoder
from lightasr.decode.rescoring import rescore
from lightasr.decode.tuning import Tuned, narrow, tune
from lightasr.files import write_atomically
from lightasr.jobs import digest
from lightasr.lm.ngram import ARPA
from lightasr.models.trained import load_trained
from lightasr.progress import say, track
from lightasr.score.columns import LM_DECODER, RESCORED
from lightasr.text.tokenizers import load_tokenizer
from lightasr.threads import usable_cores
from lightasr.verify import content_digest

COLUMNS = ("id", "speaker", "seconds", "reference", "hypothesis")
UTTERANCES_PER_SAVE = 200


def run(
    config: schema.DecodeSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`<part>.<decoder>.tsv` for each part and decoder, the n-best beside it, and `decode.json`."""
    torch.set_num_threads(usable_cores())
    scored = score_parts(config, inputs, work)
    kept = attempts(inputs, scored, work)
    report: dict[str, Any] = {"tuned": {}, "parts": {part: {} for part in scored}}
    for name in config.decoders:
        if name == "greedy":
            found = {part: decode_greedily(one, inputs["train"]) for part, one in scored.items()}
        else:
            search = load_search(name, config, inputs["train"], inputs["lm"])
            if search.left_out:
                say(f"{name}: the tokenizer cannot write {search.left_out} of the n-gram's words")
            tuned = tune_on(scored[config.dev], search, config, kept / f"{name}.json")
            say(f"{name}: tuned on {config.dev}: {tuned.weights}, beam {tuned.beam}")
            report["tuned"][name] = asdict(tuned)
            with Decoder(search.of(beam=tuned.beam), usable_cores()) as decoder:
                found = {
                    part: search_part(decoder, tuned.weights, one, kept / f"{part}.{name}.jsonl")
                    for part, one in scored.items()
                }
        write_found(name, found, scored, out, report)
        if name == LM_DECODER and "neural_lm" in inputs:
            references = [utterance.text for utterance in scored[config.dev].utterances]
            rescored, rescoring = rescore(found, config.dev, references, inputs["neural_lm"])
            report["tuned"][RESCORED] = asdict(rescoring)
            write_found(RESCORED, rescored, scored, out, report)
    (out / "decode.json").write_text(json.dumps(report, indent=1) + "\n")
    return {"device": next(iter(scored.values())).device}


def kept_logits(work: Path, train: str, features: str) -> Path:
    """Where what a model says of a part is kept, beside the stages' own folders for such things."""
    return work.parents[1] / "logits" / train / f"{features}.safetensors"


def score_parts(
    config: schema.DecodeSlice, inputs: dict[str, Path], work: Path
) -> dict[str, Scored]:
    """Every part's log-probabilities: kept ones, or the model's."""
    parts: dict[str, Scored] = {}
    trained = None
    for name, directory in inputs.items():
        if not name.startswith("features/"):
            continue
        utterances = read_held_out(directory, config.text)
        path = kept_logits(work, inputs["train"].name, directory.name)
        source = made_from(inputs["train"], directory)
        scored = load_scored(path, source, utterances)
        if scored is None:
            trained = trained or load_trained(inputs["train"])
            scored = score_part(path, source, trained, utterances, work)
        parts[name.removeprefix("features/")] = scored
    return parts


def attempts(inputs: dict[str, Path], scored: dict[str, Scored], work: Path) -> Path:
    """What earlier attempts found in these log-probabilities, with this language model.

    A model or an n-gram that was made again meanwhile keeps its name, but not its content.
    """
    lm = [content_digest(path / ARPA) for name, path in inputs.items() if name == "lm"]
    kept = work / digest([*lm, *(one.source for one in scored.values())])
    kept.mkdir(exist_ok=True)
    return kept


def decode_greedily(scored: Scored, train: Path) -> tuple[Found, float]:
    """The best symbol of each frame; and the seconds that took."""
    tokenizer = load_tokenizer(train)
    started = time.monotonic()
    texts = [
        greedy(torch.from_numpy(logp_tv)[None], torch.tensor([len(logp_tv)]), tokenizer)[0]
        for logp_tv in scored.logp
    ]
    return [[Hypothesis(text, 0.0)] for text in texts], time.monotonic() - started


def tune_on(dev: Scored, search: Search, config: schema.DecodeSlice, kept: Path) -> Tuned:
    """What does best on the dev part; kept for the next attempt."""
    if kept.exists():
        return Tuned.read(json.loads(kept.read_text()))
    references = [utterance.text for utterance in dev.utterances]
    with Decoder(search.of(nbest=1), usable_cores()) as decoder:
        tuned = tune(decoder, dev.logp, references, config.lm_weights, config.word_scores)
    if config.narrow:
        tuned = narrow(search, tuned, dev.logp, references)
    write_atomically(kept, json.dumps(asdict(tuned)))
    return tuned


def search_part(
    decoder: Decoder, weights: Weights, scored: Scored, kept: Path
) -> tuple[Found, float]:
    """The hypotheses of a part, and the seconds they took; a next attempt goes on after `kept`."""
    found, seconds = read_kept(kept)
    with (
        kept.open("a") as stream,
        track(f"decode: {kept.stem}", total=len(scored.logp)) as bar,
    ):
        bar.update(len(found))
        while len(found) < len(scored.logp):
            started = time.monotonic()
            chunk = scored.logp[len(found) : len(found) + UTTERANCES_PER_SAVE]
            more = list(decoder.decode(chunk, weights))
            took = time.monotonic() - started
            found, seconds = found + more, seconds + took
            line = {"seconds": took, "found": [[asdict(h) for h in best] for best in more]}
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            bar.update(len(more))
    return found, seconds


def read_kept(path: Path) -> tuple[Found, float]:
    """What an earlier attempt found, but for a last line that was cut off."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_atomically(path, "".join(lines))
    kept = [json.loads(line) for line in lines]
    found: Found = [
        [Hypothesis(**{**h, "words": tuple(Word(**word) for word in h["words"])}) for h in best]
        for chunk in kept
        for best in chunk["found"]
    ]
    return found, sum(chunk["seconds"] for chunk in kept)


def write_found(
    name: str,
    found: dict[str, tuple[Found, float]],
    scored: dict[str, Scored],
    out: Path,
    report: dict[str, Any],
) -> None:
    """What a decoder found in each part, the n-best beside it, and how long it took."""
    for part, (hypotheses, seconds) in found.items():
        write_hypotheses(out / f"{part}.{name}.tsv", scored[part], hypotheses)
        if name != "greedy":
            write_nbest(out / f"{part}.{name}.nbest.jsonl", scored[part], hypotheses)
        report["parts"][part][name] = timing(scored[part], seconds)


def timing(scored: Scored, search_seconds: float) -> dict[str, float]:
    return {
        "search_seconds": search_seconds,
        "seconds": scored.seconds + search_seconds,
        "audio_seconds": sum(utterance.seconds for utterance in scored.utterances),
        "utterances": len(scored.utterances),
    }


def write_hypotheses(path: Path, scored: Scored, found: Found) -> None:
    """One line an utterance, in the order of ids."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("\t".join(COLUMNS) + "\n")
        for utterance, best in zip(scored.utterances, found, strict=True):
            seconds = f"{utterance.seconds:.3f}"
            row = (utterance.id, utterance.speaker, seconds, utterance.text, best[0].text)
            stream.write("\t".join(row) + "\n")


def write_nbest(path: Path, scored: Scored, found: Found) -> None:
    """One line an utterance: its best hypotheses, with the times of their words in seconds."""
    with path.open("w") as stream:
        for utterance, logp_tv, best in zip(scored.utterances, scored.logp, found, strict=True):
            second = utterance.seconds / max(1, len(logp_tv))
            line = {"id": utterance.id, "nbest": [nbest_entry(one, second) for one in best]}
            stream.write(json.dumps(line) + "\n")


def nbest_entry(hypothesis: Hypothesis, frame_seconds: float) -> dict[str, Any]:
    words = [
        {
            "word": word.text,
            "start": round(word.first * frame_seconds, 3),
            "end": round((word.last + 1) * frame_seconds, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in hypothesis.words
    ]
    ctc = None if hypothesis.ctc is None else round(hypothesis.ctc, 4)
    return {
        "text": hypothesis.text,
        "score": round(hypothesis.score, 4),
        "ctc": ctc,
        "words": words,
    }
