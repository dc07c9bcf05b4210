"""The beam searches by the names that `decode.decoders` gives them."""

from __future__ import annotations

import json
from pathlib import Path

from lightasr import schema
from lightasr.decode.beam import PrefixSearch, Pruning
from lightasr.decode.hypotheses import Search
from lightasr.errors import LightasrError
from lightasr.lm.ngram import ARPA, SUMMARY
from lightasr.text.tokenizers import load_tokenizer


def load_search(name: str, config: schema.Decode, train: Path, lm: Path) -> Search:
    """A search over the symbols of a trained model with the n-gram of a directory."""
    tokenizer = load_tokenizer(train)
    unit = json.loads((lm / SUMMARY).read_text())["unit"]
    if name == "beam":
        return PrefixSearch(
            tokenizer,
            lm / ARPA,
            unit="word" if unit == "word" else "symbol",
            closed=config.lexicon and unit == "word",
            unknown_score=config.unknown_score,
            pruning=Pruning(
                config.beam_size, config.beam_threshold, config.tokens, config.token_threshold
            ),
            nbest=config.nbest,
            times=True,
        )
    if unit != "word":
        raise LightasrError(f"decode.decoders: flashlight needs an n-gram of words, not of {unit}s")
    try:
        from lightasr.decode.flashlight import FlashlightSearch
    except ModuleNotFoundError as error:
        raise LightasrError(
            f"decode.decoders: flashlight needs the package {error.name}: "
            "pip install 'lightasr[flashlight]'"
        ) from None
    return FlashlightSearch(tokenizer, lm, config.beam_size, config.beam_threshold, config.nbest)
