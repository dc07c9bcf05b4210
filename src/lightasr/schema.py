"""The typed configuration of an experiment: every key a study may set, its default and its meaning.

Planning reads this file at every parse, so it imports neither torch nor lhotse. A model component
keeps its `Config` in its own file, next to the module that it configures; `components` reads just
that class, without running the file.
"""

from __future__ import annotations

import ast
import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from lightasr.configfile import Tree, merge
from lightasr.data.sample.config import SampleConfig

PACKAGE = Path(__file__).parent
SOURCES: dict[type[BaseModel], Path] = {}
"""Files of the components' `Config`s, which are read from them and belong to no module."""


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"{number} is even: a window has a middle")
    return number


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in pairwise(numbers)):
        raise ValueError(f"{list(numbers)} does not ascend")
    return numbers


def _apart(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("names a seed twice")
    return seeds


def unless(default: Any) -> Any:
    """A key younger than results: it is in no digest while it has its default."""
    return Field(default, exclude_if=lambda value: value == default)


Fraction = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
PositiveSeconds = Annotated[float, Field(gt=0)]
Precision = Literal["fp32", "bf16", "fp16"]
ProbeTask = Literal["speaker", "theme", "characters"]
Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_apart)]
Normalize = Literal["global", "speaker", "utterance", "none"]


# fmt: off
Language = Literal[
    "ca", "cs", "da", "de", "en", "es", "fi", "fr", "hu", "id", "is", "it", "lt", "lv", "nl",
    "no", "pl", "pt", "pt_BR", "ro", "ru", "sk", "sl", "sv", "tr", "uk",
]
# fmt: on
"""Languages whose numbers `text.numbers: spell` spells."""


class Section(BaseModel):
    """A mapping of the configuration: unknown keys and wrong types are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class Component(Section):
    """What a model component's `Config` derives from; its file name is its `name` in the config."""

    streams: ClassVar[bool] = False
    """Of a mixer: whether it can be confined to chunks of frames, and take them one by one."""
    name: str = ""
    """Which component it is."""

    def label(self) -> str:
        """How the component is called in the name of a run."""
        return self.name


def components(folder: str) -> dict[str, type[Component]]:
    """The configurations of all components in a folder of the package, by file name."""
    found = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.stem == "__init__":
            continue
        found[path.stem] = _config_class(path)
    return found


def _config_class(path: Path) -> type[Component]:
    """The class `Config` of a component's file, with its `name`, read without importing torch."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    if len(nodes) != 1:
        raise TypeError(f"{path}: a component's file holds one class `Config(Component)`")
    space = dict(globals())
    code = ast.Module(body=[nodes[0]], type_ignores=[])
    exec(compile(ast.fix_missing_locations(code), str(path), "exec"), space)
    config: type[Component] = space["Config"]
    SOURCES[config] = path
    word: Any = Literal[path.stem]  # a type made at run time
    return create_model(path.stem, __base__=config, __doc__=config.__doc__, name=(word, path.stem))


def spelt_out(tree: Any) -> Any:
    """`mixer: luna` is short for `mixer: {name: luna}`."""
    if not isinstance(tree, dict):
        return tree
    return {
        key: {"name": value} if key in COMPONENTS and isinstance(value, str) else spelt_out(value)
        for key, value in tree.items()
    }


def with_names(tree: Tree, section: type[BaseModel], changed: Tree | None = None) -> Tree:
    """Components that `tree` sets without a `name` are those of the typed defaults.

    Only what has the keys of `changed` is looked at, if given: the rest was before.
    """
    named = dict(tree)
    sections = _sections_of(section)
    for key in sections.keys() & (tree if changed is None else changed).keys():
        node = tree[key]
        if not isinstance(node, dict):
            continue
        inner: type[BaseModel] | None = sections[key]
        if key in COMPONENTS:
            node = merge(section.model_fields[key].default, node)
            inner = COMPONENTS[key].get(str(node.get("name")))
        if inner is not None:
            node = with_names(node, inner, changed[key] if changed is not None else None)
        named[key] = node
    return named


@cache
def _sections_of(section: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The sections that the keys of one hold, also where they may be null."""
    return {
        key: one
        for key, field in section.model_fields.items()
        for one in reversed((field.annotation, *get_args(field.annotation)))
        if isinstance(one, type) and issubclass(one, BaseModel)
    }


def choice(configs: dict[str, type[Component]]) -> Any:
    """The type of a key that holds one of several components, told apart by `name`."""
    if len(configs) == 1:
        return next(iter(configs.values()))
    union: Any = Union[tuple(configs.values())]  # noqa: UP007 - made at run time
    return Annotated[union, Field(discriminator="name")]


