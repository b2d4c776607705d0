"""Generated contexts with facts in them.

The prose around the facts is that of Python's own documentation, so nothing is downloaded. Equal
seeds give equal samples. Source: the tasks of RULER (arXiv 2404.06654). Differs: facts and prose
are ours, and `table`, `agent` and `multi-turn` are not in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from holdfast.compress.samples import Question, Sample, Turn
from holdfast.errors import ConfigError

__all__ = ["make_sample", "task_names"]

_COLORS: Final = ("amber", "black", "coral", "green", "ivory", "olive", "red", "silver", "white")
_THINGS: Final = ("anchor", "basket", "candle", "engine", "feather", "hammer", "lantern", "mirror")
_NAMES: Final = ("Ada", "Boris", "Clara", "David", "Erik", "Fiona", "Grace", "Henry", "Irene")
_CITIES: Final = ("Athens", "Berlin", "Dublin", "Geneva", "Lisbon", "Madrid", "Oslo", "Vienna")
_WORDS: Final = ("apple", "bridge", "cloud", "desert", "forest", "garden", "island", "river")
_SERVICES: Final = ("auth", "billing", "cache", "gateway", "mailer", "queue", "search", "worker")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a turn says, and what to ask about it.

    Attributes:
        lines: Statements, in their order in the text.
        questions: What to ask.
    """

    lines: tuple[str, ...]
    questions: tuple[Question, ...]


def task_names() -> tuple[str, ...]:
    """Names of all tasks."""
    return tuple(_TASKS)


def make_sample(
    task: str, seed: int, num_tokens: int, count_tokens: Callable[[str], int]
) -> Sample:
    """A context of some length, with its questions. Pure, as far as `count_tokens` is.

    Args:
        task: One of `task_names`.
        seed: Equal ones give equal samples.
        num_tokens: About how long all turns are together (tokens).
        count_tokens: Tokens of a text.

    Raises:
        ConfigError: The task is unknown, or its facts alone are longer than `num_tokens`.
    """
    if task not in _TASKS:
        raise ConfigError(f"no task is called {task!r}", hint=f"known: {', '.join(_TASKS)}")
    # Text as a seed is hashed the same way in every process, unlike tuples with text.
    choose = random.Random(f"{task} {seed}")
    turns = _TASKS[task](choose)
    each = num_tokens // len(turns)
    made = [_woven(choose, task, facts, each, count_tokens) for facts in turns]
    return Sample(task, seed, tuple(made))


def _woven(
    choose: random.Random,
    task: str,
    facts: Facts,
    num_tokens: int,
    count_tokens: Callable[[str], int],
) -> Turn:
    """Facts in their order, with prose between them up to a length."""
    left = num_tokens - sum(count_tokens(line + "\n") for line in facts.lines)
    if left < 0:
        raise ConfigError(f"the facts of task {task!r} alone are longer than {num_tokens} tokens")
    prose: list[str] = []
    for sentence in _sentences(choose):
        left -= count_tokens(sentence + "\n")
        if left < 0:
            break
        prose.append(sentence)
    positions = sorted(choose.randint(0, len(prose)) for _ in facts.lines)
    for position, line in reversed(list(zip(positions, facts.lines, strict=True))):
        prose.insert(position, line)
    return Turn("\n".join(prose) + "\n", facts.questions)


@cache
def _prose() -> tuple[str, ...]:
    """Sentences of Python's documentation, without code and markup."""
    from pydoc_data import topics

    text = " ".join(" ".join(topics.topics.values()).split())
    sentences = (part.strip() for part in text.split(". "))
    plain = (part for part in sentences if 40 <= len(part) <= 200 and part[0].isupper())
    return tuple(f"{part}." for part in plain if not set(part) & set('<>{}[]|=*_`"\\^~#'))


def _sentences(choose: random.Random) -> Iterator[str]:
    """Prose from a random sentence on, without end."""
    sentences = _prose()
    first = choose.randrange(len(sentences))
    while True:
        yield sentences[first % len(sentences)]
        first += 1


def _keys(choose: random.Random, count: int) -> list[str]:
    """Different names such as `amber anchor`."""
    return choose.sample([f"{color} {thing}" for color in _COLORS for thing in _THINGS], count)


def _numbers(choose: random.Random, count: int) -> list[str]:
    """Different numbers of five digits."""
    return [str(number) for number in choose.sample(range(10_000, 100_000), count)]


def _needles(choose: random.Random, num_facts: int, num_asked: int) -> Facts:
    """Numbers of named things, some of them asked for."""
    pairs = list(zip(_keys(choose, num_facts), _numbers(choose, num_facts), strict=True))
    lines = tuple(f"The magic number of the {key} is {number}." for key, number in pairs)
    asked = choose.sample(pairs, num_asked)
    return Facts(lines, tuple(_needle_question(key, number) for key, number in asked))


