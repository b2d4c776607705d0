"""How long sessions are away, at what, and how much KV lies idle meanwhile."""

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
"""Waits longer than this are counted as long."""

_MIN_WAITS = 20
_RARE = "(rare)"


class Wait(msgspec.Struct, frozen=True):
    """Waits of one kind; the turn is the one before the wait, whose answer asked for it.

    Attributes:
        num_waits: How many.
        gap_s: How long each was.
        long_share: Those of over a minute, of all (0 to 1).
        idle_token_s: Prompt and answer of the turn times the gap, summed.
        long_idle_share: What those of over a minute have of that; None where it is 0.
        output_tokens: Answers of the turns.
        growth_tokens: What the next prompt adds to that of the turn, the answer included; negative
            where it is shorter.
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
        all: Of any kind.
        by_kind: By kind of tool; `tool` where it is not known, `human` and `unknown`.
        by_name: By tool and head of its shell command, those with under 20 waits together.
        after: By the kind of the last wait and of this one, joined by a space, where there are at
            least 20: what the sequence of tools says about the gap.
        transitions: How often a kind follows a kind; `start` and `end` stand for the session's.
    """

    all: Wait
    by_kind: dict[str, Wait]
    by_name: dict[str, Wait]
    after: dict[str, Distribution]
    transitions: dict[str, dict[str, int]]


class _Group:
    """Waits of one kind, as they come."""

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
    """Takes sessions."""

    def __init__(self) -> None:
        self._by_kind: defaultdict[str, _Group] = defaultdict(_Group)
        self._by_name: defaultdict[str, _Group] = defaultdict(_Group)
        self._after: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._transitions: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, session: SteppedSession) -> None:
        """Take a session."""
        turns = [step.turn for step in session.steps]
        kinds = [wait_kind(turn) for turn in turns]
        for last, kind in zip((START, *kinds), (*kinds, END), strict=True):
            self._transitions[last][kind] += 1
        for place, (turn, following) in enumerate(pairwise(turns)):
            for group in (self._by_kind[kinds[place]], self._by_name[wait_name(turn)]):
                group.gap_s.append(following.gap_s)
                group.held_tokens.append(turn.prompt_tokens + turn.output_tokens)
                group.output_tokens.append(turn.output_tokens)
                group.growth_tokens.append(following.prompt_tokens - turn.prompt_tokens)
            if place > 0:
                self._after[f"{kinds[place - 1]} {kinds[place]}"].append(following.gap_s)

    def result(self) -> Waits:
        """What was found so far."""
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
    """By idle token-seconds, the largest first."""
    results = [(name, group.result()) for name, group in groups.items()]
    return dict(sorted(results, key=lambda named: -named[1].idle_token_s))