class Streaming(Section):
    """Encoding in chunks: a frame sees its own chunk and some before it."""

    chunk: Positive = 16
    """Frames of a chunk, counted after the front end."""
    left: NonNegative | None = 4
    """Chunks that a frame sees before its own; null: all of them."""
    dynamic: bool = True
    """Whether training draws for each batch what its frames see: half of the batches the whole
    utterance, the others chunks of half to twice the size."""


MIXERS = components("models/mixers")
Mixer: Any = choice(MIXERS)
"""The type of a `mixer:` key, for encoders whose blocks hold one."""


class BlockStack(Component):
    """What the `Config` of an encoder of equal blocks derives from, each with a mixer."""

    mixer: Mixer = Field({"name": "mhsa"}, validate_default=True)
    """What lets frames exchange information."""
    dim: Positive = 128
    """Channels of a frame."""
    layers: Positive = 3
    """Blocks."""
    dropout: Fraction = 0.1
    """Share of channels dropped after each part in training."""
    streaming: Streaming | None = None
    """In chunks, for mixers that can; null: every frame may see the whole utterance."""

    def label(self) -> str:
        return f"{self.name}-{self.mixer.label()}"

    @model_validator(mode="after")
    def heads_divide_the_channels(self) -> Self:
        heads = getattr(self.mixer, "heads", 1)
        if self.dim % heads:
            raise ValueError(f"mixer.heads ({heads}) does not divide dim ({self.dim})")
        return self

    @model_validator(mode="after")
    def the_mixer_streams(self) -> Self:
        if self.streaming is not None and not self.mixer.streams:
            can = ", ".join(name for name, config in MIXERS.items() if config.streams)
            raise ValueError(
                f"'streaming' is set, but mixer '{self.mixer.name}' needs the whole utterance; "
                f"these stream: {can}"
            )
        return self


class Masked(Component):
    """What the `Config` of a pretraining objective derives from: frames to be told are hidden."""

    probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Of a hidden span to begin at a frame; `span` frames of it are hidden. So a share of
    1 - (1 - probability)^span of all frames is hidden, 48 % by default."""
    span: Positive = 4
    """Frames of a hidden span, counted after the front end."""

    @property
    def hidden(self) -> float:
        """Share of all frames that is hidden."""
        return 1 - (1 - self.probability) ** self.span


class Clustered(Masked):
    """What the `Config` of an objective derives from that tells clusters, found by k-means."""

    clusters: Annotated[int, Field(ge=2, le=32767)] = 100
    """Clusters that frames are put into; the hidden ones' are to be told."""
    iterations: Positive = 2
    """Pretrainings, one after the other: the first one's clusters are of features, those of each
    later one of what the pretraining before it has learnt."""
    layer: Positive | None = None
    """Layer of the pretraining before whose outputs are clustered, 1 being the lowest; null: the
    middle one."""
    cluster_hours: Annotated[float, Field(gt=0)] = 10.0
    """Hours of the training parts, drawn at random, that clusters are found in; all of them, where
    there are fewer. All frames are put into clusters."""

    BEFORE: ClassVar[frozenset[str]] = frozenset({"iterations", "layer", "cluster_hours"})
    """What decides the clusters alone, not how they are learnt."""


FRONTENDS = components("models/frontends")
ENCODERS = components("models/encoders")
HEADS = components("models/heads")
OBJECTIVES = components("objectives/pretraining")
COMPONENTS = {
    "frontend": FRONTENDS,
    "encoder": ENCODERS,
    "mixer": MIXERS,
    "head": HEADS,
    "objective": OBJECTIVES,
}


class Corpus(Section):
    """Which archives an experiment reads."""

    name: str = "sample"
    """Entry of `config/datasets.yaml`."""
    train: Annotated[tuple[str, ...], Field(min_length=1)] = ("train-clean-100",)
    """Parts to train on."""
    dev: str = "dev-clean"
    """Part that selects checkpoints and decoding weights."""
    test: Annotated[tuple[str, ...], Field(min_length=1)] = ("test-clean", "test-other")
    """Parts that are only ever scored."""
    label_minutes: PositiveSeconds | None = None
    """Minutes of `train` whose transcripts are used, chosen evenly over speakers, fewer being part
    of more; null: all. Neither pretraining nor the language model's text is cut."""
    text: str | None = "lm-text"
    """Part that holds the language model's text; null: the training transcripts alone."""
    sample: SampleConfig = SampleConfig()
    """Size of the built-in corpus; used when `name` is `sample`."""

    @model_validator(mode="after")
    def parts_are_apart(self) -> Self:
        held_out = [self.dev, *self.test]
        for part in self.train:
            if part in held_out:
                raise ValueError(f"'{part}' is both trained on and held out")
        if len(set(held_out)) < len(held_out) or len(set(self.train)) < len(self.train):
            raise ValueError("a part is named twice")
        return self