def _needle_question(key: str, number: str) -> Question:
    text = f"What is the magic number of the {key} in the text above?"
    return Question(text, f"The magic number of the {key} is", f" {number}")


def _single(choose: random.Random) -> list[Facts]:
    return [_needles(choose, 1, 1)]


def _multi_key(choose: random.Random) -> list[Facts]:
    """One number of many; the others distract."""
    return [_needles(choose, 8, 1)]


def _multi_query(choose: random.Random) -> list[Facts]:
    return [_needles(choose, 4, 2)]


def _multi_turn(choose: random.Random) -> list[Facts]:
    """Two turns; after the second, one question about each."""
    keys, numbers = _keys(choose, 6), _numbers(choose, 6)
    pairs = list(zip(keys, numbers, strict=True))
    shown = [
        tuple(f"The magic number of the {key} is {number}." for key, number in part)
        for part in (pairs[:3], pairs[3:])
    ]
    first, later = choose.sample(pairs[:3], 2), choose.choice(pairs[3:])
    return [
        Facts(shown[0], (_needle_question(*first[0]),)),
        Facts(shown[1], (_needle_question(*first[1]), _needle_question(*later))),
    ]


def _multi_value(choose: random.Random) -> list[Facts]:
    """Two numbers of one thing, asked for in their order."""
    (key,), (first, second) = _keys(choose, 1), _numbers(choose, 2)
    lines = tuple(f"One of the magic numbers of the {key} is {n}." for n in (first, second))
    text = f"What are the two magic numbers of the {key} in the text above?"
    lead = f"The two magic numbers of the {key} are"
    return [Facts(lines, (Question(text, lead, f" {first} and {second}"),))]


def _variable_tracking(choose: random.Random) -> list[Facts]:
    """A value that is handed on from variable to variable."""
    letters = choose.sample("ABCDEFGHJKLMNPRSTUVWXYZ", 6)
    (value, other) = _numbers(choose, 2)
    lines = [f"VAR {letters[0]} = {value}.", f"VAR {letters[3]} = {other}."]
    lines += [f"VAR {letters[i + 1]} = VAR {letters[i]}." for i in (0, 3, 1, 4)]
    text = f"Which value does VAR {letters[2]} have in the text above?"
    lead = f"VAR {letters[2]} has the value"
    return [Facts(tuple(lines), (Question(text, lead, f" {value}"),))]


def _frequent_words(choose: random.Random) -> list[Facts]:
    """The word that stands in a list most often."""
    words = choose.sample(_WORDS, 5)
    drawn = [words[0]] * 12 + [word for word in words[1:] for _ in range(3)]
    choose.shuffle(drawn)
    lines = tuple(f"Word: {word}." for word in drawn)
    text = "Which word stands in the list of words above most often?"
    return [Facts(lines, (Question(text, "The most frequent word is", f" {words[0]}"),))]


def _table(choose: random.Random) -> list[Facts]:
    """Rows of a table, scattered; two cells are asked for."""
    names, cities = choose.sample(_NAMES, 6), choose.sample(_CITIES, 6)
    rows = list(zip(names, cities, strict=True))
    lines = tuple(f"| {name} | lives in | {city} |" for name, city in rows)
    return [
        Facts(
            lines,
            tuple(
                Question(f"Where does {name} live?", f"{name} lives in", f" {city}")
                for name, city in choose.sample(rows, 2)
            ),
        )
    ]


def _agent(choose: random.Random) -> list[Facts]:
    """Outputs of tools; a later turn needs what an earlier one showed."""
    services, ports = choose.sample(_SERVICES, 6), _numbers(choose, 6)
    pairs = list(zip(services, ports, strict=True))
    shown = [
        tuple(f"$ grep port services/{name}.toml\nport = {port}" for name, port in part)
        for part in (pairs[:3], pairs[3:])
    ]

    def question(name: str, port: str) -> Question:
        return Question(f"On which port is {name}?", f"The port of {name} is", f" {port}")

    first, later = choose.sample(pairs[:3], 2), choose.choice(pairs[3:])
    return [
        Facts(shown[0], (question(*first[0]),)),
        Facts(shown[1], (question(*first[1]), question(*later))),
    ]


_TASKS: Final[dict[str, Callable[[random.Random], Sequence[Facts]]]] = {
    "single": _single,
    "multi-key": _multi_key,
    "multi-query": _multi_query,
    "multi-value": _multi_value,
    "variable-tracking": _variable_tracking,
    "frequent-words": _frequent_words,
    "table": _table,
    "multi-turn": _multi_turn,
    "agent": _agent,
}
