"""Stage `decode`: hypotheses of a trained model for the held-out parts, by every decoder asked."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import Utterance, read_held_out
from lightasr.decode.beam import BeamDecoder, Tuning, Weights
from lightasr.decode.greedy import greedy
from lightasr.models.trained import Trained, load_trained
from lightasr.progress import say, track
from lightasr.text.tokenizers import Tokenizer
from lightasr.threads import usable_cores

BATCH_SECONDS = 120.0
COLUMNS = ("id", "speaker", "seconds", "reference", "hypothesis")

Scored = list[tuple[Utterance, Tensor]]


def run(
    config: schema.DecodeSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`<part>.<decoder>.tsv` for each part and decoder, and `decode.json`."""
    torch.set_num_threads(usable_cores())
    trained = load_trained(inputs["train"])
    scored: dict[str, Scored] = {}
    model_seconds: dict[str, float] = {}
    with track(f"decode {work.name}: log-probabilities") as bar:
        for name, directory in inputs.items():
            if name.startswith("features/"):
                part = name.removeprefix("features/")
                scored[part], model_seconds[part] = score_part(trained, directory, config.text)
                bar.update(len(scored[part]), part=part)

    report: dict[str, Any] = {"tuned": None, "surface": [], "parts": {part: {} for part in scored}}
    for decoder in config.decoders:
        if decoder == "beam":
            report |= beam_search(config, trained.tokenizer, inputs["lm"], scored, out, report)
        else:
            for part, utterances in scored.items():
                started = time.monotonic()
                texts = [
                    greedy(logp_tv[None], torch.tensor([len(logp_tv)]), trained.tokenizer)[0]
                    for _, logp_tv in utterances
                ]
                write_hypotheses(out, part, decoder, utterances, texts)
                report["parts"][part][decoder] = timing(utterances, time.monotonic() - started)
    for part, timings in report["parts"].items():
        for measured in timings.values():
            measured["seconds"] = model_seconds[part] + measured["search_seconds"]
    (out / "decode.json").write_text(json.dumps(report, indent=1) + "\n")
    return {"device": str(trained.device)}


def score_part(trained: Trained, directory: Path, text: schema.Text) -> tuple[Scored, float]:
    """Log-probabilities of a part's utterances, and the seconds the model took."""
    utterances = read_held_out(directory, text)
    started = time.monotonic()
    scored = list(trained.score_utterances(utterances, BATCH_SECONDS))
    seconds = time.monotonic() - started
    return sorted(scored, key=lambda pair: pair[0].id), seconds


def beam_search(
    config: schema.DecodeSlice,
    tokenizer: Tokenizer,
    lm: Path,
    scored: dict[str, Scored],
    out: Path,
    report: dict[str, Any],
) -> dict[str, Any]:
    """Tune the weights on the dev part, then search every part with them."""
    with BeamDecoder(
        tokenizer,
        lm,
        beam_size=config.beam_size,
        beam_threshold=config.beam_threshold,
        weights=Weights(config.lm_weights[0], config.word_scores[0]),
        processes=usable_cores(),
    ) as decoder:
        tuning = tune(decoder, config, scored[config.dev])
        decoder.weights = tuning.best
        parts = report["parts"]
        for part, utterances in scored.items():
            started = time.monotonic()
            found = decoder.decode_each([logp_tv for _, logp_tv in utterances])
            texts = [hypotheses[0].text for hypotheses in found]
            write_hypotheses(out, part, "beam", utterances, texts)
            parts[part]["beam"] = timing(utterances, time.monotonic() - started)
    return {"tuned": asdict(tuning.best), "surface": tuning.surface, "parts": parts}


def tune(decoder: BeamDecoder, config: schema.DecodeSlice, dev: Scored) -> Tuning:
    """The weights that do best on the dev part."""
    tuning = decoder.tune(
        [logp_tv for _, logp_tv in dev],
        [utterance.text for utterance, _ in dev],
        config.lm_weights,
        config.word_scores,
    )
    say(f"tuned on {config.dev}: {tuning.best}")
    return tuning


def timing(utterances: Scored, search_seconds: float) -> dict[str, float]:
    return {
        "search_seconds": search_seconds,
        "audio_seconds": sum(utterance.seconds for utterance, _ in utterances),
        "utterances": len(utterances),
    }


def write_hypotheses(
    out: Path, part: str, decoder: str, utterances: Scored, texts: list[str]
) -> None:
    """One line an utterance, in the order of ids."""
    with (out / f"{part}.{decoder}.tsv").open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writerow(COLUMNS)
        for (utterance, _), text in zip(utterances, texts, strict=True):
            writer.writerow(
                [utterance.id, utterance.speaker, f"{utterance.seconds:.3f}", utterance.text, text]
            )