class Features(Section):
    """How speech becomes the input of a model."""

    kind: Literal["fbank", "spectrogram", "quaternion"] = "fbank"
    """`fbank`: log mel energies, Kaldi's definition; `spectrogram`: log power of every FFT bin, as
    in Deep Speech 2; `quaternion`: log mel energies and their first three derivatives."""
    mels: Annotated[int, Field(ge=8, le=256)] = 80
    """Mel bands; `spectrogram` does not read it."""
    sample_rate: Literal[8000, 16000, 22050, 44100, 48000] = 16000
    """Hz; audio at another rate is resampled."""
    shift_ms: Annotated[float, Field(ge=1, le=50)] = 10.0
    """Milliseconds from one frame to the next."""
    window_ms: Annotated[float, Field(ge=5, le=100)] = 25.0
    """Milliseconds one frame sees."""
    speeds: Annotated[tuple[Annotated[float, Field(ge=0.5, le=2)], ...], Field(min_length=1)] = (
        1.0,
    )
    """Speeds at which training parts are read, pitch and all; held-out parts have one."""
    max_seconds: PositiveSeconds = 120.0
    """Longer utterances are rejected: cut them into sentences."""
    max_rejected: Fraction = 0.01
    """Share of a part's utterances that may be unreadable before the part fails."""

    @model_validator(mode="after")
    def speeds_hold_the_true_one(self) -> Self:
        if 1.0 not in self.speeds or len(set(self.speeds)) < len(self.speeds):
            raise ValueError("'speeds' holds 1.0, and no speed twice")
        return self

    @property
    def window_samples(self) -> int:
        """Samples one frame sees."""
        return math.floor(self.window_ms / 1000 * self.sample_rate)

    @property
    def shift_samples(self) -> int:
        """Samples from one frame to the next."""
        return math.floor(self.shift_ms / 1000 * self.sample_rate)

    @property
    def dim(self) -> int:
        """Numbers in a frame."""
        if self.kind == "spectrogram":
            return self.window_samples // 2 + 1
        return self.mels * (4 if self.kind == "quaternion" else 1)


class Text(Section):
    """What becomes of transcripts and of the language model's text before anything reads them."""

    case: Literal["upper", "lower", "keep"] = "upper"
    """Case of letters."""
    numbers: Literal["keep", "spell"] = "keep"
    """`spell`: digits become words; `keep`: the tokenizer's alphabet has to hold them."""
    language: Language = "en"
    """Language whose words spell numbers."""
    punctuation: Literal["drop", "keep"] = "drop"
    """What becomes of signs that are neither letters, numbers nor apostrophes."""
    apostrophes: Literal["keep", "drop"] = "keep"
    """`drop`: DON'T becomes DONT."""
    accents: Literal["keep", "drop"] = "keep"
    """`drop`: letters lose their accents."""


class Tokenizer(Section):
    """The symbols a model writes."""

    kind: Literal["char", "bpe", "unigram"] = "char"
    """`char`: the letters of `alphabet`, space, blank; `bpe` and `unigram`: sentencepiece."""
    alphabet: Annotated[str, Field(min_length=1)] | None = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    """Characters that transcripts may have besides the space; null: those of the training parts."""
    max_outside: Fraction = 0.01
    """Share of the training utterances that may have other characters and be left out."""
    size: Annotated[int, Field(ge=30, le=20000)] = 256
    """Number of sentencepiece symbols; `char` does not read it."""


