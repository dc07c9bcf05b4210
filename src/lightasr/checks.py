"""What no single key of an experiment can tell: whether its settings go together."""

from __future__ import annotations

from pathlib import Path

from lightasr import schema
from lightasr.datasets import Datasets
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, nearest, place


def check_experiment(config: schema.Experiment, layers: list[Layer], datasets: Datasets) -> None:
    """`layers` go from the scale's to the entry's own, to tell which of them is to be changed."""
    datasets.check(config.corpus, layers)
    _check_language_model(config, layers, datasets)
    _check_neural_lm(config, layers)
    _check_pretrain(config, layers, datasets)


def _check_language_model(
    config: schema.Experiment, layers: list[Layer], datasets: Datasets
) -> None:
    """A beam search has something to make its n-gram from."""
    lm, text, kind = config.lm, config.corpus.text, config.tokenizer.kind
    if not config.decode.needs_lm:
        return
    if text is None and not lm.transcripts and lm.arpa is None:
        raise LightasrError(
            f"{place(['corpus', 'text'], layers)}: null, and lm.transcripts is off: the beam "
            "search has no language model; set one of them, or `decode: {decoders: [greedy]}`"
        )
    if lm.interpolate and not (lm.transcripts and (text is not None or lm.arpa is not None)):
        lacking = "corpus.text and lm.arpa are null" if lm.transcripts else "lm.transcripts is off"
        raise LightasrError(
            f"{place(['lm', 'interpolate'], layers)}: mixes text, or a ready model, with the "
            f"transcripts, but {lacking}"
        )
    _check_unit("lm", lm.unit, kind, layers)
    if lm.unit != "word" and "flashlight" in config.decode.decoders:
        raise LightasrError(
            f"{place(['lm', 'unit'], layers)}: '{lm.unit}', but the search `flashlight` needs an "
            "n-gram of words"
        )
    if lm.arpa is not None:
        where, parts = place(["lm", "arpa"], layers), datasets[config.corpus.name].parts
        part = parts.get(lm.arpa)
        if part is not None and part.manifest is not None:
            raise LightasrError(f"{where}: '{lm.arpa}' holds recordings, not a language model")
        if part is None and not (datasets.project / Path(lm.arpa).expanduser()).is_file():
            raise LightasrError(
                f"{where}: '{lm.arpa}' is neither a file nor a part of dataset "
                f"'{config.corpus.name}'{nearest(lm.arpa, list(parts))}"
            )


def _check_neural_lm(config: schema.Experiment, layers: list[Layer]) -> None:
    """A neural language model has text to learn from, and units that there are."""
    neural = config.neural_lm
    if neural is None:
        return
    if config.corpus.text is None and not neural.transcripts:
        raise LightasrError(
            f"{place(['corpus', 'text'], layers)}: null, and neural_lm.transcripts is off: the "
            "neural language model has no text; set one of them, or `neural_lm: null`"
        )
    _check_unit("neural_lm", neural.unit, config.tokenizer.kind, layers)


def _check_pretrain(config: schema.Experiment, layers: list[Layer], datasets: Datasets) -> None:
    """What is learnt from without labels is there, and not what is tested on."""
    if config.probe is not None and config.probe.of == "pretrain" and config.pretrain is None:
        where = place(["probe", "of"], layers)
        raise LightasrError(f"{where}: 'pretrain', but nothing is pretrained: set `pretrain`")
    if config.pretrain is None:
        return
    objective, encoder = config.pretrain.objective, config.model.encoder
    # Where an encoder calls them otherwise, the stage finds out.
    depth = getattr(encoder, "layers", 0) + getattr(encoder, "fused_layers", 0)
    if isinstance(objective, schema.Clustered) and depth and (objective.layer or 1) > depth:
        where = place(["pretrain", "objective", "layer"], layers)
        raise LightasrError(f"{where}: {objective.layer}, but the encoder has {depth} layers")
    if config.pretrain.parts is None:
        return
    where, parts = place(["pretrain", "parts"], layers), datasets[config.corpus.name].parts
    for name in config.pretrain.parts:
        if name not in parts:
            hint = nearest(name, list(parts))
            raise LightasrError(
                f"{where}: dataset '{config.corpus.name}' has no part '{name}'{hint}"
            )
        if parts[name].text is not None or name == config.corpus.text:
            raise LightasrError(f"{where}: '{name}' holds text, not recordings")
        if name in (config.corpus.dev, *config.corpus.test):
            raise LightasrError(f"{where}: '{name}' is held out")


def _check_unit(section: str, unit: str, kind: str, layers: list[Layer]) -> None:
    """Words, or the symbols of the tokenizer by their right name."""
    symbols = "char" if kind == "char" else "piece"
    if unit not in {"word", symbols}:
        raise LightasrError(
            f"{place([section, 'unit'], layers)}: '{unit}', but the symbols of a tokenizer of kind "
            f"'{kind}' are counted by `unit: {symbols}`"
        )
