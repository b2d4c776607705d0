"""Measures gaps between turns by their cause, and the idle KV during them."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

import msgspec
import numpy as np

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.steps import SteppedSession
from holdfast.workload.study.wait import END, START, wait_kind, wait_name

__all__ = ["LONG_WAIT_S", "Wait", "WaitMeter", "Waits"]

LONG_WAIT_S = 60.0
"""Waits longer than this are long."""

_MIN_WAITS = 20
_RARE = "(rare)"


class Wait(msgspec.Struct, frozen=True):
    """Waits of one kind.

    Attributes:
        num_waits: Number of waits.
        gap_s: Gap of each.
        long_share: Share of waits over a minute (0 to 1).
        idle_token_s: Sum over waits of the turn's prompt and answer times the gap.
        long_idle_share: Share of waits over a minute in that sum; None if it is 0.
        output_tokens: Answer of the turn before each wait.
        growth_tokens: Growth of the prompt over each wait, the answer included; negative if it
            shrinks.
    """

    num_waits: int
    gap_s: Distribution
    long_share: float
    idle_token_s: float
    long_idle_share: float | None
    output_tokens: Distribution
    growth_tokens: Distribution


class Waits(msgspec.Struct, frozen=True):
    """All waits between two turns of a session.

    Attributes:
        all: All waits.
        by_kind: Waits by tool kind, `tool` for an unknown tool, `human` and `unknown`.
        by_name: Waits by tool and head of its shell command; those with under 20 waits together.
        after: Gaps by the kinds of the last wait and of this one, joined by a space, for at least
            20 waits.
        transitions: Counts of each kind after each kind; `start` and `end` are the session's.
    """

    all: Wait
    by_kind: dict[str, Wait]
    by_name: dict[str, Wait]
    after: dict[str, Distribution]
    transitions: dict[str, dict[str, int]]


class _Group:
    """Accumulates waits of one kind."""

    __slots__ = ("gap_s", "growth_tokens", "held_tokens", "output_tokens")

    def __init__(self) -> None:
        self.gap_s = array("d")
        self.held_tokens = array("d")
        self.output_tokens = array("d")
        self.growth_tokens = array("d")

    def extend(self, other: _Group) -> None:
        for name in self.__slots__:
            getattr(self, name).extend(getattr(other, name))

    def result(self) -> Wait:
        gaps = np.asarray(self.gap_s, dtype=np.float64)
        idle = gaps * np.asarray(self.held_tokens, dtype=np.float64)
        is_long = gaps > LONG_WAIT_S
        total = float(idle.sum())
        return Wait(
            num_waits=len(gaps),
            gap_s=distribution_of(gaps),
            long_share=float(is_long.mean()) if len(gaps) else 0.0,
            idle_token_s=total,
            long_idle_share=float(idle[is_long].sum()) / total if total > 0 else None,
            output_tokens=distribution_of(self.output_tokens),
            growth_tokens=distribution_of(self.growth_tokens),
        )


class WaitMeter:
    """Accumulates the waits of sessions."""

    def __init__(self) -> None:
        self._by_kind: defaultdict[str, _Group] = defaultdict(_Group)
        self._by_name: defaultdict[str, _Group] = defaultdict(_Group)
        self._after: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._transitions: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, session: SteppedSession) -> None:
        """Add a session."""
        turns = [step.turn for step in session.steps]
        kinds = [wait_kind(turn) for turn in turns]
        for last, kind in zip((START, *kinds), (*kinds, END), strict=True):
            self._transitions[last][kind] += 1
        for index, (turn, following) in enumerate(pairwise(turns)):
            for group in (self._by_kind[kinds[index]], self._by_name[wait_name(turn)]):
                group.gap_s.append(following.gap_s)
                group.held_tokens.append(turn.prompt_tokens + turn.output_tokens)
                group.output_tokens.append(turn.output_tokens)
                group.growth_tokens.append(following.prompt_tokens - turn.prompt_tokens)
            if index > 0:
                self._after[f"{kinds[index - 1]} {kinds[index]}"].append(following.gap_s)

    def result(self) -> Waits:
        """The result for the sessions added so far."""
        whole = _Group()
        for group in self._by_kind.values():
            whole.extend(group)
        return Waits(
            all=whole.result(),
            by_kind=_results(self._by_kind),
            by_name=_results(_common(self._by_name)),
            after={
                pair: distribution_of(gaps)
                for pair, gaps in sorted(self._after.items())
                if len(gaps) >= _MIN_WAITS
            },
            transitions={
                kind: dict(following.most_common())
                for kind, following in sorted(self._transitions.items())
            },
        )


def _common(groups: Mapping[str, _Group]) -> dict[str, _Group]:
    common = {name: group for name, group in groups.items() if len(group.gap_s) >= _MIN_WAITS}
    rare = _Group()
    for name, group in groups.items():
        if name not in common:
            rare.extend(group)
    return common | {_RARE: rare} if rare.gap_s else common


def _results(groups: Mapping[str, _Group]) -> dict[str, Wait]:
    """Results by descending idle token-seconds."""
    results = [(name, group.result()) for name, group in groups.items()]
    return dict(sorted(results, key=lambda named: -named[1].idle_token_s))