class LanguageModel(Section):
    """The n-gram of the beam search."""

    unit: Literal["word", "char", "piece"] = "word"
    """What is counted: words, or the tokenizer's symbols, `char` where they are letters and `piece`
    where they are sentencepiece's."""
    order: Annotated[int, Field(ge=2, le=6)] = 4
    """Units in the longest n-gram."""
    prune: tuple[Annotated[int, Field(ge=0)], ...] = (0, 0, 1)
    """Counts at or below which n-grams of order 1, 2, ... are dropped; the last one holds on."""
    vocabulary: Positive = 200_000
    """Most frequent units that it knows; by default as many as LibriSpeech's own n-grams."""
    transcripts: bool = True
    """Whether the training transcripts are added to the text."""
    arpa: str | None = None
    """A ready model in place of the text: a part of the corpus that is one, or a file of one's own,
    in ARPA format or KenLM's binary trie. `order`, `prune` and `vocabulary` do not change it."""
    interpolate: bool = False
    """Whether the transcripts are a model of their own, mixed with the text's, or with `arpa`, by
    the weight that suits the dev part best; else they are counted as if they were text."""
    format: Literal["trie", "probing"] = "trie"
    """KenLM's binary file: `trie` is the smaller one, `probing` the faster one."""
    bits: Annotated[int, Field(ge=2, le=25)] | None = None
    """Bits a probability and a back-off weight take in the trie; null: as they are."""

    @model_validator(mode="after")
    def bits_are_of_a_trie(self) -> Self:
        if self.bits is not None and self.format == "probing":
            raise ValueError("'bits' are of `format: trie`")
        return self


class Model(Section):
    """frontend -> encoder -> head."""

    normalize: Normalize = "global"
    """Mean and variance of the features: of the training parts, of all that a speaker says in a
    part (`transcribe` and `evaluate` know no speakers: of each recording), of each utterance, or
    untouched."""
    frontend: choice(FRONTENDS) = {"name": "conv2d"}  # type: ignore[valid-type]
    """What turns features into the encoder's input, and shortens time."""
    encoder: choice(ENCODERS) = {"name": "ds2"}  # type: ignore[valid-type]
    """What this project compares."""
    head: choice(HEADS) = {"name": "linear"}  # type: ignore[valid-type]
    """What turns encoder states into scores of symbols."""


class SpecAugment(Section):
    """Masks over the training features, drawn anew for each utterance."""

    time_masks: Annotated[int, Field(ge=0)] = 2
    """Masks over time in an utterance."""
    time_width: Annotated[int, Field(ge=0)] = 25
    """Longest time mask in frames; never more than `time_share` of the utterance."""
    time_share: Fraction = 0.1
    """Share of an utterance one time mask may hide."""
    mel_masks: Annotated[int, Field(ge=0)] = 2
    """Masks over frequency."""
    mel_width: Annotated[int, Field(ge=0)] = 15
    """Widest frequency mask in bands."""


class Optimization(Section):
    """How any model is trained."""

    seed: int = 1
    """Seed of initial weights, order, dropout and masks; a study's `seeds` sets it."""
    epochs: Positive = 40
    """Passes over what is trained on."""
    lr: Annotated[float, Field(gt=0)] = 1.0e-3
    """Peak learning rate of AdamW."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    """AdamW's averages."""
    weight_decay: Annotated[float, Field(ge=0)] = 1.0e-2
    """AdamW's decoupled decay of weight matrices; biases and norms are left alone."""
    precision: Precision = "fp32"
    """Bits of most products; `fp16` scales the loss so that small gradients survive."""
    accumulate: Positive = 1
    """Parts a step's batch is cut into, one after the other, where memory is short."""
    order: Literal["shuffled", "sortagrad"] = "shuffled"
    """`sortagrad`: the first epoch goes from short to long examples; later ones are shuffled."""
    init: Literal["default", "xavier"] = "default"
    """Initial weight matrices: torch's own, or normal with variance 2 / (inputs + outputs)."""
    schedule: Literal["cosine", "linear", "noam", "constant", "tri_stage"] = "cosine"
    """What follows the warm-up: down to zero along a cosine or a line, or as 1/sqrt(step);
    `tri_stage`: held for 0.4 of all steps, then falling to a twentieth by equal factors."""
    warmup: Fraction = 0.1
    """Share of all steps in which the learning rate rises from zero."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Longest gradient; longer ones are scaled down."""
    patience: Positive = 10
    """Steps in a row whose loss or gradient is no number before the run is given up."""
    diverged: Annotated[float, Field(gt=0)] = 2.0
    """The run is stopped when an epoch's loss is this many nats per symbol above the best one."""
    average: Annotated[int, Field(ge=0)] = 5
    """Last epochs whose weights are averaged at the end; kept where better on dev than the best."""


class SpeechOptimization(Optimization):
    """How any model that reads speech is trained."""

    batch_seconds: PositiveSeconds = 120.0
    """Seconds of audio, padding included, in one step."""
    max_seconds: PositiveSeconds = 30.0
    """Longer utterances are not trained on; they are counted and reported."""
    validate_utterances: Positive = 1000
    """Utterances of the dev part, taken evenly, that are decoded after each epoch."""


