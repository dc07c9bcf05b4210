"""Prefix beam search for CTC in compiled code.

A prefix is what has been written so far: symbols without blanks and repeats. For each one the
search keeps `P_b` and `P_nb`, the probabilities of all alignments that end in a blank and in its
last symbol, and ranks prefixes by

    Q = log P_ctc + lm_weight * log10 P_lm + word_score * words

with a look-ahead for the word that is being spelt: the likeliest, after its history, of the words
it can become. Prefixes are nodes of a tree, so that two alignments of one prefix always meet.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from lightasr.decode.lexicon import OFF, ROOT, Lexicon
from lightasr.decode.prefix_tree import (
    NEVER,
    NOBODY,
    Beam,
    Tree,
    find,
    move,
    new_beam,
    new_tree,
    spell,
)
from lightasr.lm.lookup import Tables, best_of, compiled, inlined, score

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

NO_LM, WORDS, SYMBOLS = range(3)
"""What the language model counts in."""
# A first guess at how much room a search takes.
NODES_PER_FRAME = 40
# Of neighbouring frames that are blank this surely, only the first is searched: nothing starts in
# the others, and most frames of a trained model are such.
SURE = np.log(0.999)
# Look-aheads that are kept; prefixes with other histories often ask for the same.
REMEMBERED = 1 << 12


class Model(NamedTuple):
    """What a search reads: the tokenizer's symbols, the lexicon and the language model."""

    lexicon: Lexicon
    tables: Tables
    starts: NDArray[np.bool_]
    """Symbols that begin a word, where no symbol stands between words."""
    lm_number: Ints
    """The language model's word for each symbol, where it counts in symbols."""
    unit: int
    start: int
    """The language model's state before the first word."""
    end: int
    """Its word for the end of a sentence; -1 where it has none."""
    unknown: int
    """Its word for all words it does not know."""
    blank: int
    boundary: int
    """The symbol between two words; -1 where `starts` marks them."""
    open: bool
    """Whether words outside of the lexicon may be written."""


class Options(NamedTuple):
    """How wide a search is, and how it weighs."""

    beam: int
    threshold: float
    """Score below the best at which a prefix is dropped."""
    tokens: int
    """Symbols tried in a frame, the likeliest."""
    token_threshold: float
    """Log-probability below a frame's best at which a symbol is not tried."""
    lm_weight: float
    word_score: float
    unknown_score: float


class Scratch(NamedTuple):
    """What a step of the search writes on: the first three for each prefix followed."""

    total: Doubles
    blank: Doubles
    last: Doubles
    points: Doubles
    """Of the candidates: the prefixes themselves, then those that are one symbol longer."""
    reached: Doubles
    nodes: Ints
    sorting: Doubles
    tokens: Ints
    asked: NDArray[np.int64]
    """Place in the lexicon and state of look-aheads that were asked for, each in its own slot."""
    answers: Floats
    """What the n-gram said."""


@numba.njit(cache=True, nogil=True)
def new_scratch(options: Options, symbols: int) -> Scratch:
    most = options.beam * (min(options.tokens, symbols) + 1)
    return Scratch(
        np.empty(options.beam),
        np.empty(options.beam),
        np.empty(options.beam),
        np.empty(most),
        np.empty(most),
        np.empty(most, np.int32),
        np.empty(max(most, symbols)),
        np.empty(symbols, np.int32),
        np.full(REMEMBERED, NOBODY, np.int64),
        np.empty(REMEMBERED, np.float32),
    )


@inlined
def step(lexicon: Lexicon, node: int, symbol: int) -> int:
    """The node one symbol further; OFF where no word is spelt so."""
    if node == OFF:
        return OFF
    low, high = lexicon.begin[node], lexicon.begin[node + 1]
    end = high
    while low < high:
        middle = (low + high) >> 1
        if lexicon.symbol[middle] < symbol:
            low = middle + 1
        else:
            high = middle
    return low if low < end and lexicon.symbol[low] == symbol else OFF


@compiled
def begin(tree: Tree, beam: Beam, model: Model) -> None:
    """The empty prefix, before any frame."""
    tree.parent[0], tree.symbol[0], tree.frame[0] = NOBODY, NOBODY, NOBODY
    tree.lex[0], tree.state[0], tree.slot[0] = ROOT, model.start, NOBODY
    tree.prior[0], tree.ahead[0], tree.peak[0] = 0.0, 0.0, NEVER
    beam.node[0], beam.blank[0], beam.symbol[0] = 0, 0.0, NEVER


