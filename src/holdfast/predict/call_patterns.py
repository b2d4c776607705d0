"""Which tool call follows another, learned from the calls of a workload."""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.predict.call_history import CallHistory, PastCall, call_key

__all__ = ["CallPatterns", "PredictedCall"]

_MEMORY: Final = 0.95  # weight that an observation of a pattern keeps with each later one
_SHAPE_MEMORY: Final = 0.99
_SHAPE_MISSES: Final = 20.0  # a new shape is taken for one that never holds
_PRIOR_TRIALS: Final = 2.0
_MAX_ROWS: Final = 2048
_MAX_PATTERNS: Final = 32  # of a row
_MAX_SHAPES: Final = 4096
_MAX_WAYS: Final = 6  # to explain one call
_MAX_POSITION: Final = 3
_MAX_CHARS: Final = 1024  # of a call that is learned
_MISSING: Final = object()

Source = tuple[str, ...]
"""Where an argument comes from: the kind, then names and positions."""

Pattern = tuple[str, tuple[tuple[str, Source], ...]]
"""A tool, and where each of its arguments comes from."""


@dataclass(frozen=True, slots=True)
class PredictedCall:
    """A call that may come next.

    Attributes:
        tool: Its tool.
        arguments: Its arguments.
        key: What equal calls share.
        probability: That it is the next call (0 to 1).
    """

    tool: str
    arguments: Mapping[str, Any]
    key: str
    probability: float


@dataclass(slots=True)
class _Record:
    hits: float = 0.0
    trials: float = 0.0

    def learn(self, is_hit: bool, memory: float) -> None:
        self.hits = self.hits * memory + is_hit
        self.trials = self.trials * memory + 1.0


class CallPatterns:
    """Learns by which calls others are followed, with equal or with copied arguments.

    A pattern is a tool, and a source of each argument: a constant, an argument of the last call, a
    value at some position of what its result offers, or the value after its argument in what an
    earlier result offers, as when the files of a listing are read one by one. Patterns are counted
    after equal calls, and after all calls of a tool. A new pattern is as likely as others of its
    shape, which is the pattern without its constants. Every call is predicted before it is learned.

    Source: recurring sequences of tools with parameters passed between them, as in PASTE (Sui et
    al., arXiv 2603.18897, 2026). Differs: learned from what passes, without mining; a context is
    one call; old observations fade.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[str, dict[Pattern, _Record]] = OrderedDict()
        self._shapes: OrderedDict[object, _Record] = OrderedDict()

    def __len__(self) -> int:
        """Contexts (count)."""
        return len(self._rows)

    def learn(self, history: CallHistory, tool: str, arguments: Mapping[str, Any]) -> None:
        """Learn which call followed a history, which does not hold it yet. Mutates.

        A call with long arguments is learned as one that no pattern predicts.
        """
        last = history.last
        if last is None:
            return
        key = call_key(tool, arguments)
        is_short = len(json.dumps(arguments)) <= _MAX_CHARS
        found = list(_explanations(history, last, tool, arguments)) if is_short else []
        for context in _contexts(last):
            row = self._row(context)
            for pattern, record in row.items():
                call = _filled(pattern, history, last)
                if call is not None:
                    is_hit = pattern[0] == tool and call_key(tool, call) == key
                    record.learn(is_hit, _MEMORY)
                    self._shape(context, pattern).learn(is_hit, _SHAPE_MEMORY)
            for pattern in found:
                row.setdefault(pattern, _Record())
            while len(row) > _MAX_PATTERNS:  # the least used of those that are not new
                del row[min(list(row)[:-_MAX_WAYS], key=lambda pattern: row[pattern].hits)]

    def predict(self, history: CallHistory) -> list[PredictedCall]:
        """Calls that may follow a history, the likeliest first. Pure; O(patterns)."""
        last = history.last
        calls: dict[str, PredictedCall] = {}
        if last is None:
            return []
        for context in _contexts(last):
            for pattern, record in self._rows.get(context, {}).items():
                arguments = _filled(pattern, history, last)
                probability = self._probability(context, pattern, record)
                if arguments is None or probability == 0.0:
                    continue
                key = call_key(pattern[0], arguments)
                if key not in calls or calls[key].probability < probability:
                    calls[key] = PredictedCall(pattern[0], arguments, key, probability)
        return sorted(calls.values(), key=lambda call: -call.probability)

    def _row(self, context: str) -> dict[Pattern, _Record]:
        row = self._rows[context] = self._rows.pop(context, {})
        if len(self._rows) > _MAX_ROWS:
            self._rows.popitem(last=False)
        return row

    def _shape(self, context: str, pattern: Pattern) -> _Record:
        shape = _shape_of(context, pattern)
        record = self._shapes[shape] = self._shapes.pop(shape, _Record())
        if len(self._shapes) > _MAX_SHAPES:
            self._shapes.popitem(last=False)
        return record

    def _probability(self, context: str, pattern: Pattern, record: _Record) -> float:
        shape = self._shapes.get(_shape_of(context, pattern)) or _Record()
        base = shape.hits / (shape.trials + _SHAPE_MISSES)
        return (record.hits + _PRIOR_TRIALS * base) / (record.trials + _PRIOR_TRIALS)


def _contexts(last: PastCall) -> tuple[str, str]:
    return f"tool {last.tool}", last.key


def _shape_of(context: str, pattern: Pattern) -> object:
    tool, sources = pattern
    kinds = tuple(source if source[0] != "constant" else source[:1] for _, source in sources)
    return context.startswith("tool "), tool, kinds


def _explanations(
    history: CallHistory, last: PastCall, tool: str, arguments: Mapping[str, Any]
) -> Iterator[Pattern]:
    """Patterns that would have predicted a call; the one of constants last."""
    names = sorted(arguments)
    sources = [list(_sources(history, last, arguments[name])) for name in names]
    ways = itertools.islice(itertools.product(*sources), _MAX_WAYS - 1)
    for way in dict.fromkeys((*ways, tuple(each[-1] for each in sources))):
        yield tool, tuple(zip(names, way, strict=True))


def _sources(history: CallHistory, last: PastCall, value: object) -> Iterator[Source]:
    for name, known in last.arguments.items():
        if type(known) is type(value) and known == value:
            yield "argument", name
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        for group, values in last.offers.items():
            if value in values[: _MAX_POSITION + 1]:
                yield "offered", group, str(values.index(value))
        for name, known in last.arguments.items():
            if _after(history, known) == value:
                yield "after", name
    yield "constant", json.dumps(value, sort_keys=True)


def _after(history: CallHistory, value: object) -> str | int | None:
    return history.after(value) if isinstance(value, (str, int)) else None


def _filled(pattern: Pattern, history: CallHistory, last: PastCall) -> dict[str, Any] | None:
    """The arguments that a pattern predicts; None if a source has no value."""
    arguments: dict[str, Any] = {}
    for name, source in pattern[1]:
        value = _value(source, history, last)
        if value is _MISSING:
            return None
        arguments[name] = value
    return arguments


def _value(source: Source, history: CallHistory, last: PastCall) -> Any:
    match source:
        case ("argument", name):
            return last.arguments.get(name, _MISSING)
        case ("offered", group, position):
            values = last.offers.get(group, ())
            return values[int(position)] if int(position) < len(values) else _MISSING
        case ("after", name):
            found = _after(history, last.arguments.get(name))
            return _MISSING if found is None else found
        case (_, text):
            return json.loads(text)
    raise AssertionError(source)