class Train(SpeechOptimization):
    """How a model is trained."""

    augment: SpecAugment = SpecAugment()
    """SpecAugment; `{time_masks: 0, mel_masks: 0}` turns it off."""
    select: Literal["wer", "cer"] = unless("wer")
    """Error rate of greedy decoding on the dev part that selects the weights; `cer` where so little
    is labelled that hardly a word is right."""


class PretrainTrain(SpeechOptimization):
    """How a model is pretrained."""

    validate_utterances: Positive = 500
    """Utterances of the dev part, taken evenly, that the objective is measured on."""
    average: Annotated[int, Field(ge=0)] = 1
    """Last epochs whose weights are averaged at the end; kept where better on dev than the best."""


class Collapse(Section):
    """When a pretraining is given up, because what it learns has become all the same."""

    codes: Annotated[float, Field(ge=1)] = 2.0
    """Lowest perplexity of the codes that are to be told, on the dev part."""
    guesses: Annotated[float, Field(ge=1)] = 1.5
    """Lowest perplexity of the codes that are told."""
    rank: Annotated[float, Field(ge=1)] = 1.5
    """Lowest effective rank of the encoder's outputs where nothing is hidden: exp of the entropy of
    the shares of their variances along principal axes."""
    gain: float = unless(0.0)
    """Fewest nats by which a hidden frame of the dev part is told better than by who knows how
    often codes occur and does not look; asked in the second half of the training."""
    after: Fraction = 0.1
    """Share of the training before which the first three are not looked at."""


class Pretrain(Section):
    """Self-supervised learning of front end and encoder, before `train` gives them a new head."""

    parts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Parts to learn from, without their transcripts; null: those of `corpus.train`."""
    objective: choice(OBJECTIVES) = {"name": "bestrq"}  # type: ignore[valid-type]
    """What is learnt."""
    train: PretrainTrain = PretrainTrain()
    """How it is trained. Its seed is its own: all seeds of a study start from one pretraining."""
    collapse: Collapse = Collapse()
    """When it is given up."""

    def label(self, model: Model) -> str:
        """How such a pretraining is called in the name of a run."""
        return f"{self.objective.label()}-{model.encoder.label()}"


class Finetune(Section):
    """How a pretrained model learns to recognise; the head is new."""

    frozen: Literal["none", "frontend", "all"] = "none"
    """What stays as it was pretrained: nothing, the front end, or front end and encoder."""
    frozen_steps: NonNegative = 0
    """Steps in which the head alone learns."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate of each layer is this share of that of the layer above it."""


_DeepSpeech2: Any = ENCODERS["ds2"]


class Recurrent(_DeepSpeech2):  # type: ignore[misc]  # a class made at run time
    """The recurrent layers of the encoder `ds2`, which read forward only."""

    bidirectional: Literal[False] = False
    """A language model foretells what follows, so it must not read it."""
    norm: Literal["layer", "none"] = "layer"
    """Normalisation of what enters a layer, as in `ds2`."""


class NeuralTrain(Optimization):
    """How a neural language model is trained."""

    epochs: Positive = 10
    """Passes over the text."""
    batch_units: Positive = 4000
    """Units of text, padding and ends of sentences included, in one step."""
    max_units: Positive = 1000
    """Longer sentences are not trained on; they are counted and reported."""
    average: Annotated[int, Field(ge=0)] = 2
    """Last epochs whose weights are averaged at the end; kept where better on dev than the best."""


class NeuralLM(Section):
    """A recurrent language model, which rescores what the beam search finds."""

    unit: Literal["word", "char", "piece"] = "char"
    """What is foretold: words, or the tokenizer's symbols, `char` where they are letters and
    `piece` where they are sentencepiece's."""
    vocabulary: Positive = 10_000
    """Most frequent words that it knows, where its units are words; others are one, `<unk>`."""
    min_count: Positive = 2
    """Times a word occurs at least to be known; that others are rarer teaches what is unknown."""
    transcripts: bool = True
    """Whether the training transcripts are added to the text."""
    recurrent: Recurrent = Recurrent()
    """Its layers: any unit of the encoder `ds2`; units are embedded in as many numbers as a layer
    has states."""
    train: NeuralTrain = NeuralTrain()
    """How it is trained."""

    def label(self) -> str:
        """How such a model is called in the name of a run."""
        return f"{self.unit}-{self.recurrent.label()}"