@inlined
def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + np.log1p(np.exp(b - a))


@inlined
def close_word(
    model: Model, options: Options, lex: int, state: int, prior: float
) -> tuple[bool, int, float]:
    """End the word that is being spelt: whether it may end, the next state, the new prior."""
    word = model.lexicon.word[lex] if lex > ROOT else -1
    if word < 0 and not model.open:
        return False, state, prior
    prior += options.word_score
    if model.unit == WORDS:
        if word < 0:
            word = model.unknown
            prior += options.unknown_score
        logp, state = score(model.tables, state, word)
        prior += options.lm_weight * logp
    return True, state, prior


@inlined
def extend(
    model: Model, options: Options, tree: Tree, node: int, symbol: int
) -> tuple[bool, int, int, float]:
    """Write one symbol more: whether it may follow, then place in the lexicon, state and prior."""
    lex, state, prior = tree.lex[node], tree.state[node], tree.prior[node]
    may = True
    if symbol == model.boundary:
        if lex == ROOT:  # no word before it
            return False, lex, state, prior
        may, state, prior = close_word(model, options, lex, state, prior)
        lex = ROOT
    else:
        if model.starts[symbol] and lex != ROOT:
            may, state, prior = close_word(model, options, lex, state, prior)
            lex = ROOT
        lex = step(model.lexicon, lex, symbol)
        may = may and (lex != OFF or model.open)
    if may and model.unit == SYMBOLS:
        logp, state = score(model.tables, state, model.lm_number[symbol])
        prior += options.lm_weight * logp
    return may, lex, state, prior


@inlined
def look_ahead(model: Model, options: Options, lex: int, state: int, scratch: Scratch) -> float:
    """What the word that is being spelt will bring at most.

    It never grows while a word is spelt, and the word's own score is not higher.
    """
    if lex == ROOT:
        return 0.0
    if model.unit != WORDS:
        return options.word_score
    best = NEVER
    if model.open:
        best = model.tables.logp[1 + model.unknown] * options.lm_weight + options.unknown_score
    if lex != OFF:
        question = np.int64(state) * len(model.lexicon.word) + lex
        slot = (question ^ (question >> 12)) & (REMEMBERED - 1)
        if scratch.asked[slot] != question:
            low, high = model.lexicon.low[lex], model.lexicon.high[lex]
            logp = best_of(model.tables, state, low, high, model.lexicon.best[lex])
            scratch.asked[slot], scratch.answers[slot] = question, logp
        best = max(best, options.lm_weight * scratch.answers[slot])
    return best + options.word_score


@compiled
def advance(
    logp_tv: Floats,
    first: int,
    offset: int,
    sure: bool,
    model: Model,
    options: Options,
    tree: Tree,
    used: int,
    beam: Beam,
    width: int,
    scratch: Scratch,
) -> tuple[int, int, int]:
    """Read the frames from `first` on; frame 0 is frame `offset` of the utterance.

    `sure` says whether the frame before frame 0 is surely blank. Returns the first frame that was
    not read, as the tree might have no room for it, how many of the tree's nodes are used, and how
    many prefixes are followed.
    """
    frames, symbols = logp_tv.shape
    room = options.beam * min(options.tokens, symbols)
    for t in range(first, frames):
        if used + room > len(tree.parent):
            return t, used, width
        row = logp_tv[t]
        was_sure = logp_tv[t - 1, model.blank] > SURE if t else sure
        if was_sure and row[model.blank] > SURE:
            for i in range(width):
                total = log_add(beam.blank[i], beam.symbol[i])
                beam.blank[i], beam.symbol[i] = total + row[model.blank], NEVER
            continue
        best, worst, leader = _stay(row, offset + t, model, tree, beam, width, scratch)
        # A full beam admits nothing that is worse than all that is in it.
        admitted = worst if width == options.beam else NEVER
        used, count, best = _grow(
            row, model, options, tree, used, beam, width, scratch, best, admitted, leader
        )
        floor = max(best - options.threshold, admitted)
        width = _select(offset + t, options, tree, beam, width, scratch, count, floor)
    return frames, used, width


