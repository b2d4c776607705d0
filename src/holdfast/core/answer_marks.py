"""Answers that later prompts repeat, by which sessions are found again.

Prefix hashes change from the first token that does. An answer is repeated wherever it stands.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from operator import eq
from typing import Final, Generic, TypeVar

__all__ = ["MAX_TAIL_TOKENS", "AnswerMarks"]

MAX_TAIL_TOKENS: Final = 128
"""Tokens of a prompt and its answer, from the end, that are compared (count)."""

_MIN_TOKENS: Final = 16  # a shorter answer may be anyone's
_MAX_STOPS: Final = 4  # an engine's models have few
_OPENING_TOKENS: Final = 16

S = TypeVar("S")


class AnswerMarks(Generic[S]):
    """The last answer of each session, by its last tokens; shorter ones are not kept."""

    def __init__(self) -> None:
        self._tails: dict[S, array[int]] = {}
        self._by_end: dict[tuple[int, ...], dict[S, None]] = {}
        self._stops: Counter[int] = Counter()

    def put(self, session: S, tail: Sequence[int], num_answer_tokens: int) -> None:
        """Set or replace a session's answer. Mutates; O(1).

        Args:
            session: The session.
            tail: The last token ids of its prompt and answer, the stop token included.
            num_answer_tokens: Tokens of the answer (count).
        """
        self.drop(session)
        if num_answer_tokens < _MIN_TOKENS:
            return
        kept = array("q", tail[-MAX_TAIL_TOKENS:])
        self._tails[session] = kept
        self._by_end.setdefault(_end_of(kept), {})[session] = None
        self._stops[kept[-1]] += 1

    def drop(self, session: S) -> None:
        """Forget a session. Mutates."""
        tail = self._tails.pop(session, None)
        if tail is None:
            return
        same_end = self._by_end[_end_of(tail)]
        del same_end[session]
        if not same_end:
            del self._by_end[_end_of(tail)]
        self._stops[tail[-1]] -= 1
        self._stops += Counter()  # without zeros

    def clear(self) -> None:
        """Forget all sessions. Mutates."""
        self._tails.clear()
        self._by_end.clear()
        self._stops.clear()

    def repeated_in(self, tokens: Sequence[int]) -> Mapping[S, int]:
        """Sessions whose answers are messages of a prompt's history. Pure; O(prompt).

        Of each it gives how many tokens the prompt repeats from the answer's end backwards; that
        may go beyond the answer into the prompt before it (count, at most `MAX_TAIL_TOKENS`).
        """
        found: dict[S, int] = {}
        for stop, _ in self._stops.most_common(_MAX_STOPS):
            stops = list(_positions(tokens, stop))
            for index, position in enumerate(stops):
                start = max(0, position + 1 - _MIN_TOKENS)
                same_end = self._by_end.get(tuple(tokens[start : position + 1]))
                if same_end and _is_answer(tokens, stops, index):
                    for session in same_end:
                        num = _num_repeated(self._tails[session], tokens, position)
                        found[session] = max(num, found.get(session, 0))
        return found


def _end_of(tokens: Sequence[int]) -> tuple[int, ...]:
    return tuple(tokens[-_MIN_TOKENS:])


def _positions(tokens: Sequence[int], token: int) -> Iterator[int]:
    position = -1
    while True:
        try:
            position = tokens.index(token, position + 1)
        except ValueError:
            return
        yield position


def _is_answer(tokens: Sequence[int], stops: Sequence[int], index: int) -> bool:
    """Whether a message is the model's, not a user's who quotes it.

    It ends at a stop token. Where a template ends all messages alike, one that opens like the
    generation prompt, and more so than the last message does, is the model's. Elsewhere only the
    model's end so.
    """
    opening = stops[-1]
    if opening < len(tokens) - _OPENING_TOKENS:
        return True
    if index == 0 or len(stops) < 2:
        return False
    last = _num_alike(tokens, stops[-2], opening)
    return _num_alike(tokens, stops[index - 1], opening) > last


def _num_alike(tokens: Sequence[int], one: int, other: int) -> int:
    ones = tokens[one : one + _OPENING_TOKENS]
    return _num_equal(ones, tokens[other : other + _OPENING_TOKENS])


def _num_repeated(tail: Sequence[int], tokens: Sequence[int], end: int) -> int:
    before = tokens[max(0, end + 1 - len(tail)) : end + 1]
    return _num_equal(tail[::-1], before[::-1])


def _num_equal(ones: Sequence[int], others: Sequence[int]) -> int:
    """Leading tokens that are equal (count)."""
    return sum(1 for _ in takewhile(bool, map(eq, ones, others)))