class Decode(Section):
    """How hypotheses are found."""

    decoders: Annotated[
        tuple[Literal["greedy", "beam", "flashlight"], ...], Field(min_length=1)
    ] = ("greedy", "beam")
    """`greedy`: best symbol of each frame; `beam`: prefix search with the n-gram; `flashlight`: the
    search of that library, to check ours (`pip install 'lightasr[flashlight]'`)."""
    lexicon: bool = True
    """Whether `beam` finds only words that an n-gram of words knows."""
    beam_size: Positive = 64
    """Hypotheses kept at each frame, at most."""
    narrow: bool = True
    """Whether the beam is halved as long as the dev part is decoded as well."""
    beam_threshold: Annotated[float, Field(gt=0)] = 14.0
    """Log-score below the best at which a hypothesis is dropped."""
    tokens: Positive = 16
    """Symbols tried in a frame by `beam`, at most."""
    token_threshold: Annotated[float, Field(gt=0)] = 10.0
    """Log-probability below a frame's best at which `beam` does not try a symbol."""
    unknown_score: Annotated[float, Field(le=0)] = -10.0
    """Score of a word outside of the lexicon, besides its score by the n-gram."""
    nbest: Positive = 10
    """Hypotheses written for each utterance, with the times of their words, at most."""
    lm_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.5,
        1.0,
        1.5,
        2.0,
    )
    """Weights of the language model tried on the dev part, before finer steps around the best."""
    word_scores: Annotated[tuple[float, ...], Field(min_length=1)] = (-1.0, 0.0, 1.0)
    """Rewards per word tried on the dev part, likewise."""

    @property
    def needs_lm(self) -> bool:
        """Whether more is done than to take the best symbol of each frame."""
        return set(self.decoders) != {"greedy"}


class Score(Section):
    """How error rates are judged."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples of speakers behind an interval."""
    seed: int = 1
    """Seed of the resampling."""


class Probe(Section):
    """How it is found out what each layer of an encoder knows."""

    tasks: Annotated[tuple[ProbeTask, ...], Field(min_length=1)] = (
        "speaker",
        "theme",
        "characters",
    )
    """`speaker`: who speaks; `theme`: what a call of the built-in corpus is about; `characters`:
    which letters are said."""
    of: Literal["train", "pretrain"] = "train"
    """Which model is asked: the trained one, or what it began with."""
    utterances: Positive = 2000
    """Utterances of the training parts, and of each test part, evenly over speakers, at most."""
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.0001,
        0.001,
        0.01,
        0.1,
        1.0,
        10.0,
    )
    """Strengths of the penalty that are tried."""
    shuffles: Positive = 3
    """Times that labels are shuffled for the probes that show what chance gives."""
    samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples of speakers behind an interval."""
    seed: int = 1
    """Seed of the shuffling and the resampling."""


class Experiment(Section):
    """Everything that decides one row of a table."""

    corpus: Corpus = Corpus()
    """Which archives are read."""
    features: Features = Features()
    """How speech becomes the input of a model."""
    text: Text = Text()
    """How transcripts are written before anything reads them."""
    tokenizer: Tokenizer = Tokenizer()
    """The symbols a model writes."""
    lm: LanguageModel = LanguageModel()
    """The n-gram of the beam search."""
    model: Model = Model()
    """frontend -> encoder -> head."""
    pretrain: Pretrain | None = None
    """What front end and encoder learn without labels, before they are trained; null: nothing."""
    finetune: Finetune = Finetune()
    """How a pretrained model is trained; without `pretrain` nothing reads it."""
    train: Train = Train()
    """How the model is trained."""
    neural_lm: NeuralLM | None = None
    """A recurrent language model beside the n-gram; null: none."""
    probe: Probe | None = None
    """What is asked of each layer of the encoder; null: nothing."""
    decode: Decode = Decode()
    """How hypotheses are found."""
    score: Score = Score()
    """How error rates are judged."""


class Part(Section):
    """One part of a dataset: an archive of its publisher, or a manifest of one's own recordings."""

    file: str | None = None
    """Name of the archive, where it is not `<part>.tar.gz`."""
    folder: str = ""
    """Where it lies below the dataset's mirrors."""
    urls: tuple[str, ...] = ()
    """Where it can be had besides the dataset's mirrors."""
    md5: Annotated[str, Field(pattern="[0-9a-f]{32}")] | None = None
    """Digest its publisher gives."""
    sha256: Annotated[str, Field(pattern="[0-9a-f]{64}")] | None = None
    """Digest that is checked, too."""
    bytes: int | None = None
    """Size, where known."""
    utterances: int | None = None
    """Utterances in it, where known."""
    manifest: str | None = None
    """One's own recordings: a TSV, a Kaldi data directory, or a directory of lhotse manifests."""
    split: str | None = None
    """Lines of a TSV manifest whose column `split` says this; null: all of them."""
    transcribed: bool = True
    """False: recordings of a manifest without text, for `pretrain.parts` alone."""
    text: str | None = None
    """One's own text, a sentence a line, perhaps gzipped."""

    @model_validator(mode="after")
    def comes_from_one_place(self) -> Self:
        place = (self.file, self.folder, self.urls)
        published = any((*place, self.md5, self.sha256, self.bytes, self.utterances))
        if sum((published, self.manifest is not None, self.text is not None)) > 1:
            raise ValueError("a part is an archive, a 'manifest' or a 'text': one of them")
        if self.split is not None and self.manifest is None:
            raise ValueError("'split' chooses lines of a 'manifest'")
        if not self.transcribed and self.manifest is None:
            raise ValueError("'transcribed' is said of a 'manifest'")
        return self