@inlined
def _stay(
    row: Floats, frame: int, model: Model, tree: Tree, beam: Beam, width: int, scratch: Scratch
) -> tuple[float, float, int]:
    """The prefixes after a frame that adds no symbol to them, or the last one of theirs.

    Their points open the list of candidates. Returns the best, the worst, and whose the best is.
    """
    total, blank, last = scratch.total, scratch.blank, scratch.last
    for i in range(width):
        node = beam.node[i]
        scratch.nodes[i], tree.slot[node] = node, i
        total[i] = log_add(beam.blank[i], beam.symbol[i])
        blank[i] = total[i] + row[model.blank]
        last[i] = beam.symbol[i] + row[tree.symbol[node]] if node else NEVER
    for i in range(width):
        node = beam.node[i]
        above = tree.slot[tree.parent[node]] if node else NOBODY
        if above != NOBODY:  # the prefix without its last symbol is followed, too, and arrives here
            symbol = tree.symbol[node]
            arriving = _before(tree, beam, total, above, symbol) + row[symbol]
            last[i] = log_add(last[i], arriving)
            _place(tree, node, arriving, frame)
    best, worst, leader = NEVER, np.inf, 0
    for i in range(width):
        node = scratch.nodes[i]
        point = log_add(blank[i], last[i]) + tree.prior[node] + tree.ahead[node]
        scratch.points[i] = point
        worst = min(worst, point)
        if point > best:
            best, leader = point, i
    return best, worst, leader


@inlined
def _grow(
    row: Floats,
    model: Model,
    options: Options,
    tree: Tree,
    used: int,
    beam: Beam,
    width: int,
    scratch: Scratch,
    best: float,
    admitted: float,
    leader: int,
) -> tuple[int, int, float]:
    """The prefixes with a symbol more join the candidates, if they may be among the best."""
    count = width
    tokens = _choose_tokens(row, model.blank, options, scratch.tokens, scratch.sorting)
    for turn in range(width):
        # The leader's children come first: what they reach spares the others work.
        i = leader if turn == 0 else 0 if turn == leader else turn
        node = scratch.nodes[i]
        at_most = tree.prior[node] + tree.ahead[node] + max(0.0, options.word_score)
        for k in range(tokens):
            symbol = scratch.tokens[k]
            arriving = _before(tree, beam, scratch.total, i, symbol) + row[symbol]
            if not arriving + at_most > max(best - options.threshold, admitted):
                continue
            place = find(tree, node, symbol, len(row))
            if tree.keys[place] == NOBODY:
                _add(model, options, tree, node, symbol, place, len(row), used, scratch)
                used += 1
            child = tree.nodes[place]
            if tree.slot[child] != NOBODY:  # it is followed, and was reached in `_stay`
                continue
            point = arriving + tree.prior[child] + tree.ahead[child]
            if point > max(best - options.threshold, admitted):
                best = max(best, point)
                scratch.points[count], scratch.nodes[count] = point, child
                scratch.reached[count] = arriving
                count += 1
    return used, count, best


@inlined
def _select(
    frame: int,
    options: Options,
    tree: Tree,
    beam: Beam,
    width: int,
    scratch: Scratch,
    count: int,
    floor: float,
) -> int:
    """The best candidates are followed from here on; how many they are."""
    if count > options.beam:
        floor = max(floor, _largest(scratch.points, count, options.beam, scratch.sorting))
    for i in range(width):
        tree.slot[beam.node[i]] = NOBODY
    kept = 0
    for c in range(count):
        if scratch.points[c] < floor or kept == options.beam:
            continue
        node = scratch.nodes[c]
        beam.node[kept] = node
        if c < width:
            beam.blank[kept], beam.symbol[kept] = scratch.blank[c], scratch.last[c]
        else:
            beam.blank[kept], beam.symbol[kept] = NEVER, scratch.reached[c]
            _place(tree, node, scratch.reached[c], frame)
        kept += 1
    return kept


@inlined
def _place(tree: Tree, node: int, arriving: float, frame: int) -> None:
    """The last symbol of a prefix is where its likeliest alignment has it."""
    if arriving > tree.peak[node]:
        tree.peak[node], tree.frame[node] = arriving, frame


@inlined
def _before(tree: Tree, beam: Beam, total: Doubles, i: int, symbol: int) -> float:
    """log-probability of the alignments that a symbol may follow: a repeat needs a blank."""
    return beam.blank[i] if tree.symbol[beam.node[i]] == symbol else total[i]


@inlined
def _add(
    model: Model,
    options: Options,
    tree: Tree,
    parent: int,
    symbol: int,
    place: int,
    symbols: int,
    node: int,
    scratch: Scratch,
) -> None:
    """Put a prefix into the tree; one that may not be has a prior of NEVER."""
    may, lex, state, prior = extend(model, options, tree, parent, symbol)
    tree.keys[place] = np.int64(parent) * symbols + symbol
    tree.nodes[place] = node
    tree.parent[node], tree.symbol[node] = parent, symbol
    tree.lex[node], tree.state[node] = lex, state
    tree.prior[node] = prior if may else NEVER
    tree.ahead[node] = look_ahead(model, options, lex, state, scratch) if may else 0.0
    tree.peak[node], tree.slot[node] = NEVER, NOBODY


@compiled
def _choose_tokens(
    row: Floats, blank: int, options: Options, tokens: Ints, sorting: Doubles
) -> int:
    """The symbols worth trying in a frame."""
    floor = NEVER
    for symbol in range(len(row)):
        floor = max(floor, row[symbol] - options.token_threshold)
    count = 0
    for symbol in range(len(row)):
        if symbol != blank and row[symbol] >= floor:
            tokens[count], sorting[count] = symbol, row[symbol]
            count += 1
    if count <= options.tokens:
        return count
    floor = _largest(sorting, count, options.tokens, sorting)
    kept = 0
    for k in range(count):
        if row[tokens[k]] >= floor and kept < options.tokens:
            tokens[kept] = tokens[k]
            kept += 1
    return kept


@compiled
def _largest(numbers: Doubles, count: int, rank: int, values: Doubles) -> float:
    """The value of this rank among `count` numbers, 1 being the largest; sorts in `values`."""
    for place in range(count):
        values[place] = numbers[place]
    low, high, wanted = 0, count - 1, rank - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]


@numba.njit(cache=True, nogil=True)
def finish(
    model: Model, options: Options, tree: Tree, beam: Beam, width: int
) -> tuple[Doubles, Doubles]:
    """For each prefix log P_ctc and its prior as a whole sentence; NEVER if its word is cut off."""
    heard, prior = np.empty(width), np.empty(width)
    for i in range(width):
        node = beam.node[i]
        heard[i] = log_add(beam.blank[i], beam.symbol[i])
        may, state, prior[i] = True, tree.state[node], tree.prior[node]
        if tree.lex[node] != ROOT:
            may, state, prior[i] = close_word(model, options, tree.lex[node], state, prior[i])
        if not may:
            prior[i] = NEVER
        elif model.unit != NO_LM and model.end >= 0:
            prior[i] += options.lm_weight * score(model.tables, state, model.end)[0]
    return heard, prior


@numba.njit(cache=True, nogil=True)
def search(logp_tv: Floats, model: Model, options: Options) -> tuple[Ints, float, float]:
    """The best prefix of a whole utterance: its symbols, score and log P_ctc.

    The score is NEVER where every prefix ends in a word that is cut off. All at once, as every call
    from Python takes a while and holds its lock.
    """
    frames, symbols = logp_tv.shape
    longer = options.beam * min(options.tokens, symbols)
    tree, beam = new_tree(1 + longer + NODES_PER_FRAME * frames), new_beam(options.beam)
    scratch = new_scratch(options, symbols)
    begin(tree, beam, model)
    at, used, width = advance(logp_tv, 0, 0, False, model, options, tree, 1, beam, 1, scratch)
    while at < frames:
        larger = new_tree(2 * len(tree.parent))
        used = move(tree, used, larger, beam, width, symbols)
        tree = larger
        at, used, width = advance(
            logp_tv, at, 0, False, model, options, tree, used, beam, width, scratch
        )
    heard, prior = finish(model, options, tree, beam, width)
    best, place, score = -1, -1, NEVER
    for i in range(width):
        if prior[i] == NEVER:
            continue
        node = sentence(model, tree, beam.node[i])
        first = tree.slot[node]
        if first == NOBODY:
            first, tree.slot[node] = i, i
        else:
            heard[first] = log_add(heard[first], heard[i])
        if heard[first] + prior[first] > score:
            best, place, score = node, first, heard[first] + prior[first]
    if best < 0:
        return np.empty(0, np.int32), NEVER, NEVER
    return spell(tree, best)[0], score, heard[place]


@compiled
def sentence(model: Model, tree: Tree, node: int) -> int:
    """The prefix that says the same: a boundary at its end says nothing, and costs nothing."""
    ends = model.boundary >= 0 and tree.symbol[node] == model.boundary
    return tree.parent[node] if ends and model.unit != SYMBOLS else node