class Dataset(Section):
    """An entry of `config/datasets.yaml`, or of a scale's own `datasets`."""

    title: str = ""
    """What the corpus is."""
    builtin: bool = False
    """Made by lightasr itself instead of downloaded."""
    mirrors: tuple[str, ...] = ()
    """Addresses below which all its archives lie, best first."""
    parts: Annotated[dict[str, Part], Field(min_length=1)]
    """Its parts."""


class Source(Section):
    """What tells the content of an archive."""

    file: str
    """Its name."""
    md5: str | None = None
    """Digest its publisher gives."""
    sha256: str | None = None
    """Digest that is checked, too."""


class ArchiveSlice(Section):
    """What decides the bytes of an archive, and where it may be had."""

    corpus: str
    """Entry of `config/datasets.yaml`."""
    part: str
    """One of its archives."""
    sample: SampleConfig | None = None
    """Size of the built-in corpus; null for others."""
    source: Source | None = None
    """What is downloaded; null for the built-in corpus."""
    urls: tuple[str, ...] = ()
    """Where it may be had, best first: addresses, or paths of this machine; not in the key."""
    bytes: int | None = None
    """Its size, where known; not in the key."""


class FeaturesSlice(Features):
    """What decides the features of a part."""

    part: str
    """What they are computed from."""
    content: str | None = None
    """Digest of the manifest of one's own recordings; null for an archive."""
    split: str | None = None
    """Lines of the manifest that are read."""
    transcribed: bool = True
    """Whether an utterance of the manifest must have a text."""


class TokenizerSlice(Tokenizer):
    """What decides the symbols."""

    text: Text = Text()
    """How transcripts are written."""


class LanguageModelSlice(LanguageModel):
    """What decides the language model."""

    text: Text = Text()
    """How its text and the transcripts are written."""
    content: str | None = None
    """Digest of one's own text; null for an archive, or for transcripts alone."""
    arpa: str | None = None
    """The part that is a ready model, or the digest of one's own."""


class NeuralLMSlice(NeuralLM):
    """What decides a neural language model."""

    text: Text = Text()
    """How its text and all transcripts are written."""
    content: str | None = None
    """Digest of one's own text; null for an archive, or for transcripts alone."""
    dev: str
    """Part that selects the weights."""


class TrainSlice(Section):
    """What decides a trained model; with the weights it is all that transcribing needs."""

    features: Features
    """What the model reads."""
    text: Text = Text()
    """How transcripts are written."""
    tokenizer: Tokenizer
    """The symbols it writes."""
    model: Model
    """frontend -> encoder -> head."""
    train: Train
    """How it is trained."""
    dev: str
    """Part that selects the weights."""
    finetune: Finetune | None = None
    """How a pretrained model is trained; null: it is not pretrained."""


class LabelsSlice(Section):
    """What decides which transcripts are used."""

    label_minutes: PositiveSeconds
    """Minutes of the training parts."""


class ClusteredFeatures(Section):
    """Features, so many of them side by side as the front end makes into one frame."""

    features: Features
    """What is clustered."""
    normalize: Normalize
    """Mean and variance of the features."""
    frontend: choice(FRONTENDS)  # type: ignore[valid-type]
    """What shortens time."""


class ClusterSlice(Section):
    """What decides the cluster of each frame."""

    clusters: Positive
    """How many there are."""
    hours: Annotated[float, Field(gt=0)]
    """Hours of the training parts that they are found in."""
    seed: int
    """Seed of what is drawn: these hours, and where clusters begin."""
    dev: str
    """Part whose frames are put into clusters that were found without it."""
    of: ClusteredFeatures | None = None
    """What is clustered; null: what a pretraining has learnt."""
    layer: Positive | None = None
    """Layer of that pretraining; null: the middle one."""


class PretrainModel(Section):
    """What a model is made of that learns without labels."""

    features: Features
    """What the model reads."""
    normalize: Normalize
    """Mean and variance of the features."""
    frontend: choice(FRONTENDS)  # type: ignore[valid-type]
    """What turns features into the encoder's input."""
    encoder: choice(ENCODERS)  # type: ignore[valid-type]
    """What learns."""
    objective: choice(OBJECTIVES)  # type: ignore[valid-type]
    """What is learnt."""


class PretrainSlice(PretrainModel):
    """What decides a pretrained model."""

    train: PretrainTrain
    """How it is trained."""
    collapse: Collapse
    """When it is given up."""
    dev: str
    """Part that selects the weights."""


class ProbeSlice(Probe):
    """What decides what is found."""

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """Parts to learn from."""
    test: Annotated[tuple[str, ...], Field(min_length=1)]
    """Parts to be told."""


class DecodeSlice(Decode):
    """What decides the hypotheses."""

    text: Text = Text()
    """How references are written."""
    dev: str
    """Part that selects the decoding weights."""


class MeasuredModel(Section):
    """What decides what a model costs."""

    features: Features
    """What it reads."""
    tokenizer: Tokenizer
    """The symbols it writes."""
    model: Model
    """frontend -> encoder -> head."""
    precision: Precision
    """Of a training step; inference is in fp32."""


class MeasuredPretraining(PretrainModel):
    """What decides what a step of a pretraining costs."""

    precision: Precision
    """Of the step."""


class Measure(Section):
    """How the columns of a study are measured that tell what models cost as utterances grow."""

    seconds: Annotated[tuple[Positive, ...], Field(min_length=3), AfterValidator(_ascending)] = (
        5,
        10,
        20,
        40,
        80,
    )
    """Lengths of utterances; growth is fitted over the last three."""
    rounds: Positive = 7
    """Times that each model has its turn; a figure is the median."""


class MeasureSlice(Measure):
    """What decides the figures of a study's models."""

    models: Annotated[dict[str, MeasuredModel], Field(min_length=1)]
    """By the digest of each."""
    pretrainings: dict[str, MeasuredPretraining] = {}
    """Likewise."""


class Main(Section):
    """`config/config.yaml`: what `snakemake` runs when nothing else is said."""

    scale: str = "sample"
    """File in `config/scales/`."""
    studies: Annotated[tuple[str, ...], Field(min_length=1)] = ("encoders",)
    """Files in `config/studies/`."""
    mirrors: tuple[str, ...] = ()
    """Folders or addresses that are asked for an archive before its publisher."""


class Scale(Section):
    """The head of a file in `config/scales/`; the rest of it are an experiment's keys."""

    title: str = ""
    """What the scale is for."""
    seeds: Seeds | None = None
    """Seeds instead of each study's own, where a scale is short of time."""
    seeds_of: dict[str, Seeds] = {}
    """Seeds by study, for those that ask what so few do not tell."""
    encoders: dict[Literal[tuple(ENCODERS)], dict[str, Any]] = {}  # type: ignore[valid-type]
    """Settings by encoder, under those of a study that chooses it: how large it is here."""
    recipes: dict[str, dict[str, Any]] = {}
    """Settings for the studies that name one as their `recipe`."""
    measure: Measure = Measure()
    """How it is measured what models cost as utterances grow, for studies with such columns."""
    datasets: dict[str, Dataset] = {}
    """Corpora of one's own, besides those of `config/datasets.yaml`."""


class Study(Section):
    """A file in `config/studies/`: one table."""

    title: str
    """Caption of the table."""
    description: str = ""
    """What the study asks, in a sentence or two for the report."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """What is shown of each experiment; `wer/*/*`: WER on every test part by every decoder."""
    seeds: Seeds = (1,)
    """Each experiment is run once per seed."""
    recipe: str | None = None
    """One of the scale's `recipes`, under `base`: how recognisers learn from few labels, say."""
    base: dict[str, Any] = {}
    """Settings of all experiments of the study."""
    experiments: Annotated[dict[str, dict[str, Any] | None], Field(min_length=1)]
    """Rows: what each sets, which other it `extends`, and its `grid` of values."""
    published: dict[str, dict[str, float]] = {}
    """Numbers others printed, by row and column; shown apart from ours."""
    published_source: str = ""
    """Where the published numbers stand."""


AnySection = TypeVar("AnySection", bound=Section)
